"""A series that grows faster than its own past led to expect."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from klaudit.detectors.trend import RollingTrend, Trend

MEAN_OF = 10
"""The last values, whose mean is held against the line."""
LEAST_VALUES = 20
"""Values of the line before anything is judged."""
LONGEST_MEMORY = 0.7
"""Correlation of neighbouring residuals that is allowed for at most: what looks longer is as a rule a bend of the line."""
OUTLIER = 4.5
"""A value counts to the line up to so many standard deviations from it."""
MEMORY = 0.03
"""Weight of the latest pair in the correlation of neighbouring residuals."""
LEVEL_VARIANCE = 0.45
"""Of a level that is the median of three values, over that of one value."""


class Departure(NamedTuple):
    """Where the last values are, and where the line leads."""

    t: float
    """How far above the line their mean is, in its standard errors; above the line's own mean, where the line falls."""
    t_down: float
    """How far below it, or below the line's own mean where the line rises: growth that ends is no fall."""
    low: float
    """The lower of the line and its mean, at the last values."""
    expected: float
    """By the line, at the last value."""

    def is_over(self, limit: float) -> bool:
        """Whether they are so many standard errors above or below."""
        return self.t > limit or self.t_down > limit


class TrendBreakDetector:
    """Holds the mean of the last values against a line through those that ended some values before; constant time a value, amortised.

    The line is one of the root of the series: KL grows with the square of the distance that a policy has gone. `judge_logarithms` asks the
    same on a logarithmic scale, on which growth by a constant share a step is a line: a series that departs from both grows faster than
    its past led anyone to expect.

    The mean is winsorized by one value on either side: a spike that came and went is no departure. A level that has been told counts like
    the line until the line has seen it in full: it is not told again, and growth that goes on from it is.

    The standard error is that of a mean and of a line carried on beyond its data, both widened by (1 + r) / (1 - r) for residuals whose
    neighbours correlate by r. State is JSON.

    Source: Dixon 1960 (winsorized mean); prediction interval of least squares; variance of the mean of an AR(1) process (Priestley 1981, 5.3.2).
    """

    def __init__(self, window: int, delay: int, *, least: float) -> None:
        """Build it.

        Args:
            window: values that the line is drawn through.
            delay: the last values, which the line does not see: a departure over so many steps cannot hide itself. MEAN_OF or more.
            least: what nothing can be told from zero below, in the series' unit; above 0.
        """
        self.delay = delay
        self._least = least
        self._trend = RollingTrend(window)
        self._positions: deque[float] = deque()
        self._roots: deque[float] = deque()
        self._product = self._square = self._residual = 0.0
        self._level = 0.0
        self._n_of_level = 0

    def observe(self, value: float, *, position: float) -> Departure | None:
        """Take in the next value, in the series' unit; None until the line has LEAST_VALUES. What is told is of roots."""
        line = self._trend.fit()
        if len(self._roots) == self.delay:
            self._extend(line)
        self._positions.append(position)
        self._roots.append(find_root(value))
        if self._n_of_level:
            self._n_of_level -= 1
        if line is None or line.n < LEAST_VALUES or len(self._roots) < self.delay or line.residual_sd <= 0:
            return None
        return self._judge(line, self._roots, level=self._level)

    def judge_logarithms(self) -> Departure | None:
        """The last value's departure on the scale of asinh(x / 2 least); None where `observe` gave None, or where the line fits all too well."""
        trend = RollingTrend(self._trend.window + 1)
        for position, root in self._trend.points:
            trend.observe(self._find_logarithm(root), position=position)
        line = trend.fit()
        if line is None or line.n < LEAST_VALUES or len(self._roots) < self.delay or line.residual_sd <= 0:
            return None
        return self._judge(line, [self._find_logarithm(root) for root in self._roots], level=self._find_logarithm(self._level))

    def find_last_position(self) -> float:
        """Step of the first of the last values whose mean was judged."""
        return self._positions[self.delay - MEAN_OF]

    def clear(self) -> None:
        """Forget every value."""
        self._trend.clear()
        self._positions.clear()
        self._roots.clear()
        self._product = self._square = self._residual = 0.0
        self._n_of_level = 0

    def settle(self, level: float) -> None:
        """Take `level`, the median of the last three values, for one that has been told."""
        self._level, self._n_of_level = find_root(level), self._trend.window + self.delay

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        latest = [list(one) for one in zip(self._positions, self._roots, strict=True)]
        noise = [self._product, self._square, self._residual]
        return {"trend": self._trend.state_dict(), "latest": latest, "noise": noise, "level": [self._level, self._n_of_level]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._trend.load_state_dict(state["trend"])
        self._positions = deque(position for position, _ in state["latest"])
        self._roots = deque(root for _, root in state["latest"])
        self._product, self._square, self._residual = state["noise"]
        self._level, self._n_of_level = state["level"]

    def _find_logarithm(self, root: float) -> float:
        return math.asinh(restore_root(root) / (2 * self._least))

    def _extend(self, line: Trend | None) -> None:
        """Let the line see the oldest of the last values; an outlier no farther than OUTLIER."""
        position, value = self._positions.popleft(), self._roots.popleft()
        if line is not None and line.n >= LEAST_VALUES and line.residual_sd > 0:
            expected = line.predict(position)
            residual = (value - expected) / line.residual_sd
            value = expected + line.residual_sd * max(-OUTLIER, min(OUTLIER, residual))
            residual = max(-3.0, min(3.0, residual))
            self._product += MEMORY * (residual * self._residual - self._product)
            self._square += MEMORY * (residual * residual - self._square)
            self._residual = residual
        self._trend.observe(value, position=position)

    def _judge(self, line: Trend, values: Sequence[float], *, level: float) -> Departure:
        latest = self.delay - MEAN_OF
        n, line_mean, center, slope, slope_error, sd = line
        ordered = sorted(islice(values, latest, None))
        mean = (sum(ordered[1:-1]) + ordered[1] + ordered[-2]) / MEAN_OF
        middle = sum(islice(self._positions, latest, None)) / MEAN_OF - center
        correlation = self._product / (self._square + 0.05)
        correlation = 0.0 if correlation < 0 else LONGEST_MEMORY if correlation > LONGEST_MEMORY else correlation
        widening = (1 + correlation) / (1 - correlation)
        of_slope = slope_error / sd * middle
        of_mean = widening / MEAN_OF if widening < MEAN_OF else 1.0
        variance = of_mean + widening * (1 / n + of_slope * of_slope)
        rise = slope * middle
        expected, low = (line_mean + rise, line_mean) if rise > 0 else (line_mean, line_mean + rise)
        at_end = line_mean + slope * (self._positions[-1] - center)
        if self._n_of_level:
            expected, low, at_end = max(expected, level), min(low, level), max(at_end, level)
            variance += LEVEL_VARIANCE
        error = sd * math.sqrt(variance)
        return Departure((mean - expected) / error, (low - mean) / error, low, at_end)


def find_root(value: float) -> float:
    """sign(x) sqrt(|x|), which k1 needs: its readings may be negative."""
    return math.copysign(math.sqrt(abs(value)), value)


def restore_root(root: float) -> float:
    """What `find_root` was given."""
    return root * abs(root)
