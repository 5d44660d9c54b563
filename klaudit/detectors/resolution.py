"""How finely a series is written, and how often chance alone repeats its values."""

import math
from collections.abc import Sequence
from itertools import pairwise

from klaudit.detectors.baseline import MAD_TO_SD, find_median

PEAK_OF_NORMAL = 1 / math.sqrt(2 * math.pi)
"""Highest density of a standard normal."""


def find_resolution(values: Sequence[float]) -> float:
    """The step between two neighbouring values that a series can take, in its unit: the coarser of its decimal and its binary grid.

    The decimal grid is that of a log that prints some decimals, the binary one that of a number kept in bfloat16 or float16. Each is
    judged by the finest of `values`, because 0.120 is written 0.12.

    Args:
        values: finite, one or more.
    """
    decimals = max(count_decimals(value) for value in values)
    denominator = max(value.as_integer_ratio()[1] for value in values)
    return max(10.0**-decimals, 1 / denominator)


def count_decimals(value: float) -> int:
    """Decimal places of the shortest text that reads back as `value`: 3 for 0.125, 7 for 1.2e-06, 0 for 16.0."""
    mantissa, _, exponent = repr(float(value)).partition("e")
    places = len(mantissa.removesuffix(".0").partition(".")[2])
    return max(places - int(exponent or 0), 0)


def estimate_repeat_share(history: Sequence[float], *, resolution: float) -> float:
    """Chance that the next value equals the last one exactly, from 0 to 1.

    It is the larger of two estimates. The share of repeats in `history`, 1.5 standard deviations of a Poisson count above what was
    seen, knows trainers that log one value several times. The density of Gaussian noise at its peak, 0.399 r / sd with sd from the
    median step between neighbours, knows rounding: it holds where the level stands still, which is where rounded values repeat most.

    Args:
        history: three values or more, in their order.
        resolution: of the values, in their unit.
    """
    steps = [abs(after - before) for before, after in pairwise(history)]
    n_repeats = sum(step == 0 for step in steps)
    seen = (n_repeats + 1.5 * math.sqrt(n_repeats)) / len(steps)
    # A step is the difference of two values: sqrt(2) noise standard deviations.
    sd = MAD_TO_SD * find_median(steps) / math.sqrt(2)
    by_rounding = PEAK_OF_NORMAL * resolution / sd if sd > 0 else 0.0
    return min(max(seen, by_rounding), 1.0)
