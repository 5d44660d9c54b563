"""Where the drift of one checkpoint is: by position in the completion, by prompt, by token."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from klaudit.frontier.student import find_t_quantile
from klaudit.records import DriftShard, MeasuredSequence
from klaudit.records.drift_shard import Sampler

MOST_TOKENS = 200
"""Tokens that are kept of a list, those that carry most."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Positions:
    """KL per token over the place in the completion; as long as the longest completion."""

    mean: tuple[float, ...]
    """Nats per token, over the completions that reach the position."""
    low: tuple[float, ...]
    """Lower end of the 95% interval with prompts as clusters; NaN where fewer than two prompts reach it."""
    high: tuple[float, ...]
    n_sequences: tuple[int, ...]
    """Completions that reach it."""


@dataclass(frozen=True, slots=True)
class PromptDrift:
    """The completions of one prompt."""

    index: int
    """Place in the prompt set, from 0."""
    prompt: str
    slice: str | None
    mean: float
    """Nats per sequence, over its completions."""
    lowest: float
    highest: float
    n_sequences: int
    shards: tuple[str, ...]
    """Keys of the shards that hold its completions, of both samplers."""


@dataclass(frozen=True, slots=True)
class TokenDrift:
    """One token of the vocabulary."""

    text: str
    n: int
    """Places where it was counted."""
    total: float
    """Nats, over all of them."""
    mean: float
    """Nats a place."""
    share: float
    """Of all KL that was measured, 0 to 1."""


@dataclass(frozen=True, slots=True)
class LocationView:
    """Where the drift of one checkpoint is, from completions of one sampler."""

    sampler: Sampler
    n_sequences: int
    n_tokens: int
    mean_nats: float
    """Nats per token over all tokens."""
    positions: Positions
    prompts: tuple[PromptDrift, ...]
    """Most drifted first."""
    written: tuple[TokenDrift, ...]
    """Sampled tokens by the KL at the places where they were written, the largest sum first."""
    preferred: tuple[TokenDrift, ...]
    """Vocabulary tokens by what they contribute to the KL, wherever they were among the largest; empty where that was not kept."""
    n_written: int
    """Different tokens that were written, of which `written` shows the first."""
    n_preferred: int

    @property
    def half(self) -> tuple[int, int]:
        """How many of the most drifted prompts carry half of all drift, and how many prompts there are."""
        totals = sorted((max(one.mean, 0.0) * one.n_sequences for one in self.prompts), reverse=True)
        sums = np.cumsum(totals)
        n = 0 if not totals or sums[-1] <= 0 else int(np.searchsorted(sums, sums[-1] / 2)) + 1
        return n, len(totals)


@dataclass(slots=True)
class _Tally:
    """Counts and sums of tokens."""

    n: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    total: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, text: str, nats: float) -> None:
        self.n[text] += 1
        self.total[text] += nats

    def list_furthest(self, all_nats: float) -> tuple[TokenDrift, ...]:
        """Those that carry most."""
        order = sorted(self.n, key=lambda text: (-self.total[text] if not math.isnan(self.total[text]) else -math.inf, text))[:MOST_TOKENS]
        share = 1 / all_nats if all_nats > 0 and math.isfinite(all_nats) else math.nan
        return tuple(TokenDrift(one, self.n[one], self.total[one], self.total[one] / self.n[one], self.total[one] * share) for one in order)


@dataclass(slots=True)
class _Prompt:
    """What is known of one prompt so far."""

    text: str
    slice: str | None
    shards: dict[str, None] = field(default_factory=dict)
    nats: list[float] = field(default_factory=list)
    sums: Array = field(default_factory=lambda: np.zeros(0))
    """Weighted KL by position."""
    weights: Array = field(default_factory=lambda: np.zeros(0))
    n: Array = field(default_factory=lambda: np.zeros(0))

    def add(self, sequence: MeasuredSequence) -> None:
        """Count one completion."""
        values = np.asarray(sequence.full, dtype=np.float64)
        self.nats.append(float(np.sum(values)))
        if (missing := len(values) - len(self.n)) > 0:
            self.sums, self.weights, self.n = (np.pad(one, (0, missing)) for one in (self.sums, self.weights, self.n))
        self.sums[: len(values)] += sequence.weight * values
        self.weights[: len(values)] += sequence.weight
        self.n[: len(values)] += 1


