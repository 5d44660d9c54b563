"""W&B's change automation: the mean of the last values against the mean of those before them."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from klaudit.detectors.change import Change
from klaudit.detectors.moments import SlidingMoments
from klaudit.errors import InvalidRecord


class WindowChangeDetector:
    """|mean of the last `recent` values - mean of the `earlier` ones before them| / |the latter|, alarming above `limit` in either direction.

    What W&B's metric-change automation asks for, with the windows that its form proposes: the current 10 values against the prior 50, relative
    (wandb 0.31.0: automations/_filters/run_metrics.py, class MetricChangeFilter). W&B leaves the limit to the person; 0.5 is a change by half.
    What W&B does not say is settled like this: nothing is judged until both windows are full, and against a mean of 0 every other mean is an
    infinite change.

    Non-finite values are neither judged nor kept. O(1) a value, whatever the windows. State is JSON.
    """

    def __init__(self, *, recent: int = 10, earlier: int = 50, limit: float = 0.5) -> None:
        if min(recent, earlier) < 1 or not limit > 0:
            raise InvalidRecord(
                "WindowChangeDetector needs windows of 1 or more and a limit above 0; "
                f"got recent={recent!r}, earlier={earlier!r}, limit={limit!r}"
            )
        self.limit = limit
        self._recent = SlidingMoments(recent)
        self._earlier = SlidingMoments(earlier)
        self._positions: deque[float] = deque(maxlen=recent)

    def observe(self, value: float, *, position: float) -> Change | None:
        """Take `value` in, then judge the two windows.

        Args:
            value: in the series' unit.
            position: its step.

        Returns:
            The alarm, dated back to the first value of the recent window; None where there is none, until both windows are full, and for a
            non-finite value.
        """
        if not math.isfinite(value):
            return None
        left = self._recent.push(value)
        self._positions.append(position)
        if left is not None:
            self._earlier.push(left)
        return self._judge() if len(self._earlier) == self._earlier.window else None

    def state_dict(self) -> dict[str, Any]:
        """What the detector remembers, as JSON."""
        return {"recent": list(self._recent.values), "earlier": list(self._earlier.values), "positions": list(self._positions)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._recent.refill(state["recent"])
        self._earlier.refill(state["earlier"])
        self._positions = deque(state["positions"], maxlen=self._positions.maxlen)

    def _judge(self) -> Change | None:
        recent, earlier = self._recent.mean, self._earlier.mean
        score = _find_relative_change(recent, earlier)
        if not score > self.limit:
            return None
        direction = 1 if recent > earlier else -1
        return Change(kind="level", direction=direction, score=score, limit=self.limit, expected=earlier, first_position=self._positions[0])


def _find_relative_change(value: float, base: float) -> float:
    if value == base:
        return 0.0
    # Halved, the difference of two finite numbers is finite.
    return math.inf if base == 0 else 2 * (abs(value / 2 - base / 2) / abs(base))
