"""A sampled text with its tokens coloured by what they add to the KL."""

import math
from dataclasses import dataclass

from klaudit.records import TextSample
from klaudit.report.views.figure import format_count, format_number

LEVELS = (0.1, 0.5, 1.0, 2.0)
"""Nats at which a token's shade steps up: a fixed scale, so that two samples can be compared."""


@dataclass(frozen=True, slots=True)
class TokenView:
    """One token."""

    text: str
    kl: float
    """In nats; k1 may be negative."""
    level: int
    """Shade, 0 to 4: how many of `LEVELS` are reached; 4 for a number that is not finite."""


@dataclass(frozen=True, slots=True)
class SampleView:
    """One completion."""

    step: int
    segment: int
    index: int
    prompt: str
    completion: str
    tokens: tuple[TokenView, ...]
    estimator: str
    """`full` where every token has it, else `k1` for all: one text, one estimator."""
    total_nats: float
    """Sum over the tokens: the KL of this one sequence."""
    score: float | None
    label: str
    """Step, length and total, with unit and estimator."""


def view_sample(sample: TextSample) -> SampleView:
    """Per-token KL: over the whole vocabulary, else log policy - log reference of the sampled token (k1, Schulman 2020)."""
    is_full = bool(sample.tokens) and all(token.kl is not None for token in sample.tokens)
    estimator = "full" if is_full else "k1"
    nats = [token.kl if is_full and token.kl is not None else token.policy_logprob - token.reference_logprob for token in sample.tokens]
    total = math.fsum(nats) if all(map(math.isfinite, nats)) else sum(nats)
    return SampleView(
        step=sample.step,
        segment=sample.segment,
        index=sample.index,
        prompt=sample.prompt,
        completion=sample.completion,
        tokens=tuple(TokenView(token.text, kl, find_level(kl)) for token, kl in zip(sample.tokens, nats, strict=True)),
        estimator=estimator,
        total_nats=total,
        score=sample.score,
        label=f"step {sample.step}, {format_count(len(nats), 'token')}, {format_number(total)} nats in total ({estimator})",
    )


def find_level(nats: float) -> int:
    """Shade of a token."""
    return sum(nats >= level for level in LEVELS) if math.isfinite(nats) else len(LEVELS)
