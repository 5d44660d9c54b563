"""A number that is set and not measured, such as a coefficient: whether it moves further than whatever sets it has moved it so far."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MoveKind = Literal["fixed", "moving", "resumed", "collapse"]

LEAST_MOVE = 1e-6
"""Relative; less is the rounding of a logger."""
LEAST_SAME = 3
"""Equal values in a row that make a number a fixed one."""
LEAST_RESTING = 20
"""Equal values in a row after which a number that moved before counts as at rest."""
MEMORY = 0.95
"""What the largest earlier move loses with each later one."""
COLLAPSE_WINDOW, COLLAPSE_START, STEADY = 20, 0.5, 1.5
"""Steps of a collapse; share of the largest value that it starts above; how much faster than before it must be."""
QUANTA = (1e-3, 1e-4, 1e-5, 1e-6)
"""What loggers round to."""
LARGEST_QUANTUM = 0.25
"""Relative: one unit of the last decimal place is no move of a number that is at least four of them."""


@dataclass(frozen=True, slots=True)
class Move:
    """A change that is too large."""

    kind: MoveKind
    """fixed: it had never moved, or was at rest; moving: a step beyond its earlier steps; resumed: across a segment; collapse: many steps."""
    before: float
    now: float
    largest: float
    """Relative size that a single step would have been allowed."""
    n_same: int
    """How long it had been `before`, in values."""


class SettingWatch:
    """Judges each value against the last one. Constant time a value; finite values only. State is JSON.

    A fixed number may move by `tolerance`, or by one unit of its last decimal place (a rounded log of a slow controller). One that moves
    may take `factor` times the largest of its earlier steps, as a share of its value or in its unit (a line that ends at zero takes equal
    steps that grow as shares), and `floor` in any case. Of a number whose second value differs from its first nothing is known yet, so
    that only its loss counts.
    """

    def __init__(self, *, tolerance: float, floor: float, factor: float, collapse: float, is_moving: bool = False) -> None:
        self.tolerance = tolerance
        self.floor = floor
        self.factor = factor
        self.collapse = collapse
        self.is_known_to_move = is_moving
        self._last: float | None = None
        self._n_same = 0
        self._n_moves = 0
        self._largest_share = 0.0
        self._largest_step = 0.0
        self._low = self._high = 0.0
        self._waits_for_resume = False
        self._n_values = 0
        self._recent: deque[tuple[float, float]] = deque(maxlen=COLLAPSE_WINDOW + 1)

    def observe(self, value: float) -> Move | None:
        """Take in the next value."""
        last = self._last
        if last is None:
            self._begin(value)
            return None
        if self._waits_for_resume:
            return self._resume(last, value)
        move = None
        if value == last or abs(value - last) <= LEAST_MOVE * abs(last):
            self._n_same += 1
        else:
            move = self._judge(last, value)
            self._note(last, value, is_expected=move is None)
        self._last = value
        self._n_values += 1
        self._recent.append((value, self._largest_step))
        if move is None and self._n_moves and self._n_values > 2 * COLLAPSE_WINDOW and value < self.collapse * self._recent[0][0]:
            move = self._find_collapse(value)
        if move is not None:
            self._recent.clear()
        return move

    def begin_segment(self) -> None:
        """The next value is the first after a resume."""
        self._waits_for_resume = self._last is not None

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        return {
            "last": self._last,
            "n_same": self._n_same,
            "n_moves": self._n_moves,
            "n_values": self._n_values,
            "largest_share": self._largest_share,
            "largest_step": self._largest_step,
            "low": self._low,
            "high": self._high,
            "waits_for_resume": self._waits_for_resume,
            "recent": [list(one) for one in self._recent],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for name in ("last", "n_same", "n_moves", "n_values", "largest_share", "largest_step", "low", "high", "waits_for_resume"):
            setattr(self, f"_{name}", state[name])
        self._recent.clear()
        self._recent.extend((float(value), float(step)) for value, step in state["recent"])

    @property
    def _allowed(self) -> float:
        """Relative size of the next step."""
        if self._is_fixed:
            return max(self.tolerance, self.factor * self._largest_share)
        return max(self.floor, self.factor * self._largest_share)

    @property
    def _is_fixed(self) -> bool:
        """Whether it never moved, or is at rest."""
        if self.is_known_to_move:
            return False
        return self._n_same >= (LEAST_RESTING if self._n_moves else LEAST_SAME)

    def _begin(self, value: float) -> None:
        self._last = self._low = self._high = value
        self._n_same = self._n_values = 1
        self._waits_for_resume = False
        self._recent.clear()
        self._recent.append((value, self._largest_step))

    def _judge(self, last: float, value: float) -> Move | None:
        is_fixed = self._is_fixed
        if self._is_expected(last, value, is_fixed=is_fixed):
            return None
        return Move("fixed" if is_fixed else "moving", last, value, self._allowed, self._n_same)

    def _is_expected(self, last: float, value: float, *, is_fixed: bool) -> bool:
        if not is_fixed and 0 < last <= (1 + self.floor) * value and value <= (1 + self.floor) * last:
            return True
        if value < 0 <= last:
            return False
        is_loss = is_lost(last, value, share=self.collapse)
        if self._n_moves and abs(value - last) <= (STEADY if is_loss else self.factor) * self._largest_step:
            return True
        if is_loss:
            return False
        if is_fixed:
            return is_one_unit(last, value) or find_share(last, value) <= self._allowed
        return not (self._n_moves or self.is_known_to_move) or find_share(last, value) <= self._allowed

    def _note(self, last: float, value: float, *, is_expected: bool) -> None:
        if is_expected:
            self._n_moves += 1
            # Nothing vouches for a first move.
            share = min(find_share(last, value), max(self.floor, self.factor * self._largest_share))
            remembered = self._largest_share * MEMORY
            self._largest_share = share if share > remembered else remembered
            step, remembered = abs(value - last), self._largest_step * MEMORY
            self._largest_step = step if step > remembered else remembered
        self._n_same = 1
        if value < self._low:
            self._low = value
        elif value > self._high:
            self._high = value

    def _find_collapse(self, value: float) -> Move | None:
        if len(self._recent) <= COLLAPSE_WINDOW:
            return None
        oldest, step_then = self._recent[0]
        if oldest < COLLAPSE_START * self._high:
            return None
        # What has fallen like this for longer is a schedule.
        is_steady = oldest - value <= STEADY * COLLAPSE_WINDOW * step_then
        return None if is_steady else Move("collapse", oldest, value, self._allowed, 1)

    def _resume(self, last: float, value: float) -> Move | None:
        """A resume goes back to an earlier value of a number that moves; a fixed one has no other."""
        allowed, low, high, n_same = self._allowed, self._low, self._high, self._n_same
        has_moved = self._n_moves > 0 or self.is_known_to_move
        is_known = has_moved or n_same >= LEAST_SAME
        self._begin(value)
        if low <= value <= high:
            return None
        nearest = low if value < low else high
        is_expected = not (is_lost(nearest, value, share=self.collapse) or value < 0 <= nearest)
        if is_known:
            is_expected = find_share(nearest, value) <= allowed or (not has_moved and is_one_unit(last, value))
        return None if is_expected else Move("resumed", last, value, allowed, n_same)


def find_share(before: float, now: float) -> float:
    """Size of a step: doubling and halving are both 1; infinite to and from zero, and across it."""
    if before == 0 or now == 0 or (before > 0) != (now > 0):
        return math.inf
    larger, smaller = max(abs(before), abs(now)), min(abs(before), abs(now))
    return larger / smaller - 1


def is_lost(before: float, now: float, *, share: float) -> bool:
    """Whether a number above zero fell to zero, below it, or under a share of what it was."""
    return before > 0 and now < share * before


def is_one_unit(before: float, now: float) -> bool:
    """Whether two values differ by one unit of the last decimal place that a logger rounds to."""
    step = abs(now - before)
    if step > LARGEST_QUANTUM * abs(before):
        return False
    return any(abs(step / quantum - 1) < 1e-6 and abs(before / quantum - round(before / quantum)) < 1e-6 for quantum in QUANTA)
