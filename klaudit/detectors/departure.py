"""A series that leaves, within few steps, what its last steps led to expect."""

import math
from collections import deque
from collections.abc import Mapping
from math import exp, isfinite, log, sqrt
from typing import Any, NamedTuple

from klaudit.detectors.trend import RollingTrend
from klaudit.errors import InvalidRecord

LEAST = 10
"""Values in the window before anything is judged."""
RECENT = 3
"""Values of which the middle one is the level now: one outlier is no level."""
SHRINKAGE = 4.0
"""A slope counts by 1 - SHRINKAGE / t^2, so one within two standard errors of zero does not: its error would exceed what it explains."""
SIGNIFICANT = math.sqrt(SHRINKAGE)
"""The t beyond which a slope counts."""
LEAST_NOISE = 0.01
"""Least noise standard deviation of a value, as a share of it (of one, where no logarithms are taken)."""
UNSURE = 6
"""n / (n - 6) widens the standard error as Student's t does, within 10% at 4.5 standard errors: few values tell the noise badly."""
MEDIAN = math.pi / 2
"""Variance of a median over that of a mean, for Gaussian noise."""
ALIKE = 2.0
"""Variance of the mean of `delay` values over what it would be if neighbours were independent."""
SMALLEST = 1e-4
"""What is below counts as this, where logarithms are taken; in the series' unit."""
LARGEST_LOG = 700.0
"""A line that is carried on ends here: floats do, at 709."""


class Departure(NamedTuple):
    """Where a series is, and where it was expected; all but `z` and `t` in the series' unit."""

    level: float
    """Median of the last three values."""
    expected: float
    """Of this step, by the window's line or its mean, whichever is nearer to the level."""
    usual: float
    """Mean of the window (geometric where logarithms are taken), which ended `delay` values ago."""
    z: float
    """How far above what was expected the mean of the last values is (of three, or of `delay`; the farther one), in its standard errors,
    which are wider where the window has few values. Negative: below."""
    noise: float
    """Standard deviation of the window's values about its line, as a share of them (where logarithms are taken)."""
    t: float
    """Slope of the window's line over its standard error; infinite where the window's values lie on a line that is not level."""


