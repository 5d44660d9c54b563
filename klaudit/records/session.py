"""One writer of a run: the process that records one segment, and what it declared when it began."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from klaudit.records.budget import KLBudget
from klaudit.records.run import Run

Resume = Literal["never", "auto", "must"]
"""`auto`: a trainer that goes on from a step goes on with its run; `never`: always a new run; `must`: no run to go on with is an error."""

InUse = Literal["refuse", "rename"]
"""What to do when a live process writes the run that this one would go on with: raise RunInUse, or begin a new run."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a store needs to know to begin a segment, however much later it is reached."""

    id: str
    run: Run
    """With its id; the name becomes `name-2` where it is taken."""
    started_at: datetime
    host: str
    pid: int
    process_started: str | None = None
    """Tells this process from a later one with the same id: boot and start time."""
    resumed_from_step: int | None = None
    resume: Resume = "auto"
    in_use: InUse = "refuse"
    budgets: tuple[KLBudget, ...] = ()
    """Set in code for this run."""
    controller: Mapping[str, Any] | None = None
    """State of the beta controller as the segment begins, as JSON."""
    audit_policy: Mapping[str, Any] | None = None
    """The policy of the live audit, as JSON; None: written by a klaudit that did not say it."""
    journals: tuple[str, ...] = ()
    """Directories that the session's journal may lie in, in order."""
