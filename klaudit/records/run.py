"""A run, its segments, and what a list of runs shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from klaudit.errors import InvalidRecord
from klaudit.records.checkpoint import ReferenceModel
from klaudit.records.series import KLReading, KLSeries, find_governing_series, require_member

RunStatus = Literal["running", "finished", "failed"]


def require_aware(record: str, name: str, moment: datetime | None) -> None:
    """Raise InvalidRecord for a time without a time zone."""
    if moment is not None and moment.tzinfo is None:
        raise InvalidRecord(f"{record}.{name} must carry a time zone; got {moment.isoformat()}")


@dataclass(frozen=True, slots=True)
class Run:
    """One training run, as it was declared when it began.

    Raises:
        InvalidRecord: an empty name, an unknown status, a time without zone, a batch size below 1.
    """

    id: str
    name: str
    started_at: datetime
    status: RunStatus = "running"
    finished_at: datetime | None = None
    algorithm: str | None = None
    """Such as `ppo`."""
    framework: str | None = None
    """The trainer that the numbers come from, such as `klaudit` or `trl`."""
    policy: str | None = None
    """Name of the model that is trained."""
    reference: ReferenceModel | None = None
    batch_size: int | None = None
    """Sequences a step."""
    beta: float | None = None
    """KL penalty coefficient at the start."""
    planned_steps: int | None = None
    series: Mapping[str, KLSeries] = field(default_factory=dict)
    """What each KL of the run's steps is; the key `kl` describes the step's own."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The trainer's arguments, as JSON."""
    identity: Mapping[str, Any] | None = None
    """What trained and was trained, as JSON: digests, tokenizer, chat template, package versions, git state."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise InvalidRecord("Run.name must not be empty")
        require_member("Run", "status", self.status, RunStatus)
        require_aware("Run", "started_at", self.started_at)
        require_aware("Run", "finished_at", self.finished_at)
        if self.batch_size is not None and self.batch_size < 1:
            raise InvalidRecord(f"Run.batch_size must be 1 or more; got {self.batch_size!r}")

    @property
    def governing_key(self) -> str | None:
        """Key of the series that budgets and change rules look at; None where no reference KL is known."""
        return find_governing_series(self.series)


@dataclass(frozen=True, slots=True)
class Segment:
    """One uninterrupted stretch of a run; a resume starts the next.

    Raises:
        InvalidRecord: a negative index or count, or a time without zone.
    """

    run_id: str
    index: int
    started_at: datetime
    ended_at: datetime | None = None
    host: str | None = None
    pid: int | None = None
    resumed_from_step: int | None = None
    session: str | None = None
    """Id of the journal that writes it; None: written without one."""
    heartbeat_at: datetime | None = None
    """When its writer last said that it lives."""
    lease_until: datetime | None = None
    """No other writer may go on with the run before; None: no lease."""
    process_started: str | None = None
    """Tells its process from a later one with the same id."""
    reference_digest: str | None = None
    """Of the reference model in this stretch."""
    controller: Mapping[str, Any] | None = None
    """State of the beta controller when it began, as JSON."""
    n_lost: int = 0
    """Steps that were logged and could not be kept."""
    lost_first_step: int | None = None
    lost_last_step: int | None = None
    lost_reason: str | None = None

    def __post_init__(self) -> None:
        if self.index < 0 or self.n_lost < 0:
            raise InvalidRecord(f"Segment.index and .n_lost must be 0 or more; got index={self.index!r}, n_lost={self.n_lost!r}")
        require_aware("Segment", "started_at", self.started_at)
        require_aware("Segment", "ended_at", self.ended_at)
        require_aware("Segment", "heartbeat_at", self.heartbeat_at)
        require_aware("Segment", "lease_until", self.lease_until)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line of the list of runs."""

    run: Run
    n_steps: int
    last_step: int | None
    last_logged_at: datetime | None
    last_kl: KLReading | None
    """The governing reading of the last step; None before the first."""
    last_beta: float | None
    last_score: float | None
    n_findings: Mapping[str, int]
    """Findings by severity, those at zero left out."""
    n_kl_measured: int = 0
    """Steps with a finite governing KL."""
    n_non_finite: int = 0
    """Steps with a NaN or an infinity in them."""
    n_lost: int = 0
    """Steps that were logged and could not be kept."""
