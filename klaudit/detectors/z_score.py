"""W&B's z-score automation: how far a value stands from the mean of the values before it."""

import math
from collections.abc import Mapping
from typing import Any

from klaudit.detectors.change import Change
from klaudit.detectors.moments import SlidingMoments
from klaudit.errors import InvalidRecord


class ZScoreDetector:
    """|value - mean| / standard deviation of the last `window` values, alarming above `limit` in either direction.

    What W&B's automation `RunEvent.metric("kl").zscore(30).abs() > 3` asks for, with its defaults: window 30, threshold 3, any direction
    (wandb 0.31.0: automations/_filters/run_metrics.py, class MetricZScoreFilter: "size of the window to calculate the metric mean and
    standard deviation over"). What W&B does not say is settled like this: the window holds the values before the one that is judged, nothing is
    judged until it is full, the standard deviation is the sample's, and in a window of equal values every other value scores infinite.

    Non-finite values are neither scored nor kept. O(1) a value, whatever the window. State is JSON.
    """

    def __init__(self, *, window: int = 30, limit: float = 3.0) -> None:
        if window < 2 or not limit > 0:
            raise InvalidRecord(f"ZScoreDetector needs a window of 2 or more and a limit above 0; got window={window!r}, limit={limit!r}")
        self.limit = limit
        self._window = SlidingMoments(window)

    def observe(self, value: float, *, position: float) -> Change | None:
        """Judge `value` against the window, then take it in.

        Args:
            value: in the series' unit.
            position: its step.

        Returns:
            The alarm; None where there is none, until the window is full, and for a non-finite value.
        """
        if not math.isfinite(value):
            return None
        change = self._judge(value, position=position) if len(self._window) == self._window.window else None
        self._window.push(value)
        return change

    def state_dict(self) -> dict[str, Any]:
        """What the detector remembers, as JSON."""
        return {"values": list(self._window.values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._window.refill(state["values"])

    def _judge(self, value: float, *, position: float) -> Change | None:
        score = _find_root(*self._window.score(value))
        if not score > self.limit:
            return None
        expected = self._window.mean
        direction = 1 if value > expected else -1
        return Change(kind="jump", direction=direction, score=score, limit=self.limit, expected=expected, first_position=position)


def _find_root(numerator: int, denominator: int) -> float:
    """Square root of a fraction of whole numbers that floats may not hold; x / 0 is infinite, 0 / 0 is 0."""
    if denominator == 0:
        return math.inf if numerator else 0.0
    try:
        return math.sqrt(numerator / denominator)
    except OverflowError:
        return math.inf
