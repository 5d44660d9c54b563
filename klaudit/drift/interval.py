"""Mean with a 95% confidence interval, where values come in clusters: several completions of one prompt are not independent."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from klaudit.frontier.student import find_t_quantile

NO_SKEWNESS = 1e-6
"""Below this Hall's transformation loses its digits, and changes nothing that anyone could see."""


MOST_SKEWNESS = 0.8
"""Of skewness times t / sqrt(G). Beyond 1 the transformation folds over, and an interval becomes twice as wide as need be and covers no more often."""


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """A mean, and how far it may be off."""

    value: float
    """In the unit of the values; NaN or infinite if one of them was."""
    standard_error: float | None
    """In the unit of the values; None for a single cluster or a mean that is not finite."""
    low: float
    """Lower end of the 95% interval; without a standard error nothing is known, and the interval is as wide as the quantity allows."""
    high: float
    n_clusters: int


def estimate_mean(
    values: Sequence[float],
    *,
    clusters: Sequence[Hashable],
    weights: Sequence[float] | None = None,
    floor: float = -math.inf,
) -> MeanInterval:
    """Mean of all values, with a standard error that lets values of one cluster depend on each other in any way.

    `estimate_ratio` of values of size 1: for clusters of one size and weight its standard error is the ordinary one of the cluster means.

    Args:
        values: one or more.
        clusters: which cluster each value belongs to.
        weights: one a value, above 0; None: all alike.
        floor: least value that the quantity can take; the interval does not start below it.
    """
    return estimate_ratio(values, sizes=[1.0] * len(values), clusters=clusters, weights=weights, floor=floor)


def estimate_ratio(
    totals: Sequence[float],
    *,
    sizes: Sequence[float],
    clusters: Sequence[Hashable],
    weights: Sequence[float] | None = None,
    floor: float = -math.inf,
) -> MeanInterval:
    """Sum of totals over sum of sizes, as KL per token is nats over tokens, with a standard error over clusters.

    With value m, weights w, size N = sum w_i s_i and cluster residuals `u_g = sum over g of w_i (x_i - m s_i)` of G clusters:

        SE^2 = G / (G - 1) * sum_g u_g^2 / N^2

    (Cameron, Miller 2015, A Practitioner's Guide to Cluster-Robust Inference, sections II and VI; Cochran 1977, section 2.11.) KL is skewed
    over prompts, and m -+ t SE then misses on one side: of 16 log-normal prompts of deviation 0.6 it covers the mean in 91.5% of the cases. The
    ends are those of Hall's transformation, which takes the skewness out of the t statistic and is m -+ t SE where there is none: 93.8% there.

        m - s W(t / sqrt(G)), m - s W(-t / sqrt(G))     W(x) = 3 / g * (cbrt(1 + g (x - g / (6 G))) - 1)     s = sqrt(G) SE

    g is the skewness of the u_g, kept within -+ 0.8 sqrt(G) / t; t the 0.975 quantile of Student's distribution with G - 1 degrees of freedom
    (Hall 1992, On the Removal of Skewness by Transformation, J. R. Statist. Soc. B 54).

    Args:
        totals: one or more.
        sizes: one a total, above 0.
        clusters: which cluster each total belongs to.
        weights: one a total, above 0; None: all alike.
        floor: least value that the ratio can take; the interval does not start below it.
    """
    heaviest = max(weights) if weights is not None else 1.0
    weights = [1.0] * len(totals) if weights is None else [weight / heaviest for weight in weights]
    weighted = [weight * total for weight, total in zip(weights, totals, strict=True)]
    size = math.fsum(weight * one for weight, one in zip(weights, sizes, strict=True))
    # fsum refuses a sum of opposite infinities
    value = (math.fsum(weighted) if all(map(math.isfinite, weighted)) else sum(weighted)) / size
    residuals: dict[Hashable, list[float]] = defaultdict(list)
    for cluster, total, weight, one in zip(clusters, weighted, weights, sizes, strict=True):
        residuals[cluster].append(total - value * weight * one)
    n_clusters = len(residuals)
    if n_clusters < 2 or not math.isfinite(value):
        return MeanInterval(value=value, standard_error=None, low=floor, high=math.inf, n_clusters=n_clusters)
    of_clusters = [math.fsum(group) for group in residuals.values()]
    standard_error = math.sqrt(n_clusters / (n_clusters - 1) * math.fsum(one * one for one in of_clusters)) / size
    below, above = _find_margins(of_clusters, standard_error=standard_error)
    return MeanInterval(value, standard_error, low=max(value - below, floor), high=value + above, n_clusters=n_clusters)


def _find_margins(residuals: Sequence[float], *, standard_error: float) -> tuple[float, float]:
    """How far the interval reaches below and above the value, each 0 or more, from the residuals of 2 or more clusters."""
    n = len(residuals)
    t = find_t_quantile(n - 1)
    most = MOST_SKEWNESS * math.sqrt(n) / t
    skewness = min(max(_measure_skewness(residuals), -most), most)
    if abs(skewness) < NO_SKEWNESS:
        return t * standard_error, t * standard_error

    def transform(x: float) -> float:
        return 3 / skewness * (math.cbrt(1 + skewness * (x - skewness / (6 * n))) - 1)

    deviation = math.sqrt(n) * standard_error
    return max(deviation * transform(t / math.sqrt(n)), 0.0), max(-deviation * transform(-t / math.sqrt(n)), 0.0)


def _measure_skewness(residuals: Sequence[float]) -> float:
    """Of residuals whose mean is 0; 0 for fewer than three of them, and where all are alike."""
    n = len(residuals)
    # against the largest, so that no cube under- or overflows
    largest = max(map(abs, residuals))
    if n < 3 or largest == 0:
        return 0.0
    scaled = [one / largest for one in residuals]
    deviation = math.sqrt(math.fsum(one**2 for one in scaled) / (n - 1))
    return n / ((n - 1) * (n - 2)) * math.fsum(one**3 for one in scaled) / deviation**3
