"""A series that grows faster than its own past led to expect."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
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
    """How far below `low`."""
    low: float
    """The lower of the line at the last values and at its own end: growth that ends is no fall."""
    expected: float
    """By the line, at the last value."""

    def is_over(self, limit: float, *, less_down: float = 0.0) -> bool:
        """Whether they are so many standard errors above, or below, where `less_down` fewer are enough."""
        return self.t > limit or self.t_down > limit - less_down


class Latest(NamedTuple):
    """The last MEAN_OF values."""

    mean: float
    """Winsorized by one value on either side (Dixon 1960): a spike that came and went is no departure."""
    middle: float
    """Their mean position."""
    position: float
    """Of the last one."""


class DelayedLine:
    """A line through values that ended some values ago, and the last values against it.

    The standard error is that of a mean and of a line carried on beyond its data, both widened by (1 + r) / (1 - r) for residuals whose
    neighbours correlate by r. A level that has been told counts like the line until the line has seen it in full: it is not told again, and
    growth that goes on from it is.

    Source: prediction interval of least squares; variance of the mean of an AR(1) process (Priestley 1981, 5.3.2).
    """

    def __init__(self, window: int, delay: int) -> None:
        """Build it.

        Args:
            window: values that the line is drawn through.
            delay: the last values, which it does not see: a departure over so many steps cannot hide itself. MEAN_OF or more.
        """
        self.delay = delay
        self.trend = RollingTrend(window)
        self._product = self._square = self._residual = 0.0
        self._level = 0.0
        self._n_of_level = 0

    def extend(self, value: float, *, position: float, line: Trend | None) -> None:
        """Let the line see a value, or OUTLIER where it is farther from what `line`, the fit so far, expects."""
        if line is not None and line.n >= LEAST_VALUES and line.residual_sd > 0:
            expected = line.predict(position)
            residual = (value - expected) / line.residual_sd
            value = expected + line.residual_sd * max(-OUTLIER, min(OUTLIER, residual))
            residual = max(-3.0, min(3.0, residual))
            self._product += MEMORY * (residual * self._residual - self._product)
            self._square += MEMORY * (residual * residual - self._square)
            self._residual = residual
        self.trend.observe(value, position=position)

    def judge(self, line: Trend | None, latest: Latest, *, transform: Callable[[float], float] | None = None) -> Departure | None:
        """Where the last values are against `line`; None where it has no LEAST_VALUES, or fits all too well.

        Args:
            transform: the scale of `line` and `latest`, from that of the values.
        """
        if line is None or line.n < LEAST_VALUES or line.residual_sd <= 0:
            return None
        n, line_mean, center, slope, slope_error, sd = line
        middle = latest.middle - center
        correlation = self._product / (self._square + 0.05)
        correlation = 0.0 if correlation < 0 else LONGEST_MEMORY if correlation > LONGEST_MEMORY else correlation
        widening = (1 + correlation) / (1 - correlation)
        of_slope = slope_error / sd * middle
        of_mean = widening / MEAN_OF if widening < MEAN_OF else 1.0
        variance = of_mean + widening * (1 / n + of_slope * of_slope)
        rise = slope * middle
        # Half of the line's length is sqrt(3 sxx / n) for values that are equally far apart, and sd / slope_error is sqrt(sxx).
        half = sd / slope_error * math.sqrt(3 / n) if slope_error > 0 else 0.0
        expected, low = (line_mean + rise, line_mean + slope * half) if rise > 0 else (line_mean, line_mean + rise)
        at_end = line_mean + slope * (latest.position - center)
        if self._n_of_level:
            level = self._level if transform is None else transform(self._level)
            expected, low, at_end = max(expected, level), min(low, level), max(at_end, level)
            variance += LEVEL_VARIANCE
        error = sd * math.sqrt(variance)
        return Departure((latest.mean - expected) / error, (low - latest.mean) / error, low, at_end)

    def settle(self, level: float) -> None:
        """Take `level`, the median of the last three values, for one that has been told."""
        self._level, self._n_of_level = level, self.trend.window + self.delay

    def age(self) -> None:
        """One value later."""
        if self._n_of_level:
            self._n_of_level -= 1

    def clear(self) -> None:
        """Forget every value."""
        self.trend.clear()
        self._product = self._square = self._residual = 0.0
        self._n_of_level = 0

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        noise = [self._product, self._square, self._residual]
        return {"trend": self.trend.state_dict(), "noise": noise, "level": [self._level, self._n_of_level]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.trend.load_state_dict(state["trend"])
        self._product, self._square, self._residual = state["noise"]
        self._level, self._n_of_level = state["level"]


class TrendBreakDetector:
    """Holds the mean of the last values against lines through those that ended some values before; constant time a value, amortised.

    The lines are of the root of the series: KL grows with the square of the distance that a policy has gone. `judge_logarithms` asks the
    same on a logarithmic scale, on which growth by a constant share a step is a line: a series that departs from both grows faster than
    its past led anyone to expect. State is JSON.
    """

    def __init__(self, lines: Sequence[tuple[int, int]], *, least: float) -> None:
        """Build it.

        Args:
            lines: window and delay of each; see DelayedLine.
            least: what nothing can be told from zero below, in the series' unit; above 0.
        """
        self._least = least
        self._lines = [DelayedLine(window, delay) for window, delay in lines]
        longest = max(delay for _, delay in lines)
        self._positions: deque[float] = deque(maxlen=longest)
        self._roots: deque[float] = deque(maxlen=longest)

    def observe(self, value: float, *, position: float) -> list[Departure | None]:
        """Take in the next value, in the series' unit.

        Returns:
            For each line the departure from it, on the scale of roots; None until the line has LEAST_VALUES.
        """
        positions, roots = self._positions, self._roots
        # No line leads over a gap that is longer than what was seen before it.
        if len(positions) == positions.maxlen and position - positions[-1] > positions[-1] - positions[0]:
            self.clear()
        n = len(roots)
        fits = []
        for one in self._lines:
            line = one.trend.fit()
            if n >= one.delay:
                one.extend(roots[-one.delay], position=positions[-one.delay], line=line)
            one.age()
            fits.append(line)
        positions.append(position)
        roots.append(find_root(value))
        if n + 1 < MEAN_OF:
            return [None] * len(fits)
        latest = self._find_latest()
        return [one.judge(line, latest) if n + 1 >= one.delay else None for one, line in zip(self._lines, fits, strict=True)]

    def judge_logarithms(self, index: int) -> Departure | None:
        """The last value's departure from a line on the scale of asinh(x / 2 least); None where there is none of roots."""
        one = self._lines[index]
        trend = RollingTrend(one.trend.window + 1)
        for position, root in one.trend.points:
            trend.observe(self._find_logarithm(root), position=position)
        return one.judge(trend.fit(), self._find_latest(self._find_logarithm), transform=self._find_logarithm)

    def find_last_position(self) -> float:
        """Step of the first of the last values whose mean was judged."""
        return self._positions[-MEAN_OF]

    def clear(self) -> None:
        """Forget every value."""
        self._positions.clear()
        self._roots.clear()
        for one in self._lines:
            one.clear()

    def settle(self, level: float) -> None:
        """Take `level`, the median of the last three values, in the series' unit, for one that has been told."""
        for one in self._lines:
            one.settle(find_root(level))

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        latest = [list(one) for one in zip(self._positions, self._roots, strict=True)]
        return {"latest": latest, "lines": [one.state_dict() for one in self._lines]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._positions.clear()
        self._roots.clear()
        self._positions.extend(position for position, _ in state["latest"])
        self._roots.extend(root for _, root in state["latest"])
        for one, remembered in zip(self._lines, state["lines"], strict=True):
            one.load_state_dict(remembered)

    def _find_latest(self, transform: Callable[[float], float] | None = None) -> Latest:
        roots = list(self._roots)[-MEAN_OF:]
        ordered = sorted(roots if transform is None else map(transform, roots))
        mean = (sum(ordered[1:-1]) + ordered[1] + ordered[-2]) / MEAN_OF
        positions = list(self._positions)[-MEAN_OF:]
        return Latest(mean, sum(positions) / MEAN_OF, positions[-1])

    def _find_logarithm(self, root: float) -> float:
        return math.asinh(restore_root(root) / (2 * self._least))


def find_root(value: float) -> float:
    """sign(x) sqrt(|x|), which k1 needs: its readings may be negative."""
    return math.copysign(math.sqrt(abs(value)), value)


def restore_root(root: float) -> float:
    """What `find_root` was given."""
    return root * abs(root)