class DepartureDetector:
    """Holds the last values of a series against the line through those before them; constant time a value, amortised.

    The line is that of `window` values which end `delay` values ago, so that a change does not hide itself. State is JSON.

    Args:
        least: values in the window before the first judgement.
        in_logs: for a positive series whose noise grows with its level.
    """

    def __init__(self, *, window: int = 30, delay: int = 10, least: int = LEAST, in_logs: bool = True) -> None:
        if not (window >= least > UNSURE and delay >= RECENT):
            raise InvalidRecord(
                f"DepartureDetector needs window >= least > {UNSURE} and delay >= {RECENT}; got {window!r}, {least!r} and {delay!r}"
            )
        self.delay = delay
        self.least = least
        self.in_logs = in_logs
        self._trend = RollingTrend(window)
        self._positions: deque[float] = deque()
        self._values: deque[float] = deque()
        self._n_of_widths = 0
        self._widths = (0.0, 0.0)

    def observe(self, value: float, *, position: float) -> Departure | None:
        """Take in the next value.

        Args:
            value: in the series' unit; NaN and infinities are left out.
            position: its step; steps may be skipped and must grow.

        Returns:
            Where the series is; None while there are too few values, and for one that is left out.
        """
        if not isfinite(value):
            return None
        positions, values = self._positions, self._values
        positions.append(position)
        values.append(self._scale(value))
        if len(values) > self.delay:
            self._trend.observe(values.popleft(), position=positions.popleft())
        return self._judge() if len(self._trend) >= self.least else None

    def score_drift(self, departure: Departure, *, start: float, n: int) -> float:
        """How far the window's mean is above the median of a series' first `n` values, in standard errors; negative: below."""
        distance = self._scale(departure.usual) - self._scale(start)
        return distance / (departure.noise * sqrt(MEDIAN / n + 1 / max(len(self._trend), 1)))

    def list_values(self) -> dict[str, list[float]]:
        """`steps` and `values` of the window and of what came after it, oldest first."""
        points = (*self._trend.points, *self._list_latest())
        return {"steps": [position for position, _ in points], "values": [self._bring_back(one) for _, one in points]}

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        return {"trend": self._trend.state_dict(), "latest": [list(point) for point in self._list_latest()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._trend.load_state_dict(state["trend"])
        self._positions = deque(float(position) for position, _ in state["latest"])
        self._values = deque(float(one) for _, one in state["latest"])

    def _list_latest(self) -> list[tuple[float, float]]:
        return list(zip(self._positions, self._values, strict=True))

    def _judge(self) -> Departure | None:
        line = self._trend.fit()
        if line is None:
            return None
        n, mean, center, slope, slope_error, sd = line
        positions, values = self._positions, self._values
        third, second, last = values[-3], values[-2], values[-1]
        position = positions[-1]
        level = sorted((third, second, last))[1]
        t = slope / slope_error if slope_error > 0 else line.t
        # A slope that leads away from the level is not carried on either.
        slope = slope * (1 - SHRINKAGE / (t * t)) if abs(t) > SIGNIFICANT and (level - mean) * slope > 0 else 0.0
        start = mean - slope * center
        noise = max(sd, LEAST_NOISE) * n / (n - UNSURE)
        width_short, width_long = self._find_widths(n)
        z_short = ((third + second + last) / RECENT - start - slope * positions[-2]) / (noise * width_short)
        z_long = (sum(values) / self.delay - start - slope * (positions[0] + position) / 2) / (noise * width_long)
        z = z_short if abs(z_short) > abs(z_long) else z_long
        expected = start + slope * position
        if self.in_logs:
            return Departure(raise_to(level), raise_to(expected), raise_to(mean), z, noise, t)
        return Departure(level, expected, mean, z, noise, t)

    def _find_widths(self, n: int) -> tuple[float, float]:
        """Standard errors of the mean of the last three values and of the latest ones about that of `n` before, in noise standard deviations."""
        if n != self._n_of_widths:
            self._n_of_widths = n
            self._widths = sqrt(1 / RECENT + 1 / n), sqrt(ALIKE / self.delay + 1 / n)
        return self._widths

    def _scale(self, value: float) -> float:
        return log(value if value > SMALLEST else SMALLEST) if self.in_logs else value

    def _bring_back(self, one: float) -> float:
        return raise_to(one) if self.in_logs else one


def raise_to(power: float) -> float:
    """The exponential, of LARGEST_LOG where it would be no float."""
    return exp(LARGEST_LOG if power > LARGEST_LOG else power)


class Excursion:
    """Whether a series has left what was expected of it, and not come back.

    It begins with `steps` departures in a row, each by the factor and by `z` standard errors, and lasts while the level is beyond that
    factor of what was expected as it began. State is JSON.

    Args:
        factor: of what was expected; below 1 for a fall, above 1 for a rise.
    """

    def __init__(self, *, factor: float, z: float, steps: int) -> None:
        if not (factor > 0 and factor != 1):
            raise InvalidRecord(f"Excursion needs a positive factor other than 1; got {factor!r}")
        self.factor = factor
        self._direction = 1 if factor > 1 else -1
        self.z = z
        self.steps = steps
        self.before: float | None = None
        """What was expected as it began, in the series' unit; None while there is none."""
        self.since = 0.0
        """Position of its first departure."""
        self._n = 0

    def observe(self, departure: Departure, *, position: float) -> bool:
        """Whether it goes on at this step."""
        if self.before is not None and self._is_beyond(departure.level, self.before):
            return True
        self.before = None
        if not self._is_beyond(departure.level, departure.expected) or departure.z * self._direction < self.z:
            self._n = 0
            return False
        if not self._n:
            self.since = position
        self._n += 1
        if self._n < self.steps:
            return False
        self.before, self._n = departure.expected, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        return {"before": self.before, "since": self.since, "n": self._n}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.before, self.since, self._n = state["before"], float(state["since"]), int(state["n"])

    def _is_beyond(self, level: float, expected: float) -> bool:
        return (level - self.factor * expected) * self._direction > 0