def view_location(shards: Iterable[DriftShard], *, sampler: Sampler = "policy") -> LocationView | None:
    """Add up the completions of one sampler, shard by shard; None where there is none.

    Args:
        shards: read one at a time: no more than one needs to be in memory.
        sampler: whose completions; the policy's give KL(policy ‖ reference).
    """
    prompts: dict[int, _Prompt] = {}
    written, preferred = _Tally(), _Tally()
    for shard in shards:
        for one in shard.sequences:
            prompt = prompts.setdefault(one.prompt_index, _Prompt(one.prompt, one.slice))
            prompt.shards[shard.key] = None
            if one.sampler == sampler:
                prompt.add(one)
                count_tokens(one, written, preferred)
    sampled = {index: one for index, one in prompts.items() if one.nats}
    if not sampled:
        return None
    n_tokens = sum(written.n.values())
    all_nats = sum(written.total.values())
    rows = (describe_prompt(index, one) for index, one in sampled.items())
    return LocationView(
        sampler=sampler,
        n_sequences=sum(len(one.nats) for one in sampled.values()),
        n_tokens=n_tokens,
        mean_nats=all_nats / n_tokens,
        positions=measure_positions(list(sampled.values())),
        prompts=tuple(sorted(rows, key=lambda one: (math.isfinite(one.mean), -one.mean, one.index))),
        written=written.list_furthest(all_nats),
        preferred=preferred.list_furthest(all_nats),
        n_written=len(written.n),
        n_preferred=len(preferred.n),
    )


def count_tokens(one: MeasuredSequence, written: _Tally, preferred: _Tally) -> None:
    """Add the tokens of one completion."""
    for text, nats in zip(one.tokens, one.full, strict=True):
        written.add(text, nats)
    for texts, contributions in zip(one.top_tokens, one.top_contributions, strict=True):
        for text, nats in zip(texts, contributions, strict=True):
            preferred.add(text, nats)


def describe_prompt(index: int, one: _Prompt) -> PromptDrift:
    """Mean and range of a prompt's completions."""
    nats = one.nats
    return PromptDrift(index, one.text, one.slice, sum(nats) / len(nats), min(nats), max(nats), len(nats), tuple(one.shards))


def measure_positions(prompts: list[_Prompt]) -> Positions:
    """Mean KL at each position, with an interval that takes prompts as clusters.

    For G clusters with sums u_g of weighted residuals (Cameron, Miller 2015):

        SE^2 = G / (G - 1) * sum_g u_g^2 / (sum of weights)^2          interval = mean -+ t(0.975, G - 1) SE, at least 0
    """
    width = max(len(one.n) for one in prompts)
    sums, weights, counts = (
        np.stack([np.pad(getattr(one, name), (0, width - len(one.n))) for one in prompts]) for name in ("sums", "weights", "n")
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weights.sum(axis=0)
        mean = sums.sum(axis=0) / total
        n_clusters = (weights > 0).sum(axis=0)
        residuals = np.where(weights > 0, sums - mean * weights, 0.0)
        error = np.sqrt(n_clusters / np.maximum(n_clusters - 1, 1) * (residuals**2).sum(axis=0)) / total
    quantiles = {n: find_t_quantile(n - 1) if n > 1 else math.nan for n in {int(one) for one in n_clusters}}
    margin = np.array([quantiles[int(n)] for n in n_clusters]) * error
    return Positions(
        mean=tuple(mean.tolist()),
        low=tuple(np.maximum(mean - margin, 0.0).tolist()),
        high=tuple((mean + margin).tolist()),
        n_sequences=tuple(int(one) for one in counts.sum(axis=0)),
    )
