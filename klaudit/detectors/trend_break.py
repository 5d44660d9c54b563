"""A series that grows faster than its own past led to expect."""

import math
from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

from klaudit.detectors.trend import RollingTrend, Trend

WINDOW = 50
"""Values that the line is drawn through."""
DELAY = 20
"""The last values, which the line does not see: a departure over so many steps cannot hide itself."""
MEAN_OF = 10
"""The last of them, whose mean is held against the line."""
LEAST_VALUES = 35
"""Values of the line before anything is judged."""
OUTLIER = 4.5
"""A value counts to the line up to so many standard deviations from it."""
MEMORY = 0.03
"""Weight of the latest pair in the correlation of neighbouring residuals."""


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


class TrendBreakDetector:
    """Holds the mean of the last values against a line through those that ended DELAY values before; constant time a value, amortised.

    The standard error is that of a mean and of a line carried on beyond its data, both widened by (1 + r) / (1 - r) for residuals whose
    neighbours correlate by r. State is JSON.

    Source: prediction interval of least squares; variance of the mean of an AR(1) process (Priestley 1981, 5.3.2).
    """

    def __init__(self) -> None:
        self._trend = RollingTrend(WINDOW)
        self._positions: deque[float] = deque()
        self._values: deque[float] = deque()
        self._product = self._square = self._residual = 0.0

    def observe(self, value: float, *, position: float) -> Departure | None:
        """Take in the next value; None until the line has LEAST_VALUES."""
        line = self._trend.fit()
        if len(self._values) == DELAY:
            self._extend(line)
        self._positions.append(position)
        self._values.append(value)
        if line is None or line.n < LEAST_VALUES or len(self._values) < DELAY or line.residual_sd <= 0:
            return None
        return self._judge(line)

    def find_last_position(self) -> float:
        """Step of the first of the last values whose mean was judged."""
        return self._positions[DELAY - MEAN_OF]

    def clear(self) -> None:
        """Forget every value."""
        self._trend.clear()
        self._positions.clear()
        self._values.clear()
        self._product = self._square = self._residual = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        latest = [list(one) for one in zip(self._positions, self._values, strict=True)]
        return {"trend": self._trend.state_dict(), "latest": latest, "noise": [self._product, self._square, self._residual]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._trend.load_state_dict(state["trend"])
        self._positions = deque(position for position, _ in state["latest"])
        self._values = deque(value for _, value in state["latest"])
        self._product, self._square, self._residual = state["noise"]

    def _extend(self, line: Trend | None) -> None:
        """Let the line see the oldest of the last values; an outlier no farther than OUTLIER."""
        position, value = self._positions.popleft(), self._values.popleft()
        if line is not None and line.n >= LEAST_VALUES and line.residual_sd > 0:
            expected = line.predict(position)
            residual = (value - expected) / line.residual_sd
            value = expected + line.residual_sd * max(-OUTLIER, min(OUTLIER, residual))
            residual = max(-3.0, min(3.0, residual))
            self._product += MEMORY * (residual * self._residual - self._product)
            self._square += MEMORY * (residual * residual - self._square)
            self._residual = residual
        self._trend.observe(value, position=position)

    def _judge(self, line: Trend) -> Departure:
        mean = math.fsum(islice(self._values, DELAY - MEAN_OF, None)) / MEAN_OF
        middle = math.fsum(islice(self._positions, DELAY - MEAN_OF, None)) / MEAN_OF - line.center
        correlation = min(0.9, max(0.0, self._product / (self._square + 0.05)))
        widening = (1 + correlation) / (1 - correlation)
        spread = (line.residual_sd / line.standard_error) ** 2 if line.standard_error > 0 else math.inf
        variance = min(1.0, widening / MEAN_OF) + widening * (1 / line.n + middle * middle / spread)
        expected = line.mean + max(0.0, line.slope * middle)
        at_end = line.predict(self._positions[-1])
        low = line.mean + min(0.0, line.slope * middle)
        standard_error = line.residual_sd * math.sqrt(variance)
        return Departure(t=(mean - expected) / standard_error, t_down=(low - mean) / standard_error, low=low, expected=at_end)
