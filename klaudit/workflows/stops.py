"""Trainings that a KL budget ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from klaudit.records.moment import format_moment
from klaudit.store import Store


@dataclass(frozen=True, slots=True)
class Stop:
    """One that was asked of a trainer, by an entry of the ledger."""

    at: datetime
    segment: int | None
    step: int | None
    """The last one before it."""
    why: str
    """What the finding says that made it."""
    budget: Mapping[str, Any]

    @property
    def label(self) -> str:
        """For people: `after step 34 of segment 0, by a KL budget: KL to reference was 2.41 nats/sequence ...`."""
        return f"after step {self.step} of segment {self.segment}, by a KL budget: {self.why}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"at": format_moment(self.at), "segment": self.segment, "step": self.step, "why": self.why, "budget": dict(self.budget)}


def list_stops(store: Store, run_id: str) -> tuple[Stop, ...]:
    """How often a budget ended a run's training, in order."""
    return tuple(
        Stop(one.at, one.body.get("segment"), one.body.get("step"), str(one.body.get("why", "")), one.body.get("budget") or {})
        for one in store.ledger.list(run_id=run_id, kind="stopped")
    )
