"""A controller that pushes one way without effect."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BLOCK = 25
"""Readings of the first and of the last block of a stretch that are compared."""
LEAST_FOLLOWING = 0.5
"""Share of what the control moved that what it steers must have moved, on the log scale."""
LEAST_RATIO = 1e-3
"""Of measure and set-point: what is less counts as this much, zero and negative readings too."""


@dataclass(frozen=True, slots=True)
class Saturation:
    """A stretch of readings on one side of the set-point, through which the control moved one way."""

    side: int
    """1: above the set-point, -1: below it."""
    n: int
    """Readings."""
    first_position: float
    first_control: float
    control: float
    ratio_before: float
    """Measure over set-point, geometric mean of the first block."""
    ratio: float
    """Of the last block."""


class SaturationWatch:
    """Counts readings further than `band` from the set-point, on one side, while the control never moves the other way.

    A stretch of `least` or more is a saturation once what is steered has moved less than half as far towards the set-point as the control
    moved, on the log scale, by two standard errors. Constant time a reading. State is JSON.
    """

    def __init__(self, *, band: float, least: int) -> None:
        self.band = band
        self.least = max(least, 2 * BLOCK)
        self._side = 0
        self._n = 0
        self._last_control: float | None = None
        self._first = (0.0, 0.0)
        self._first_block: list[float] = []
        self._last_block: deque[float] = deque(maxlen=BLOCK)

    def observe(self, ratio: float, *, control: float, position: float) -> Saturation | None:
        """Take in the next reading.

        Args:
            ratio: measure over set-point.
            control: in force at this reading, above 0.
            position: its step.
        """
        side = (ratio >= 1 + self.band) - (ratio <= 1 - self.band)
        last = self._last_control
        self._last_control = control
        if side == 0 or side != self._side or last is None or (control - last) * side < 0:
            self._begin(side, control=control, position=position)
            if side == 0:
                return None
        self._n += 1
        value = math.log(max(ratio, LEAST_RATIO))
        if len(self._first_block) < BLOCK:
            self._first_block.append(value)
        else:
            self._last_block.append(value)
        if self._n < self.least or control == self._first[1]:
            return None
        return self._judge(control)

    def clear(self) -> None:
        """Forget every reading."""
        self._last_control = None
        self._begin(0, control=0.0, position=0.0)

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        return {
            "side": self._side,
            "n": self._n,
            "last_control": self._last_control,
            "first": list(self._first),
            "first_block": list(self._first_block),
            "last_block": list(self._last_block),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._begin(state["side"], control=state["first"][1], position=state["first"][0])
        self._n, self._last_control = state["n"], state["last_control"]
        self._first_block.extend(state["first_block"])
        self._last_block.extend(state["last_block"])

    def _begin(self, side: int, *, control: float, position: float) -> None:
        self._side, self._n, self._first = side, 0, (position, control)
        self._first_block.clear()
        self._last_block.clear()

    def _judge(self, control: float) -> Saturation | None:
        before, error_before = average(self._first_block)
        now, error_now = average(self._last_block)
        # The blocks lie n - BLOCK readings apart, and the control went the same way all the time.
        moved = abs(math.log(control / self._first[1])) * (self._n - BLOCK) / self._n
        followed = (before - now) * self._side
        if followed + 2 * math.hypot(error_before, error_now) >= LEAST_FOLLOWING * moved:
            return None
        return Saturation(self._side, self._n, self._first[0], self._first[1], control, math.exp(before), math.exp(now))


def average(values: list[float] | deque[float]) -> tuple[float, float]:
    """Mean, and its standard error for independent values."""
    n = len(values)
    mean = math.fsum(values) / n
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
