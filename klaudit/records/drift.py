"""How far a checkpoint has moved from the reference."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from klaudit.errors import InvalidRecord
from klaudit.records.checkpoint import ReferenceModel, require_digest
from klaudit.records.run import require_aware
from klaudit.records.series import KLSeries


@dataclass(frozen=True, slots=True)
class DriftMeasurement:
    """KL of one checkpoint to the reference over a prompt set, with a 95% interval.

    Raises:
        InvalidRecord: an interval that does not hold its value, a count below 1, a time without zone.
    """

    checkpoint: str
    """Path or name of the checkpoint."""
    reference: ReferenceModel
    series: KLSeries
    value: float
    """Mean over sequences, in `series.unit`."""
    low: float
    """Lower end of the 95% interval, in `series.unit`."""
    high: float
    """Upper end of the 95% interval, in `series.unit`."""
    n_sequences: int
    mean_length: float
    """Tokens a sequence."""
    measured_at: datetime
    run_id: str | None = None
    step: int | None = None
    """Updates done when the checkpoint was saved; None for a checkpoint of no run."""
    slice: str | None = None
    """Which part of the prompt set; None for all prompts."""
    checkpoint_digest: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Prompt set, its digest, seed, samples a prompt, most new tokens, temperature: what is needed to measure again."""

    def __post_init__(self) -> None:
        if math.isfinite(self.value) and not self.low <= self.value <= self.high:
            raise InvalidRecord(f"DriftMeasurement needs low <= value <= high; got {self.low!r}, {self.value!r}, {self.high!r}")
        if self.n_sequences < 1:
            raise InvalidRecord(f"DriftMeasurement.n_sequences must be 1 or more; got {self.n_sequences!r}")
        require_digest("DriftMeasurement", self.checkpoint_digest)
        require_aware("DriftMeasurement", "measured_at", self.measured_at)
