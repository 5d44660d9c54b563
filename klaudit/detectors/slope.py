"""Whether a series has been rising or falling of late, beyond what its own dependent noise does."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from operator import mul
from typing import Any

from klaudit.errors import InvalidRecord

LARGEST_MEMORY = 0.97
LARGEST_T = 99.0
"""What a straight line without any noise gives."""

LEAST_SHARE = 0.25
"""Share of the window's own residual variance that the noise has at least, where the noise of the whole series is smaller."""


@dataclass(frozen=True, slots=True)
class Slope:
    """The line through a window of values."""

    mean: float
    """In the series' unit."""
    per_value: float
    """In the series' unit per value."""
    standard_error: float
    """Of `per_value`, under the noise of the whole series; 0 where the values lie on a line."""

    @property
    def t(self) -> float:
        """Slope over its standard error, at most 99 either way."""
        if self.standard_error > 0:
            return max(-LARGEST_T, min(LARGEST_T, self.per_value / self.standard_error))
        return math.copysign(LARGEST_T, self.per_value) if self.per_value else 0.0


class SlopeTest:
    """The slope over the last `window` values, judged by the noise of the whole series so far; constant time a value, amortised.

    The variance of the residuals about the line and their lag-one autocorrelation are taken twice in every window and averaged over the series,
    because those of a single window are too noisy to judge it by. The autocorrelation is corrected for its bias in a short window
    (by (2 + 4 rho) / window); under it the slope's standard error is that of AR(1) noise. Unlike RollingTrend it takes values as equally far
    apart, which makes it several times as fast. Non-finite values are not kept. State is JSON.
    """

    def __init__(self, window: int) -> None:
        if window < 5:
            raise InvalidRecord(f"SlopeTest needs a window of 5 or more; got {window!r}")
        self.window = window
        self._sxx = window * (window * window - 1) / 12
        self._offsets = [at - (window - 1) / 2 for at in range(window)]
        self._values: deque[float] = deque()
        self._sum = self._sum_squares = self._products_xy = 0.0
        self.clear()

    @property
    def is_ready(self) -> bool:
        """Whether the window is full and its noise is known."""
        return self._n_learnt > 0

    @property
    def memory(self) -> float:
        """Lag-one autocorrelation of the noise, 0 to 0.97."""
        return self._memory

    def observe(self, value: float) -> None:
        """Take in the next value, in the series' unit."""
        if not isfinite(value):
            return
        values, window = self._values, self.window
        values.append(value)
        y = value - self._origin
        n = len(values)
        if n <= window:
            self._products_xy += (n - 1) * y
            self._sum += y
            self._sum_squares += y * y
        else:
            gone = values.popleft() - self._origin
            rest = self._sum - gone
            self._products_xy += (window - 1) * y - rest
            self._sum = rest + y
            self._sum_squares = self._sum_squares - gone * gone + y * y
        self._n_since += 1
        if self._n_since >= window // 2 and n >= window:
            self._learn_noise()

    def find_rise(self) -> float:
        """Slope over the window, in the series' unit per value; 0 until it is ready."""
        return (self._products_xy - (self.window - 1) / 2 * self._sum) / self._sxx if self._n_learnt else 0.0

    def fit(self) -> Slope | None:
        """The line through the window; None until it is ready."""
        if not self._n_learnt:
            return None
        rise = self.find_rise()
        own = LEAST_SHARE * self._measure_residuals(rise)
        variance = max(self._learnt_variance / self._n_learnt, own)
        return Slope(self._origin + self._sum / self.window, rise, math.sqrt(variance * self._inflation))

    def find_noise(self) -> float:
        """Standard deviation about the lines so far, in the series' unit; 0 until it is ready."""
        return math.sqrt(self._learnt_variance / self._n_learnt) if self._n_learnt else 0.0

    def clear(self) -> None:
        """Forget every value."""
        self._values.clear()
        self._origin = 0.0
        self._n_learnt = self._n_since = 0
        self._sum = self._sum_squares = self._products_xy = 0.0
        self._learnt_variance = self._learnt_covariance = 0.0
        self._memory = self._inflation = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        learnt = {"n_learnt": self._n_learnt, "variance": self._learnt_variance, "covariance": self._learnt_covariance}
        return {"values": list(self._values), "n_since": self._n_since, **learnt}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.clear()
        self._values.extend(float(value) for value in state["values"])
        self._sum_up()
        self._n_since, self._n_learnt = int(state["n_since"]), int(state["n_learnt"])
        self._learnt_variance, self._learnt_covariance = float(state["variance"]), float(state["covariance"])
        if self._n_learnt:
            self._take_noise()

    def _measure_residuals(self, rise: float) -> float:
        """Their variance about the line."""
        total = self._sum_squares - self._sum * self._sum / self.window
        left = total - rise * rise * self._sxx
        # What is left of the sums' rounding is no noise.
        return left / (self.window - 2) if left > 1e-12 * self._sum_squares else 0.0

    def _learn_noise(self) -> None:
        self._sum_up()
        self._n_since = 0
        self._n_learnt += 1
        rise = self.find_rise()
        mean = self._origin + self._sum / self.window
        residuals = [value - mean - rise * offset for value, offset in zip(self._values, self._offsets, strict=True)]
        self._learnt_variance += self._measure_residuals(rise)
        self._learnt_covariance += sum(map(mul, residuals, residuals[1:])) / (self.window - 2)
        self._take_noise()

    def _take_noise(self) -> None:
        raw = self._learnt_covariance / self._learnt_variance if self._learnt_variance > 0 else 0.0
        corrected = (raw + 2 / self.window) / (1 - 4 / self.window)
        self._memory = round(min(max(corrected, 0.0), LARGEST_MEMORY), 2)
        self._inflation = find_slope_variance(self.window, self._memory)

    def _sum_up(self) -> None:
        """Take the sums anew, so that rounding does not add up."""
        self._origin = self._values[0] if self._values else 0.0
        shifted = [value - self._origin for value in self._values]
        self._sum = sum(shifted)
        self._sum_squares = sum(map(mul, shifted, shifted))
        self._products_xy = sum(map(mul, shifted, range(len(shifted))))


@lru_cache(maxsize=1024)
def find_slope_variance(window: int, memory: float) -> float:
    """Variance of a least-squares slope, per unit of measured residual variance, where the noise is AR(1).

    Args:
        window: values, one position apart; 5 or more.
        memory: lag-one autocorrelation, 0 or more and below 1.
    """
    positions = [at - (window - 1) / 2 for at in range(window)]
    sxx = sum(x * x for x in positions)
    of_slope = of_mean = 0.0
    for lag in range(window):
        weight = (1 if lag == 0 else 2) * memory**lag
        of_slope += weight * sum(a * b for a, b in zip(positions, positions[lag:], strict=False)) / sxx
        of_mean += weight * (window - lag) / window
    # A line takes this much of the noise into itself, which the residuals then lack.
    kept = (window - of_slope - of_mean) / (window - 2)
    return of_slope / kept / sxx
