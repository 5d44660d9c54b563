"""Completions of one prompt by policy and reference, side by side, token by token."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from klaudit.records import DriftShard, MeasuredSequence
from klaudit.records.drift_shard import Sampler
from klaudit.report.views.drift import DIRECTIONS
from klaudit.report.views.figure import format_count, format_number, format_percent
from klaudit.report.views.sample import find_level

MOST_SHOWN = 600
"""Tokens that are shown of one completion."""


@dataclass(frozen=True, slots=True)
class MeasuredToken:
    """One token."""

    text: str
    kl: float
    """Over the whole vocabulary before the token, nats."""
    level: int
    """Shade, 0 to 4."""
    told: str
    """KL, both probabilities and the largest contributors, in words."""


@dataclass(frozen=True, slots=True)
class CompletionView:
    """One completion."""

    sampler: Sampler
    sample: int
    """Which completion of the prompt, from 0."""
    tokens: tuple[MeasuredToken, ...]
    """The first `MOST_SHOWN`."""
    total_nats: float
    """Of the whole completion."""
    n_tokens: int
    label: str
    """Total with direction and unit, length."""


@dataclass(frozen=True, slots=True)
class CompletionPair:
    """What both models wrote."""

    sample: int
    policy: CompletionView | None
    reference: CompletionView | None
    """None where the reference's completions were not measured."""


def view_completions(shards: Iterable[DriftShard], *, prompt_index: int) -> tuple[CompletionPair, ...]:
    """The completions of one prompt; the pair that the policy drifted furthest in first."""
    found: dict[int, dict[Sampler, CompletionView]] = {}
    for shard in shards:
        for one in shard.sequences:
            if one.prompt_index == prompt_index:
                found.setdefault(one.sample, {})[one.sampler] = view_completion(one)
    pairs = (CompletionPair(sample, both.get("policy"), both.get("reference")) for sample, both in found.items())
    return tuple(sorted(pairs, key=lambda one: (-one.policy.total_nats if one.policy is not None else math.inf, one.sample)))


def view_completion(one: MeasuredSequence) -> CompletionView:
    """One completion with what can be said of each of its tokens."""
    shown = range(min(len(one), MOST_SHOWN))
    total = sum(one.full)
    direction = DIRECTIONS["reverse" if one.sampler == "policy" else "forward"]
    rest = f", the first {MOST_SHOWN} shown" if len(one) > MOST_SHOWN else ""
    end = "ends by itself" if one.ended else "cut at the limit"
    return CompletionView(
        sampler=one.sampler,
        sample=one.sample,
        tokens=tuple(MeasuredToken(one.tokens[at], one.full[at], find_level(one.full[at]), tell_token(one, at)) for at in shown),
        total_nats=total,
        n_tokens=len(one),
        label=f"{direction} {format_number(total)} nats/sequence in {format_count(len(one), 'token')}{rest}, {end}",
    )


def tell_token(one: MeasuredSequence, at: int) -> str:
    """One token in words."""
    policy, reference = (tell_probability(each[at]) for each in (one.policy_logprobs, one.reference_logprobs))
    parts = [f"{one.tokens[at]!r}: {format_number(one.full[at])} nats", f"policy {policy}, reference {reference}"]
    if one.top_tokens and one.top_tokens[at]:
        top = zip(one.top_tokens[at], one.top_contributions[at], strict=True)
        parts.append("most of it from " + ", ".join(f"{text!r} {format_number(nats)}" for text, nats in top))
    return " · ".join(parts)


def tell_probability(logprob: float) -> str:
    """A probability in percent, tiny ones too."""
    percent = 100 * math.exp(min(logprob, 0.0)) if not math.isnan(logprob) else math.nan
    return format_percent(percent) if percent >= 0.1 or percent == 0 else f"{percent:.1g}%"
