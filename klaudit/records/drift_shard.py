"""Sampled completions with their drift at every token: what measurements are made of."""

import math
from dataclasses import dataclass, fields
from typing import Literal

from klaudit.errors import InvalidRecord
from klaudit.records.checkpoint import require_digest

Sampler = Literal["policy", "reference"]
"""Whose completions: the policy's give KL(policy || reference), the reference's KL(reference || policy)."""

PER_TOKEN = ("tokens", "token_ids", "full", "policy_logprobs", "reference_logprobs", "policy_entropy", "top_tokens", "top_contributions")


@dataclass(frozen=True, slots=True)
class MeasuredSequence:
    """One sampled completion, scored by policy and reference.

    Raises:
        InvalidRecord: fields per token of different lengths, no token at all, a weight that is not above 0, a negative KL.
    """

    prompt: str
    prompt_index: int
    """Place of the prompt in its set, from 0."""
    slice: str | None
    weight: float
    """Of the prompt in means over the prompt set."""
    sample: int
    """Which completion of this prompt, from 0."""
    sampler: Sampler
    tokens: tuple[str, ...]
    """Text of each token, end-of-sequence included."""
    token_ids: tuple[int, ...]
    full: tuple[float, ...]
    """KL over the whole vocabulary before each token, nats: policy || reference of the policy's completions, else the other way round."""
    policy_logprobs: tuple[float, ...]
    """Of each sampled token, nats."""
    reference_logprobs: tuple[float, ...]
    policy_entropy: tuple[float, ...]
    """Nats."""
    top_tokens: tuple[tuple[str, ...], ...] = ()
    """At each token, the vocabulary's largest contributors to `full`, largest first; empty where they were not asked for."""
    top_contributions: tuple[tuple[float, ...], ...] = ()
    """Nats, beside `top_tokens`."""
    ended: bool = False
    """Whether end-of-sequence came before the limit."""

    def __post_init__(self) -> None:
        lengths = {one.name: len(getattr(self, one.name)) for one in fields(self) if one.name in PER_TOKEN}
        optional = {"top_tokens", "top_contributions"}
        wrong = {name: n for name, n in lengths.items() if n != len(self.tokens) and not (name in optional and n == 0)}
        if not self.tokens or wrong:
            raise InvalidRecord(f"MeasuredSequence needs one number per token and at least one token; got {lengths}")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise InvalidRecord(f"MeasuredSequence.weight must be a positive finite number; got {self.weight!r}")
        if any(one < 0 for one in self.full):
            raise InvalidRecord(f"MeasuredSequence.full must be 0 or more, or NaN; got {min(self.full)!r}")

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class DriftShard:
    """Completions that were measured together, under a key over everything that decides their numbers.

    Raises:
        InvalidRecord: a malformed key, no sequences.
    """

    key: str
    """`sha256:` and 64 hex digits over both models' digests, prompts, sample numbers, settings and version of the method."""
    sequences: tuple[MeasuredSequence, ...]

    def __post_init__(self) -> None:
        require_digest("DriftShard", self.key)
        if not self.sequences:
            raise InvalidRecord("DriftShard needs at least one sequence")
