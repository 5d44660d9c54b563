"""The straight line through the last values of a series."""

import math
from collections import deque
from collections.abc import Mapping
from math import isfinite, sqrt
from operator import mul
from typing import Any, NamedTuple

from klaudit.errors import InvalidRecord


class Trend(NamedTuple):
    """Least squares through a window."""

    n: int
    """Values in the window."""
    mean: float
    """In the series' unit."""
    center: float
    """Mean position, where the line passes through `mean`."""
    slope: float
    """In the series' unit per step."""
    standard_error: float
    """Of `slope`, for independent residuals; 0 where the values lie on a line."""
    residual_sd: float
    """Around the line, in the series' unit."""

    @property
    def t(self) -> float:
        """Slope over its standard error; infinite where the values lie on a line that is not level."""
        if self.standard_error > 0:
            return self.slope / self.standard_error
        return math.copysign(math.inf, self.slope) if self.slope else 0.0

    def predict(self, position: float) -> float:
        """The line's value there, in the series' unit."""
        return self.mean + self.slope * (position - self.center)


class RollingTrend:
    """Fits a line to the last `window` values; constant time a value, amortised.

    Sums are kept about the window's oldest point and taken anew once in every `window` values, so that rounding does not add up.
    Non-finite values are not kept. State is JSON.
    """

    def __init__(self, window: int) -> None:
        if window < 3:
            raise InvalidRecord(f"RollingTrend needs a window of 3 or more; got {window!r}")
        self.window = window
        self._points: deque[tuple[float, float]] = deque()
        self._x0 = self._y0 = 0.0
        self._x = self._y = self._xx = self._xy = self._yy = 0.0
        self._n_since = 0

    def __len__(self) -> int:
        return len(self._points)

    def observe(self, value: float, *, position: float) -> None:
        """Take in the next value.

        Args:
            value: in the series' unit.
            position: its step; steps may be skipped and must grow.
        """
        if not isfinite(value):
            return
        points = self._points
        if not points:
            self._x0, self._y0 = position, value
        points.append((position, value))
        old_x, old_y = points.popleft() if len(points) > self.window else (self._x0, self._y0)
        self._n_since += 1
        if self._n_since >= self.window:
            self._restart()
            return
        x0, y0 = self._x0, self._y0
        x, y, old_x, old_y = position - x0, value - y0, old_x - x0, old_y - y0
        self._x = self._x - old_x + x
        self._y = self._y - old_y + y
        self._xx = self._xx - old_x * old_x + x * x
        self._xy = self._xy - old_x * old_y + x * y
        self._yy = self._yy - old_y * old_y + y * y

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """Position and value of what is in the window, oldest first."""
        return tuple(self._points)

    def fit(self) -> Trend | None:
        """The line through the window; None below 3 values, and where positions are too far apart for floats."""
        n, x, y = len(self._points), self._x, self._y
        if n < 3:
            return None
        sxx = self._xx - x * x / n
        if not sxx > 0:
            return None
        sxy = self._xy - x * y / n
        syy = max(self._yy - y * y / n, 0.0)
        slope = sxy / sxx
        residual = max(syy - slope * sxy, 0.0)
        # What is left of the sums' rounding is no noise.
        variance = residual / (n - 2) if residual > 1e-12 * self._yy else 0.0
        return Trend(n, self._y0 + y / n, self._x0 + x / n, slope, sqrt(variance / sxx), sqrt(variance))

    def clear(self) -> None:
        """Forget every value."""
        self._points.clear()
        self._restart()

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        return {"points": [list(point) for point in self._points]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._points = deque((float(x), float(y)) for x, y in state["points"])
        self._restart()

    def _restart(self) -> None:
        self._x0, self._y0 = self._points[0] if self._points else (0.0, 0.0)
        x, y = [position - self._x0 for position, _ in self._points], [value - self._y0 for _, value in self._points]
        self._x, self._y = sum(x, 0.0), sum(y, 0.0)
        self._xx, self._xy, self._yy = sum(map(mul, x, x), 0.0), sum(map(mul, x, y), 0.0), sum(map(mul, y, y), 0.0)
        self._n_since = 0
