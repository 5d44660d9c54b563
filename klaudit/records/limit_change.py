"""What was done to the limits of a run: which were relaxed, when and by whom."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from klaudit.records.budget import Action, KLBudget
from klaudit.records.run import require_aware

Loosening = Literal["removed", "limit", "scope", "on", "action"]

SOON = timedelta(hours=1)
"""A budget that is set this long after another was removed still replaces it; in the time between, nothing was held to a limit."""
NEVER = datetime.max.replace(tzinfo=UTC)
ALWAYS = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class BudgetTerm:
    """A budget, and until when it was in force.

    Raises:
        InvalidRecord: a time without zone.
    """

    budget: KLBudget
    removed_at: datetime | None = None
    """None: it is in force."""
    removed_by: str | None = None
    """For people; None where it is not known."""

    def __post_init__(self) -> None:
        require_aware("BudgetTerm", "removed_at", self.removed_at)


@dataclass(frozen=True, slots=True)
class LimitChange:
    """A limit of a run was relaxed.

    Raises:
        InvalidRecord: a time without zone.
    """

    changed_at: datetime
    before: KLBudget
    after: KLBudget | None = None
    """What was put in its place; None: nothing."""
    what: tuple[Loosening, ...] = ("removed",)
    """In which respects."""
    by: str | None = None
    """Who did it, for people; None where it is not known."""

    def __post_init__(self) -> None:
        require_aware("LimitChange", "changed_at", self.changed_at)


def list_limit_changes(terms: Sequence[BudgetTerm]) -> list[LimitChange]:
    """The removals among the budgets of a run that left it with a looser limit or with none, in their order in time.

    What replaces a budget is another of the same unit that was in force after it and was set by an hour after its removal: the tightest of
    the same scope, else the first of another scope that was set from its removal on. One that is no looser in any respect makes the
    removal no finding.

    Args:
        terms: every budget that covers or covered the run.
    """
    changes = []
    for term in terms:
        if term.removed_at is None:
            continue
        after = _find_replacement(term, terms, removed_at=term.removed_at)
        what: tuple[Loosening, ...] = ("removed",) if after is None else list_loosenings(term.budget, after)
        if what:
            changes.append(LimitChange(term.removed_at, term.budget, after, what, term.removed_by))
    return sorted(changes, key=lambda change: (change.changed_at, change.before.id))


def list_loosenings(before: KLBudget, after: KLBudget) -> tuple[Loosening, ...]:
    """In which respects one budget is looser than another of the same unit."""
    actions: tuple[Action, ...] = get_args(Action)
    respects: Iterable[tuple[Loosening, bool]] = (
        ("limit", after.limit > before.limit),
        ("scope", _is_slower(before, after)),
        ("on", before.on == "value" and after.on == "bound"),
        ("action", actions.index(after.action) < actions.index(before.action)),
    )
    return tuple(name for name, is_looser in respects if is_looser)


def _find_replacement(term: BudgetTerm, terms: Iterable[BudgetTerm], *, removed_at: datetime) -> KLBudget | None:
    others = [
        one.budget
        for one in terms
        if one is not term
        and one.budget.unit == term.budget.unit
        and (one.removed_at or NEVER) > removed_at
        and (one.budget.created_at or ALWAYS) <= removed_at + SOON
    ]
    alike = [one for one in others if (one.scope, one.window_steps) == (term.budget.scope, term.budget.window_steps)]
    if alike:
        return min(alike, key=lambda one: (len(list_loosenings(term.budget, one)), one.limit))
    new = [one for one in others if (one.created_at or ALWAYS) >= removed_at]
    return min(new, key=lambda one: (one.created_at or ALWAYS, one.limit), default=None)


def _is_slower(before: KLBudget, after: KLBudget) -> bool:
    """Whether a scope lets through what the other stopped: any other scope, but for a shorter window and the single step in place of one."""
    if (before.scope, before.window_steps) == (after.scope, after.window_steps):
        return False
    if before.window_steps is None or after.scope not in ("per_step", "window"):
        return True
    return (after.window_steps or 1) > before.window_steps
