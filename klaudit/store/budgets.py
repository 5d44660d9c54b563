"""KL budgets: set, never changed, removed by a mark."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping, insert, select, update

from klaudit.errors import InvalidRecord
from klaudit.ledger.bodies import describe_budget
from klaudit.records import BudgetTerm, KLBudget, Run
from klaudit.records.ledger import LedgerDraft
from klaudit.records.moment import format_moment
from klaudit.store.engine import Database
from klaudit.store.ledger import LedgerRepository, read_entries
from klaudit.store.presence import require_run
from klaudit.store.tables import kl_budgets

PLAIN_FIELDS = ("id", "run_id", "unit", "scope", "window_steps", "action", "owner", "reason", "created_at")
RENAMED_FIELDS = {"limit": "kl_limit", "match": "run_pattern", "on": "breach_on"}
"""Fields whose names are words of SQL, and their columns."""


class BudgetRepository:
    """KL budgets of one store."""

    def __init__(self, database: Database, ledger: LedgerRepository) -> None:
        self._database = database
        self._ledger = ledger

    def add(self, budget: KLBudget) -> KLBudget:
        """Put a budget in force; returns it with its id and the time, where it had none.

        Raises:
            RunNotFound: no run has its run id.
        """
        added = replace(budget, id=budget.id or uuid.uuid4().hex[:16], created_at=budget.created_at or datetime.now(UTC))

        def explain() -> InvalidRecord:
            return InvalidRecord(f"expected a new KL budget; there is or was one with id {added.id!r}. Leave the id to the store")

        with self._database.writing(explain) as connection:
            if added.run_id is not None:
                require_run(connection, added.run_id)
            connection.execute(insert(kl_budgets), _to_budget_row(added))
            self._ledger.append(connection, [LedgerDraft("budget_set", describe_budget(added), added.run_id)])
        return added

    def list(self) -> list[KLBudget]:
        """Budgets in force, the oldest first."""
        query = select(kl_budgets).where(kl_budgets.c.removed_at.is_(None)).order_by(kl_budgets.c.created_at, kl_budgets.c.id)
        with self._database.reading() as connection:
            return [from_budget_row(row) for row in connection.execute(query).mappings()]

    def for_run(self, run: Run) -> Sequence[KLBudget]:
        """Budgets in force that cover a run, the oldest first."""
        return [budget for budget in self.list() if budget.covers(run.id, run.name)]

    def history(self, run: Run) -> Sequence[BudgetTerm]:
        """Budgets that cover or covered a run, with the end of their time, the oldest first; who removed one is said by the ledger."""
        query = select(kl_budgets).order_by(kl_budgets.c.created_at, kl_budgets.c.id)
        with self._database.reading() as connection:
            every = [(from_budget_row(row), row["removed_at"]) for row in connection.execute(query).mappings()]
            covering = [(budget, removed_at) for budget, removed_at in every if budget.covers(run.id, run.name)]
            is_any_removed = any(removed_at is not None for _, removed_at in covering)
            removals = read_entries(connection, kind="budget_removed") if is_any_removed else []
        removed_by = {entry.body.get("budget"): entry.actor.label for entry in removals}
        return [BudgetTerm(budget, removed_at, removed_by.get(budget.id)) for budget, removed_at in covering]

    def remove(self, budget_id: str) -> None:
        """Take a budget out of force; its row stays, with the time.

        Raises:
            InvalidRecord: no budget in force has this id.
        """
        where = (kl_budgets.c.id == budget_id, kl_budgets.c.removed_at.is_(None))
        removed_at = datetime.now(UTC)
        with self._database.writing() as connection:
            if connection.execute(update(kl_budgets).where(*where).values(removed_at=removed_at)).rowcount == 0:
                raise InvalidRecord(f"expected the id of a KL budget in force; got {budget_id!r}. `klaudit budget list` shows them")
            run_id = connection.scalar(select(kl_budgets.c.run_id).where(kl_budgets.c.id == budget_id))
            body = {"budget": budget_id, "removed_at": format_moment(removed_at)}
            self._ledger.append(connection, [LedgerDraft("budget_removed", body, run_id)])


def _to_budget_row(budget: KLBudget) -> dict[str, Any]:
    row = {name: getattr(budget, name) for name in PLAIN_FIELDS}
    return row | {column: getattr(budget, field) for field, column in RENAMED_FIELDS.items()}


def from_budget_row(row: RowMapping) -> KLBudget:
    """The budget that a row of `kl_budgets` holds."""
    return KLBudget(
        **{name: row[name] for name in PLAIN_FIELDS},
        **{field: row[column] for field, column in RENAMED_FIELDS.items()},
    )
