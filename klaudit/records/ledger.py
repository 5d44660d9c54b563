"""The ledger: what was done to a store, when and by whom, each entry bound to the one before it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from klaudit.errors import InvalidRecord
from klaudit.records.run import require_aware

LedgerKind = Literal[
    "ledger_began",
    "run_opened",
    "run_imported",
    "run_deleted",
    "trainer_declared",
    "identity_declared",
    "series_declared",
    "segment_began",
    "segment_ended",
    "steps_lost",
    "reference_declared",
    "steps",
    "checkpoint",
    "drift_measured",
    "budget_set",
    "budget_removed",
    "policy_set",
    "audited",
    "stopped",
]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who wrote an entry: a process, and the person behind it where a name was given."""

    user: str
    """Of the operating system; `uid 1000` where it has no name."""
    host: str
    pid: int
    name: str | None = None
    """Given by the person, with `--by` or `$KLAUDIT_ACTOR`; nobody has checked it."""

    @property
    def label(self) -> str:
        """For people: `Ada (ada@trainer-3)`."""
        account = f"{self.user}@{self.host}"
        return account if self.name is None else f"{self.name} ({account})"


@dataclass(frozen=True, slots=True)
class LedgerDraft:
    """What an entry will say, before it has its place in the chain."""

    kind: LedgerKind
    body: Mapping[str, Any]
    """JSON."""
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One link of two chains: of the store, and of its run.

    Raises:
        InvalidRecord: a time without zone.
    """

    seq: int
    """1, 2, 3 and so on over the whole store."""
    run_id: str | None
    run_seq: int | None
    """1, 2, 3 and so on over the entries of the run; None where there is no run."""
    kind: str
    """A `LedgerKind`; a newer klaudit may have more."""
    at: datetime
    actor: Actor
    body: Mapping[str, Any]
    prev_hash: str
    """`hash` of the entry before it in the store; of the first one `klaudit.ledger.GENESIS`."""
    run_prev_hash: str | None
    """`hash` of the run's entry before it; None for its first."""
    hash: str
    """`sha256:` and 64 hex digits over everything above."""

    def __post_init__(self) -> None:
        require_aware("LedgerEntry", "at", self.at)


@dataclass(frozen=True, slots=True)
class RunHead:
    """The last entry of one run."""

    run_id: str
    run_seq: int
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """The last entry of a store: all that is needed to hold the store to its past.

    Raises:
        InvalidRecord: a sequence number below 0.
    """

    seq: int
    """0: the ledger is empty."""
    hash: str
    at: datetime | None = None
    """When the entry was written; None for an empty ledger."""
    n_entries: int = 0
    runs: tuple[RunHead, ...] = field(default=())
    """By run id; runs that were deleted too."""

    def __post_init__(self) -> None:
        if self.seq < 0:
            raise InvalidRecord(f"LedgerHead.seq must be 0 or more; got {self.seq!r}")


@dataclass(frozen=True, slots=True)
class LedgerBreak:
    """One thing that is not as the ledger says."""

    what: str
    """In one sentence, with the place."""
    expected: str
    came: str
    seq: int | None = None
    """The entry that shows it."""
    run_id: str | None = None
