"""What is measured of a checkpoint beside its KL: a check of the sampling, retention, weights by layer, slices."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from klaudit.errors import InvalidRecord
from klaudit.records.checkpoint import ReferenceModel, require_digest
from klaudit.records.run import require_aware


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with its 95% interval.

    Raises:
        InvalidRecord: an interval that does not hold its value.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if math.isfinite(self.value) and not self.low <= self.value <= self.high:
            raise InvalidRecord(f"Interval needs low <= value <= high; got {self.low!r}, {self.value!r}, {self.high!r}")


@dataclass(frozen=True, slots=True)
class Retention:
    """How well the checkpoint still predicts the reference's kind of text; perplexity is exp of nats per token."""

    text: str
    """Name of the text."""
    text_digest: str
    policy_nats: Interval
    """Negative log-likelihood, nats per token; the interval is over passages."""
    reference_nats: Interval
    rise: Interval
    """Policy minus reference on the same passages, nats per token: paired, so narrower than the difference of the two intervals."""
    n_tokens: int
    n_passages: int

    def __post_init__(self) -> None:
        require_digest("Retention", self.text_digest)


@dataclass(frozen=True, slots=True)
class LayerDrift:
    """How far the weights of one layer moved."""

    layer: str
    """`embedding`, `layer 0` ..., `head`, `final norm`."""
    index: int
    """Place in the forward pass, from 0."""
    relative_l2: float
    """||policy - reference|| / ||reference||, Frobenius, no unit."""
    n_parameters: int


@dataclass(frozen=True, slots=True)
class SliceContrast:
    """One slice of the prompts against all others."""

    slice: str
    value: Interval
    """KL of the slice, nats per token."""
    rest: Interval
    """KL of all other prompts, nats per token."""
    ratio: Interval
    """Slice over rest, no unit."""
    p_value: float
    """Two-sided, of a ratio of 1, corrected for the number of slices (Holm 1979)."""
    n_prompts: int
    """Different prompts of the slice."""


@dataclass(frozen=True, slots=True)
class DriftProfile:
    """What one measurement says of a checkpoint beside its KL.

    Raises:
        InvalidRecord: a malformed digest, a time without zone.
    """

    checkpoint: str
    reference: ReferenceModel
    measured_at: datetime
    key: str
    """`sha256:` and 64 hex digits over models, prompts and settings: the same key is the same measurement."""
    ratio: Interval
    """Mean of reference/policy probability over the policy's sampled tokens, no unit: 1 where what was sampled is what was scored."""
    run_id: str | None = None
    step: int | None = None
    checkpoint_digest: str | None = None
    retention: Retention | None = None
    layers: tuple[LayerDrift, ...] = ()
    """By index; empty where the weights do not match by name."""
    contrasts: tuple[SliceContrast, ...] = ()
    """Empty where the prompts have fewer than two slices."""
    shards: tuple[str, ...] = ()
    """Keys of the DriftShards behind it."""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for digest in (self.key, self.checkpoint_digest):
            require_digest("DriftProfile", digest)
        require_aware("DriftProfile", "measured_at", self.measured_at)
