"""The ledger of a store: entries are added in the transaction of the change that they tell of, and never changed."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, bindparam, func, insert, select, text

from klaudit.ledger import EMPTY_HEAD, seal
from klaudit.ledger.bodies import describe_batch
from klaudit.records import StepRecord
from klaudit.records.ledger import Actor, LedgerDraft, LedgerEntry, LedgerHead, LedgerKind, RunHead
from klaudit.store.engine import Database
from klaudit.store.floats import decode_json, encode_json
from klaudit.store.spoiled import UNREADABLE, decode_as_it_lies, select_as_it_lies
from klaudit.store.tables import drift_measurements, kl_budgets, ledger_entries, runs

APPEND_LOCK = 0x6B6C6175
"""Number of the lock under which PostgreSQL's writers append one after the other; SQLite has one writer anyway."""

_INSERT = insert(ledger_entries)
_LAST = select(ledger_entries.c.seq, ledger_entries.c.hash).order_by(ledger_entries.c.seq.desc()).limit(1)
_HEAD_COLUMNS = (ledger_entries.c.run_id, ledger_entries.c.run_seq, ledger_entries.c.seq, ledger_entries.c.hash)
_OF_RUN = ledger_entries.c.run_id == bindparam("run")
_RUN_HEAD = select(*_HEAD_COLUMNS).where(_OF_RUN).order_by(ledger_entries.c.run_seq.desc()).limit(1)


class LedgerRepository:
    """The ledger of one store.

    Args:
        database: that holds it.
        actor: who writes through this store; stands in every entry.
    """

    def __init__(self, database: Database, actor: Actor) -> None:
        self._database = database
        self.actor = actor

    def append(self, connection: Connection, drafts: Sequence[LedgerDraft]) -> None:
        """Add entries in the transaction of `connection`, so that they and the change are kept together or not at all.

        Best the last thing that a transaction does: on PostgreSQL no other writer can append until it ends.

        Raises:
            InvalidRecord: a body that JSON cannot hold.
        """
        if not drafts:
            return
        self.lock(connection)
        head = _read_last(connection)
        if head.seq == 0:
            opened = {draft.run_id for draft in drafts if draft.kind == "run_opened"}
            budgets = {draft.body["budget"] for draft in drafts if draft.kind == "budget_set"}
            drafts = [_describe_beginning(connection, opened=opened, budgets=budgets), *drafts]
        run_heads: dict[str, RunHead | None] = {}
        rows = []
        for draft in drafts:
            if draft.run_id is not None and draft.run_id not in run_heads:
                run_heads[draft.run_id] = _read_run_head(connection, draft.run_id)
            run_head = None if draft.run_id is None else run_heads[draft.run_id]
            settled = LedgerDraft(draft.kind, settle_json(draft.body), draft.run_id)
            entry = seal(settled, at=datetime.now(UTC), actor=self.actor, after=head, run_head=run_head)
            head = LedgerHead(entry.seq, entry.hash)
            if entry.run_id is not None and entry.run_seq is not None:
                run_heads[entry.run_id] = RunHead(entry.run_id, entry.run_seq, entry.seq, entry.hash)
            rows.append(_to_entry_row(entry))
        connection.execute(_INSERT, rows)

    def lock(self, connection: Connection) -> None:
        """Hold back every other writer that appends until the transaction of `connection` ends; whoever held it before has then been committed.

        SQLite has one writer anyway, from the beginning of the transaction on.
        """
        if not self._database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": APPEND_LOCK})

    def append_batch(
        self, connection: Connection, run_id: str, records: Sequence[StepRecord], *, leaves: Sequence[bytes], n_samples: int = 0
    ) -> None:
        """Add one entry for each segment of steps that the transaction of `connection` stores.

        Args:
            connection: of the transaction.
            run_id: of their run.
            records: all steps that it stores of that run, at least one, in order of segment and step.
            leaves: of each, by `hash_step`: computed before the transaction, which others wait for.
            n_samples: text samples that it stores with them.

        Raises:
            InvalidRecord: no steps.
        """
        drafts: list[LedgerDraft] = []
        for _, paired in groupby(zip(records, leaves, strict=True), key=lambda one: one[0].segment):
            batch, own = zip(*paired, strict=True)
            drafts.append(LedgerDraft("steps", describe_batch(batch, leaves=own, n_samples=0 if drafts else n_samples), run_id))
        self.append(connection, drafts)

    def note(self, kind: LedgerKind, body: dict[str, Any], *, run_id: str | None = None) -> None:
        """Add an entry about something that changes no table, such as where an import came from.

        Raises:
            InvalidRecord: a body that JSON cannot hold.
        """
        with self._database.writing() as connection:
            self.append(connection, [LedgerDraft(kind, body, run_id)])

    def list(
        self, *, run_id: str | None = None, kind: LedgerKind | None = None, after_seq: int = 0, limit: int | None = None
    ) -> list[LedgerEntry]:
        """Entries in order.

        Args:
            run_id: only those of this run.
            kind: only those of this one.
            after_seq: behind which to begin.
            limit: at most so many.
        """
        with self._database.reading() as connection:
            return read_entries(connection, run_id=run_id, kind=kind, after_seq=after_seq, limit=limit)

    def find_last(self, kind: LedgerKind, *, run_id: str) -> LedgerEntry | None:
        """The last entry of a kind about a run; None where there is none."""
        query = select_as_it_lies(ledger_entries).where(_OF_RUN, ledger_entries.c.kind == kind)
        with self._database.reading() as connection:
            last = query.order_by(ledger_entries.c.run_seq.desc()).limit(1)
            row = connection.execute(last, {"run": run_id}).mappings().first()
        return None if row is None else _from_entry_row(row)

    def head(self) -> LedgerHead:
        """The last entry of the store, and of each run."""
        with self._database.reading() as connection:
            last = connection.execute(_LAST.add_columns(ledger_entries.c.at)).mappings().first()
            if last is None:
                return EMPTY_HEAD
            count = connection.scalar(select(func.count()).select_from(ledger_entries)) or 0
            return LedgerHead(last["seq"], last["hash"], last["at"], count, _read_run_heads(connection))

    def heads_by_run(self) -> dict[str, RunHead]:
        """The last entry of each run by its id; runs that were deleted too."""
        with self._database.reading() as connection:
            return {one.run_id: one for one in _read_run_heads(connection)}


