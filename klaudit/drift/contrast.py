"""One slice of the prompts against all others: a change of behaviour that hides behind a condition shows here, and not in the mean."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from klaudit.drift.interval import MeanInterval, estimate_ratio
from klaudit.frontier.student import find_p_value, find_t_quantile
from klaudit.records import Interval, MeasuredSequence, SliceContrast

RESOLUTION = 1e-8
"""Nats per token. Two models that differ less differ by how sums were rounded, and slices by nothing at all."""

MOST_EXPONENT = 700.0
"""What `exp` takes."""


def contrast_slices(sequences: Sequence[MeasuredSequence]) -> tuple[SliceContrast, ...]:
    """Each slice's KL per token against that of all other prompts, in the order of the slices; empty where there are no slices, or nothing beside one.

    Values and their ratio are of nats over tokens with prompts as clusters (`estimate_ratio`); the ratio's interval is the delta method's on the
    scale of logarithms. The p-value is of Student's test with one variance for both groups, over the logarithms of each prompt's nats per token:
    a few prompts cannot tell their own variance, and a slice that happens to be low seems to be sure of it. Over slices of 2 to 30 log-normal or
    gamma prompts that differ in nothing, 2% to 6% of the families raise a flag. Corrected for the number of slices by Holm (1979, Scand. J.
    Statist. 6). A slice with less than two prompts is not judged.

    Args:
        sequences: completions of one sampler.
    """
    slices = dict.fromkeys(one.slice for one in sequences if one.slice is not None)
    compared = [_compare_slice(name, sequences) for name in slices if any(one.slice != name for one in sequences)]
    corrected = correct_p_values([one.p_value for one in compared])
    return tuple(
        SliceContrast(
            slice=one.name,
            value=Interval(one.value.value, one.value.low, one.value.high),
            rest=Interval(one.rest.value, one.rest.low, one.rest.high),
            ratio=one.ratio,
            p_value=p_value,
            n_prompts=one.value.n_clusters,
        )
        for one, p_value in zip(compared, corrected, strict=True)
    )


def correct_p_values(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: the chance that any of them falls below 5% by luck is 5% at most, however they depend on each other."""
    corrected = [0.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = least
    return corrected


@dataclass(frozen=True, slots=True)
class _Comparison:
    name: str
    value: MeanInterval
    rest: MeanInterval
    ratio: Interval
    p_value: float
    """Not corrected."""


def _compare_slice(name: str, sequences: Sequence[MeasuredSequence]) -> _Comparison:
    inside = [one for one in sequences if one.slice == name]
    outside = [one for one in sequences if one.slice != name]
    value, rest = _estimate_rate(inside), _estimate_rate(outside)
    p_value = _test_difference(_list_logarithms(inside), _list_logarithms(outside))
    return _Comparison(name, value, rest, _estimate_factor(value, rest), p_value)


def _estimate_rate(sequences: Sequence[MeasuredSequence]) -> MeanInterval:
    """KL in nats per token."""
    return estimate_ratio(
        [sum(one.full) for one in sequences],
        sizes=[float(len(one)) for one in sequences],
        clusters=[one.prompt for one in sequences],
        weights=[one.weight for one in sequences],
        floor=0.0,
    )


def _estimate_factor(value: MeanInterval, rest: MeanInterval) -> Interval:
    """Value over rest; where their errors say nothing, anything from 0 on is in the interval. Something over nothing is infinitely more."""
    if value.value > 0 and rest.value == rest.high == 0:
        return Interval(math.inf, math.inf if value.low > 0 else 0.0, math.inf)
    ratio = value.value / rest.value if rest.value > 0 else math.nan
    if value.standard_error is None or rest.standard_error is None or not (value.value > 0 and rest.value > 0):
        return Interval(ratio, 0.0, math.inf)
    error = math.hypot(value.standard_error / value.value, rest.standard_error / rest.value)
    # the fewer prompts have the larger share of the error
    margin = find_t_quantile(min(value.n_clusters, rest.n_clusters) - 1) * error
    return Interval(ratio, ratio * math.exp(-margin), ratio * math.exp(min(margin, MOST_EXPONENT)))


def _list_logarithms(sequences: Sequence[MeasuredSequence]) -> list[float]:
    """Logarithm of each prompt's nats per token."""
    nats: dict[str, float] = defaultdict(float)
    tokens: Counter[str] = Counter()
    for one in sequences:
        nats[one.prompt] += sum(one.full)
        tokens[one.prompt] += len(one)
    return [math.log(max(nats[prompt] / tokens[prompt], RESOLUTION)) for prompt in nats]


def _test_difference(values: Sequence[float], others: Sequence[float]) -> float:
    """Two-sided p-value of two means being one, by Student's test with pooled variance; 1 where nothing can be said."""
    if min(len(values), len(others)) < 2 or not all(map(math.isfinite, [*values, *others])):
        return 1.0
    means = [statistics.fmean(group) for group in (values, others)]
    squares = math.fsum((one - mean) ** 2 for group, mean in zip((values, others), means, strict=True) for one in group)
    degrees = len(values) + len(others) - 2
    error = math.sqrt(squares / degrees * (1 / len(values) + 1 / len(others)))
    if error == 0:
        return float(means[0] == means[1])
    return find_p_value((means[0] - means[1]) / error, degrees_of_freedom=degrees)
