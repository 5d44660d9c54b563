"""One step of training, and a few sampled texts of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from klaudit.errors import InvalidRecord
from klaudit.records.run import require_aware
from klaudit.records.series import PRIMARY, KLReading

LARGEST_STEP = 2**63 - 1
"""What every database holds as an integer."""


def require_step(step: object) -> None:
    """Refuse what is no trainer's global step.

    Raises:
        InvalidRecord: anything but a whole number from 0 to LARGEST_STEP, of Python's own type.
    """
    if type(step) is not int or not 0 <= step <= LARGEST_STEP:
        raise InvalidRecord(
            f"expected step to be a whole number from 0 to 2^63 - 1; got {step!r} of type {type(step).__name__}, which is not recorded"
        )


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one step logged. Numbers may be NaN or infinite: a record keeps what the trainer computed.

    Raises:
        InvalidRecord: a negative step or segment, a time without zone.
    """

    step: int
    """The trainer's global step."""
    kl: KLReading
    """The primary reading, under the key `kl`."""
    logged_at: datetime
    segment: int = 0
    beta: float | None = None
    """KL penalty coefficient in force at this step."""
    score: float | None = None
    """Raw reward, mean over the batch."""
    readings: Mapping[str, KLReading] = field(default_factory=dict)
    """The step's other KLs by series key, such as `kl_k1` or `kl_update`."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Everything else; names with a meaning are those of `klaudit.exchange.own_keys.METRIC_NAMES`."""

    def __post_init__(self) -> None:
        require_step(self.step)
        if self.segment < 0:
            raise InvalidRecord(f"StepRecord.segment must be 0 or more; got {self.segment!r}")
        if PRIMARY in self.readings:
            raise InvalidRecord(f"StepRecord.readings must not hold {PRIMARY!r}: that is the field `kl`")
        require_aware("StepRecord", "logged_at", self.logged_at)

    def reading(self, key: str) -> KLReading | None:
        """The reading of one series, `kl` included; None where the step has none."""
        return self.kl if key == PRIMARY else self.readings.get(key)


@dataclass(frozen=True, slots=True)
class TokenScore:
    """One sampled token under policy and reference; log-probabilities in nats."""

    text: str
    policy_logprob: float
    reference_logprob: float
    kl: float | None = None
    """Full-vocabulary KL(policy || reference) at this position, in nats; None where only sampled tokens were scored."""


@dataclass(frozen=True, slots=True)
class TextSample:
    """One sampled completion of a step, so that a person sees what a KL looks like in text."""

    step: int
    prompt: str
    completion: str
    tokens: tuple[TokenScore, ...]
    segment: int = 0
    index: int = 0
    """Which of the step's samples."""
    score: float | None = None


@dataclass(frozen=True, slots=True)
class LoggedStep:
    """A step with its text samples, as one `log` call brought them."""

    record: StepRecord
    samples: tuple[TextSample, ...] = ()