def read_entries(
    connection: Connection, *, run_id: str | None = None, kind: LedgerKind | None = None, after_seq: int = 0, limit: int | None = None
) -> list[LedgerEntry]:
    """Entries in order, as `LedgerRepository.list` gives them; of one kind only, where it is given."""
    query = select_as_it_lies(ledger_entries).where(ledger_entries.c.seq > after_seq).order_by(ledger_entries.c.seq).limit(limit)
    if run_id is not None:
        query = query.where(ledger_entries.c.run_id == run_id)
    if kind is not None:
        query = query.where(ledger_entries.c.kind == kind)
    return [_from_entry_row(row) for row in connection.execute(query).mappings()]


def settle_json(value: Any) -> Any:
    """A JSON-like value as it comes back from the store, so that what is hashed today is what is read tomorrow.

    Raises:
        InvalidRecord: something that JSON cannot hold.
    """
    return decode_json(encode_json(value))


def _describe_beginning(connection: Connection, *, opened: set[str | None], budgets: set[str]) -> LedgerDraft:
    """The first entry: what was in the store before it, so that nothing can pass for older later."""
    older = sorted(set(connection.scalars(select(runs.c.id))) - opened)
    older_budgets = sorted(set(connection.scalars(select(kl_budgets.c.id))) - budgets)
    last_drift = connection.scalar(select(func.max(drift_measurements.c.id))) or 0
    return LedgerDraft("ledger_began", {"runs": older, "budgets": older_budgets, "last_drift_measurement": last_drift})


def _read_last(connection: Connection) -> LedgerHead:
    row = connection.execute(_LAST).first()
    return EMPTY_HEAD if row is None else LedgerHead(row.seq, row.hash)


def _read_run_head(connection: Connection, run_id: str) -> RunHead | None:
    row = connection.execute(_RUN_HEAD, {"run": run_id}).first()
    return None if row is None else RunHead(*row)


def _read_run_heads(connection: Connection) -> tuple[RunHead, ...]:
    last = (
        select(ledger_entries.c.run_id, func.max(ledger_entries.c.run_seq).label("run_seq"))
        .where(ledger_entries.c.run_id.is_not(None))
        .group_by(ledger_entries.c.run_id)
        .subquery()
    )
    at_last = and_(ledger_entries.c.run_id == last.c.run_id, ledger_entries.c.run_seq == last.c.run_seq)
    query = select(*_HEAD_COLUMNS).join(last, at_last).order_by(ledger_entries.c.run_id)
    return tuple(RunHead(**row) for row in connection.execute(query).mappings())


def _from_entry_row(row: RowMapping) -> LedgerEntry:
    """The entry of a row; of one that was spoiled, an entry that its hash does not fit."""
    try:
        decoded = decode_as_it_lies(ledger_entries, row)
        return LedgerEntry(**{**decoded, "actor": Actor(**decoded["actor"]), "body": dict(decoded["body"])})
    except UNREADABLE:
        plain = {name: row[name] for name in ("run_id", "kind", "prev_hash", "run_prev_hash", "hash")}
        seq, run_seq = (one if isinstance(one, int) else 0 for one in (row["seq"], row["run_seq"]))
        spoiled = {"at": str(row["at"]), "actor": str(row["actor"]), "body": str(row["body"])}
        return LedgerEntry(seq=seq, run_seq=run_seq, at=datetime.min.replace(tzinfo=UTC), actor=Actor("", "", 0), body=spoiled, **plain)


def _to_entry_row(entry: LedgerEntry) -> dict[str, Any]:
    row = {column.name: getattr(entry, column.name) for column in ledger_entries.columns}
    return row | {"actor": asdict(entry.actor)}
