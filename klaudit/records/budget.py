"""A limit on KL that a person set. It is not `target_kl`, which is a controller's set-point."""

import fnmatch
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from klaudit.errors import InvalidBudget
from klaudit.records.run import require_aware
from klaudit.records.series import UNIT_LABELS, Unit, require_member

Scope = Literal["per_step", "window", "path", "checkpoint"]
BreachOn = Literal["bound", "value"]
Action = Literal["alert", "raise_beta", "save_checkpoint", "stop"]


@dataclass(frozen=True, slots=True)
class KLBudget:
    """A limit, its unit, and what is compared with it.

    Raises:
        InvalidBudget: a limit that is not a positive finite number, an unknown unit, a window scope without steps.
        InvalidRecord: a scope, `on` or action outside its vocabulary.
    """

    limit: float
    """In `unit`."""
    unit: Unit
    """nats_per_token or nats_per_sequence: a limit without a unit limits nothing."""
    scope: Scope = "per_step"
    """per_step: one governing reading; window: EWMA over `window_steps`; path: sum of policy-update KL; checkpoint: measured drift."""
    window_steps: int | None = None
    """Span of the EWMA, for scope `window`: its weight is 2 / (window_steps + 1)."""
    on: BreachOn = "bound"
    """When the action is taken: once noise cannot explain the breach, or at once."""
    action: Action = "alert"
    """What is done besides telling: nothing, saving a checkpoint, or ending the run; raise_beta is refused, since nothing takes it yet."""
    owner: str | None = None
    """Who answers for it."""
    reason: str | None = None
    """Why this limit."""
    run_id: str | None = None
    """The run that it is for; None with `match`."""
    match: str | None = None
    """Shell-style pattern of run names, such as `prod-*`."""
    id: str = ""
    """Given by the store."""
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.limit, (int, float)) and math.isfinite(self.limit) and self.limit > 0):
            raise InvalidBudget(f"KLBudget.limit must be a positive number of nats; got {self.limit!r}")
        require_member("KLBudget", "unit", self.unit, Unit)
        if self.unit == "unknown":
            raise InvalidBudget("KLBudget.unit must be nats_per_token or nats_per_sequence: a limit without a unit limits nothing")
        require_member("KLBudget", "scope", self.scope, Scope)
        require_member("KLBudget", "on", self.on, BreachOn)
        require_member("KLBudget", "action", self.action, Action)
        if (self.scope == "window") != (self.window_steps is not None):
            raise InvalidBudget(
                f"KLBudget.window_steps goes with scope 'window' and only with it; got scope={self.scope!r}, window_steps={self.window_steps!r}"
            )
        if self.window_steps is not None and not (isinstance(self.window_steps, int) and self.window_steps >= 1):
            raise InvalidBudget(f"KLBudget.window_steps must be a whole number, 1 or more; got {self.window_steps!r}")
        require_aware("KLBudget", "created_at", self.created_at)

    @property
    def label(self) -> str:
        """For people: `2 nats/sequence, per step`."""
        scope = f"EWMA over {self.window_steps} steps" if self.scope == "window" else self.scope.replace("_", " ")
        return f"{self.limit:g} {UNIT_LABELS[self.unit]}, {scope}"

    def covers(self, run_id: str, run_name: str) -> bool:
        """Whether this budget is for that run."""
        if self.run_id is not None:
            return self.run_id == run_id
        return self.match is None or fnmatch.fnmatchcase(run_name, self.match)
