"""A positive, heavy-tailed series that is far above what is usual for it."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from klaudit.detectors.baseline import RollingMedian
from klaudit.errors import InvalidRecord

MOST_LOG = 700.0
"""Whose exponential is still a float."""
CREST = 0.9
"""The share of earlier values that lie below the crest."""


@dataclass(frozen=True, slots=True)
class Surge:
    """How far one value is above the ones before it."""

    usual: float
    """Their median, in the series' unit."""
    crest: float
    """Their 90th percentile, in the series' unit: what a spiky series reaches anyway."""
    times: float
    """The value over `usual`."""
    z: float
    """Robust standard deviations of the logarithm above that of `usual`."""


class SurgeDetector:
    """Compares each value with the last `window` ones before it, on the log scale.

    Update sizes and gradient norms are products of many factors: their logarithm has a scale, they themselves have not. Two
    conditions besides the factor keep routine spikes out: the robust z, and twice the crest, because a series with two levels
    (batches with and without a reward signal) has a small spread and a high crest. Constant time a value, in proportion to the
    window for one that is `least_times` the usual. State is JSON.

    Args:
        warm_up: values before the first judgement.
        floor: smaller values count as this one, in the series' unit.
        least_times: a surge is at least so many times the usual.
        least_sd: least standard deviation of the logarithm.
    """

    def __init__(self, *, window: int, warm_up: int, floor: float, least_times: float, least_sd: float = 0.25) -> None:
        if not 1 <= warm_up <= window or not floor > 0 or not least_times > 1:
            raise InvalidRecord(
                "SurgeDetector needs 1 <= warm_up <= window, floor > 0 and least_times > 1; "
                f"got warm_up={warm_up!r}, window={window!r}, floor={floor!r}, least_times={least_times!r}"
            )
        self.warm_up = warm_up
        self.floor = floor
        self.least_times = least_times
        self.least_sd = least_sd
        self._least_rise = math.log(least_times)
        self._median = RollingMedian(window)
        self._logs: deque[float] = deque(maxlen=window)

    def __len__(self) -> int:
        return len(self._logs)

    @property
    def usual(self) -> float | None:
        """Median of the window, in the series' unit; None during warm-up."""
        level = self._median.find() if len(self._logs) >= self.warm_up else None
        return None if level is None else math.exp(min(level, MOST_LOG))

    def observe(self, value: float) -> Surge | None:
        """Judge the next finite value against those before it, and take it in; None where it is no surge."""
        log = math.log(max(value, self.floor))
        surge = self._judge(log) if len(self._logs) >= self.warm_up else None
        self._median.observe(log)
        self._logs.append(log)
        return surge

    def clear(self) -> None:
        """Forget every value."""
        self._median.clear()
        self._logs.clear()

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        return {"logs": list(self._logs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.clear()
        for log in state["logs"]:
            self._median.observe(log)
            self._logs.append(log)

    def _judge(self, log: float) -> Surge | None:
        usual = self._median.find()
        assert usual is not None
        if log - usual < self._least_rise:
            return None
        crest = sorted(self._logs)[int(CREST * (len(self._logs) - 1))]
        if log - crest < math.log(2):
            return None
        z = (log - usual) / max(self._median.find_sd(), self.least_sd)
        as_given = [math.exp(min(one, MOST_LOG)) for one in (usual, crest, log - usual)]
        return Surge(usual=as_given[0], crest=as_given[1], times=as_given[2], z=z)
