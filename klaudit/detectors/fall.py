"""A series that falls to a small part of its level at once, and stays there."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klaudit.detectors.baseline import MAD_TO_SD, RollingMedian, find_median
from klaudit.detectors.resolution import find_resolution
from klaudit.errors import InvalidRecord

LEAST_READINGS, MOST_READINGS = 2, 6
"""Low readings in a row that can be a fall; where more are no fall yet, they are the series' new level."""
LEAST_SHARE = 0.01
"""Of the level: what is read as less counts as this much, zero and negative readings too."""
LEAST_SPREAD = 0.1
"""On the log scale: what a level moves by from step to step anyway."""
COARSEST = 1e-3
"""In the series' unit: no trainer rounds a KL further, so that a level of 1 is a level and no rounded number."""
AT_ONCE = 0.45
"""Share of the level that the median of the last three readings before a fall must have: what slides down does not fall."""
GAUSSIAN_90 = 1.2816
"""Standard normal quantile."""
MEDIAN = math.pi / 2
"""Variance of a median over that of a mean, for Gaussian noise."""


@dataclass(frozen=True, slots=True)
class Level:
    """Where a series was, as later readings are held against it."""

    value: float
    """Median of the last third of `values`, in the series' unit: where a series that moves has come to."""
    values: tuple[float, ...]
    """That it was found from, in their order, in the series' unit."""


@dataclass(frozen=True, slots=True)
class Fall:
    """Readings that are too low, too often in a row, to be noise."""

    level: Level
    readings: tuple[tuple[float, float], ...]
    """The low ones: position and value, in the series' unit."""
    score: float
    """How far they are below the level on the log scale, in standard deviations of their mean."""
    spread: float
    """Robust standard deviation of the level's values on the log scale."""

    @property
    def share(self) -> float:
        """Their geometric mean as a share of the level."""
        return math.exp(-average_drop(self.level.value, [value for _, value in self.readings]))


class FallDetector:
    """Looks for a fall by more than `fall` that lasts two readings or more, and that the spread of the readings before cannot explain.

    The level is the median of the last third of the `window` readings before. Low readings are set aside until it is known whether they are a fall, so that
    they do not pull the level down. Constant time a reading but for low ones, which take time in proportion to the window. State is JSON.
    """

    def __init__(
        self, *, window: int = 30, warm_up: int = 10, fall: float = 0.9, score_limit: float = 3.7, is_signed: bool = False
    ) -> None:
        if not 5 <= warm_up <= window or not 0 < fall < 1:
            raise InvalidRecord(f"FallDetector needs 5 <= warm_up <= window and 0 < fall < 1; got {warm_up!r}, {window!r} and {fall!r}")
        self.warm_up = warm_up
        self.fall = fall
        self.score_limit = score_limit
        self.is_signed = is_signed
        self._share = 3 * (1 - fall)
        self._low: list[tuple[float, float]] = []
        self._before = RollingMedian(window)

    @property
    def level(self) -> Level | None:
        """Of the readings so far, low ones that were set aside left out; None before `warm_up` of them, or where it is not above 0."""
        if len(self._before) < self.warm_up:
            return None
        values = tuple(self._before.state_dict()["values"])
        value = find_median(list(values[-third(values) :]))
        return Level(value, values) if value > 0 else None

    def observe(self, value: float, *, position: float) -> Fall | None:
        """Take in the next reading; a fall is told once, and the level starts again after it.

        Args:
            value: finite, in the series' unit.
            position: its step.
        """
        before = self._before
        if len(before) < self.warm_up:
            before.observe(value)
            return None
        level = before.find()
        if level is None or level <= 0 or abs(value) > self._share * level:
            if self._low:
                self._give_up()
            before.observe(value)
            return None
        self._low.append((position, value))
        fall = self._judge(level)
        if fall is not None:
            self.clear()
        elif len(self._low) >= MOST_READINGS:
            self._give_up()
        return fall

    def clear(self) -> None:
        """Forget every reading."""
        self._before.clear()
        self._low.clear()

    def go_on_from(self, level: Level) -> None:
        """Hold the next readings against a level that was found elsewhere, and forget every other reading."""
        self.clear()
        for value in level.values:
            self._before.observe(value)

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        return {"before": self._before.state_dict(), "low": [list(one) for one in self._low]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._before.load_state_dict(state["before"])
        self._low = [(float(position), float(value)) for position, value in state["low"]]

    def _give_up(self) -> None:
        for _, value in self._low:
            self._before.observe(value)
        self._low.clear()

    def _judge(self, middle: float) -> Fall | None:
        if len(self._low) < LEAST_READINGS or average_drop(middle, [value for _, value in self._low]) < -math.log(1 - self.fall) / 2:
            return None
        level = self.level
        if level is None:
            return None
        return judge_fall(level, self._low, fall=self.fall, score_limit=self.score_limit, is_signed=self.is_signed)


def judge_fall(level: Level, readings: Sequence[tuple[float, float]], *, fall: float, score_limit: float, is_signed: bool) -> Fall | None:
    """Whether readings are a fall from a level; None where they are not, or fewer than two. Arguments are those of FallDetector."""
    n = len(readings)
    values = [max(value, 0.0) for _, value in readings]
    resolution = min(find_resolution(level.values), COARSEST)
    drop = average_drop(level.value, [max(value, resolution) for value in values])
    if n < LEAST_READINGS or drop < -math.log(1 - fall) or find_median(list(level.values[-3:])) < AT_ONCE * level.value:
        return None
    # The mean of the readings and the median that is their level both have their error, and few values tell a spread badly.
    error = math.sqrt(1 / n + MEDIAN / third(level.values)) * (1 + 4 / len(level.values))
    least = max(LEAST_SHARE * level.value, sys.float_info.min)
    spread = max(find_spread([math.log(max(value, least)) for value in level.values]), LEAST_SPREAD)
    score = drop / (spread * error)
    if is_signed or n == LEAST_READINGS:
        # Additive noise brings a few readings near zero that look far away on the log scale.
        score = min(score, (level.value - math.fsum(value / n for value in values)) / (find_spread(level.values) * error))
    return Fall(level, tuple(readings), score, spread) if score > score_limit else None


def average_drop(level: float, values: Sequence[float]) -> float:
    """Mean of log(level / value), each value at least 1% of the level."""
    least = max(LEAST_SHARE * level, sys.float_info.min)
    return math.fsum(math.log(level) - math.log(max(value, least)) for value in values) / len(values)


def find_spread(values: Sequence[float]) -> float:
    """Robust standard deviation about a line, in the values' unit: of all residuals, or of the lower ones, whichever is larger.

    The line goes through the medians of the first and the last third (Tukey 1977, Exploratory Data Analysis: the resistant line).
    """
    n, m = len(values), third(values)
    start, end = find_median(list(values[:m])), find_median(list(values[-m:]))
    slope = (end - start) / (n - m)
    residuals = sorted(value - slope * position for position, value in enumerate(values))
    middle = find_median(residuals)
    lower_tenth = residuals[int(0.1 * (n - 1))]
    spread = max(MAD_TO_SD * find_median([abs(one - middle) for one in residuals]), (middle - lower_tenth) / GAUSSIAN_90)
    return max(spread, sys.float_info.min)


def third(values: Sequence[float]) -> int:
    """A third of so many, at least one."""
    return max(len(values) // 3, 1)
