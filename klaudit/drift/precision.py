"""How many samples, or prompts, an interval of a given width needs."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from klaudit.drift.contrast import RESOLUTION
from klaudit.drift.interval import estimate_mean
from klaudit.drift.summary import list_sequences, measure_length
from klaudit.errors import InvalidConfig
from klaudit.records import DriftShard
from klaudit.records.series import ONE_SIDED_95


@dataclass(frozen=True, slots=True)
class Precision:
    """How wide the interval of KL(policy || reference) by `full` over all prompts is, and what would narrow it."""

    relative_half_width: float
    """(high - low) / 2 over the value, no unit."""
    is_reached: bool
    samples_needed: int | None
    """Completions a prompt in all, by what these say; None where the prompts alone differ too much for any number."""
    prompts_needed: int
    """Different prompts, with as many completions each as now."""


def judge_precision(shards: Sequence[DriftShard], *, within: float) -> Precision:
    """Whether `full` is known to `within` of its value, and if not, what is missing.

    With variance b between prompts and w within them, G prompts and n completions each, the squared error of the mean is (b + w / n) / G.
    One completion a prompt cannot tell b from w; the answer then is for b = 0, and better after another.
    What cannot be told from rounding is known well enough.

    Args:
        shards: every shard of one checkpoint.
        within: half of the interval over the value, such as 0.1.

    Raises:
        InvalidConfig: `within` is not a positive finite number.
    """
    if not (math.isfinite(within) and within > 0):
        raise InvalidConfig(f"Expected the width of the interval as a positive share of the value, such as 0.1; got {within!r}")
    sequences = list_sequences(shards, sampler="policy")
    nats = [sum(one.full) for one in sequences]
    prompts = [one.prompt for one in sequences]
    mean = estimate_mean(nats, clusters=prompts, weights=[one.weight for one in sequences], floor=0.0)
    width = (mean.high - mean.low) / 2
    relative = width / mean.value if mean.value > 0 else math.inf
    n_samples = len(sequences) / mean.n_clusters
    if relative <= within or mean.high <= RESOLUTION * measure_length(sequences):
        return Precision(relative, is_reached=True, samples_needed=math.ceil(n_samples), prompts_needed=mean.n_clusters)
    if mean.standard_error is None or not math.isfinite(relative):
        return Precision(relative, is_reached=False, samples_needed=None, prompts_needed=mean.n_clusters + 1)
    now = mean.n_clusters * mean.standard_error**2
    prompts_needed = math.ceil(mean.n_clusters * (relative / within) ** 2)
    samples = _count_samples(
        now, n_samples, wanted=now * (within / relative) ** 2, inside=_measure_variance_within(nats, prompts), n_prompts=mean.n_clusters
    )
    return Precision(relative, is_reached=False, samples_needed=samples, prompts_needed=prompts_needed)


def _count_samples(now: float, n_samples: float, *, wanted: float, inside: float | None, n_prompts: int) -> int | None:
    """Completions a prompt that bring b + w / n from `now` down to `wanted`; None where b alone is more, beyond the noise of its estimate."""
    if inside is None:
        return max(math.ceil(now * n_samples / wanted), math.floor(n_samples) + 1)
    between = max(now - inside / n_samples, 0.0)
    if between >= wanted:
        # the variance of G values is known to within a share sqrt(2 / (G - 1)) of itself
        between = max(now * (1 - ONE_SIDED_95 * math.sqrt(2 / (n_prompts - 1))) - inside / n_samples, 0.0)
    if between >= wanted:
        return None
    return max(math.ceil(inside / (wanted - between)), math.floor(n_samples) + 1)


def _measure_variance_within(nats: Sequence[float], prompts: Sequence[str]) -> float | None:
    """Variance of completions of one prompt, pooled over prompts; None where no prompt has two."""
    groups: dict[str, list[float]] = defaultdict(list)
    for prompt, one in zip(prompts, nats, strict=True):
        groups[prompt].append(one)
    degrees = len(nats) - len(groups)
    if degrees == 0:
        return None
    return math.fsum((one - math.fsum(group) / len(group)) ** 2 for group in groups.values() for one in group) / degrees
