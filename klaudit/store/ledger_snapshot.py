"""One state of a store: its ledger, and the rows that the ledger tells of."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, func, select

from klaudit.ledger import StoredRow, hash_step
from klaudit.ledger.bodies import (
    describe_budget,
    describe_checkpoint,
    describe_run,
    describe_segment,
    describe_series,
    digest_measurement,
    digest_profile,
)
from klaudit.ledger.expectation import RowKey
from klaudit.records import Checkpoint
from klaudit.records.ledger import LedgerEntry
from klaudit.store.budgets import from_budget_row
from klaudit.store.drift import from_drift_row, from_profile_row
from klaudit.store.engine import Database
from klaudit.store.ledger import read_entries
from klaudit.store.runs import from_run_row, from_segment_row
from klaudit.store.series import from_series_columns
from klaudit.store.shards import combine_digests, digest_contents
from klaudit.store.spoiled import UNREADABLE, decode_as_it_lies, select_as_it_lies
from klaudit.store.steps import from_step_row
from klaudit.store.tables import (
    checkpoint_distances,
    checkpoints,
    drift_measurements,
    drift_profiles,
    kl_budgets,
    kl_series,
    ledger_entries,
    runs,
    segments,
    steps,
    text_samples,
)

ENTRIES_AT_A_TIME = 1_000

STEPS_AHEAD = 256
"""Steps of a run that are read at once, for this entry and those to come."""

RUNS_AT_HAND = 512
"""Runs whose steps are kept, because runs that are trained side by side take turns in the ledger."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that makes no record."""

    reason: str


Leaf = bytes | Unreadable | None
"""Hash of a step; None where there is no such step."""


@dataclass(frozen=True, slots=True)
class _Ahead:
    """Consecutive steps of one segment."""

    segment: int
    first_step: int
    last_step: float
    """Infinite: there are no steps behind."""
    leaves: Mapping[int, Leaf]

    def holds(self, segment: int, step: int) -> bool:
        """Whether it is known what this step is, or that there is none."""
        return self.segment == segment and self.first_step <= step <= self.last_step


class LedgerSnapshot:
    """Reads one state of a store.

    Args:
        connection: in a transaction that sees one state.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ahead: dict[str, _Ahead] = {}

    def entries(self) -> Iterator[LedgerEntry]:
        """Every entry in order, a few at a time."""
        after = 0
        while page := read_entries(self._connection, after_seq=after, limit=ENTRIES_AT_A_TIME):
            yield from page
            after = page[-1].seq

    def last_seq(self) -> int:
        """Number of the last entry; 0 for an empty ledger."""
        return self._connection.scalar(select(func.max(ledger_entries.c.seq))) or 0

    def last_deletions(self) -> dict[str, int]:
        """The last entry that tells of a run's deletion, by run id."""
        query = select(ledger_entries.c.run_id, func.max(ledger_entries.c.seq).label("last")).where(ledger_entries.c.kind == "run_deleted")
        return {row.run_id: row.last for row in self._connection.execute(query.group_by(ledger_entries.c.run_id))}

    def run_ids(self) -> frozenset[str]:
        """Runs that are there."""
        return frozenset(self._connection.scalars(select(runs.c.id)))

    def rows(self) -> Iterator[StoredRow]:
        """Every row, but steps, that the ledger tells of."""
        yield from self._read(runs, lambda _: ("run",), lambda row: describe_run(from_run_row(row, {})), run_id="id")
        yield from self._read(kl_series, lambda row: ("series", row["key"]), lambda row: describe_series(from_series_columns(row)))
        yield from self._read(segments, lambda row: ("segment", row["segment"]), lambda row: describe_segment(from_segment_row(row)))
        yield from self._read(checkpoints, _find_checkpoint, lambda row: describe_checkpoint(Checkpoint(**row)))
        yield from self._read(
            kl_budgets, lambda row: ("budget", row["id"]), lambda row: describe_budget(from_budget_row(row), removed_at=row["removed_at"])
        )
        for kind, table in (("drift", drift_measurements), ("distance", checkpoint_distances)):
            for row in self._read(table, lambda row: (row["id"],), _describe_measurement):
                yield StoredRow(row.run_id, (kind, row.body.get("digest", "")), {}, int(row.key[0]), row.unreadable)
        contents = digest_contents(self._connection)
        for row in self._read(drift_profiles, lambda row: (row["id"],), lambda row: _describe_profile(row, contents)):
            body = {name: value for name, value in row.body.items() if name != "digest"}
            yield StoredRow(row.run_id, ("profile", row.body.get("digest", "")), body, int(row.key[0]), row.unreadable)

    def leaf(self, run_id: str, segment: int, step: int) -> Leaf:
        """Hash of one step; those behind it are read with it."""
        ahead = self._ahead.get(run_id)
        if ahead is None or not ahead.holds(segment, step):
            self._ahead.pop(run_id, None)
            if len(self._ahead) >= RUNS_AT_HAND:
                del self._ahead[next(iter(self._ahead))]
            ahead = self._ahead[run_id] = self._read_ahead(run_id, segment, step)
        return ahead.leaves.get(step)

    def count_steps(self) -> dict[tuple[str, int], int]:
        """Steps of each run and segment."""
        return self._count(steps)

    def count_samples(self) -> dict[tuple[str, int], int]:
        """Text samples of each run and segment."""
        return self._count(text_samples)

    def step_numbers(self, run_id: str, segment: int) -> Iterator[int]:
        """Steps of a segment, rising."""
        query = select(steps.c.step).where(steps.c.run_id == run_id, steps.c.segment == segment).order_by(steps.c.step)
        yield from self._connection.scalars(query, execution_options={"yield_per": ENTRIES_AT_A_TIME})

    def _count(self, table: Table) -> dict[tuple[str, int], int]:
        query = select(table.c.run_id, table.c.segment, func.count()).group_by(table.c.run_id, table.c.segment)
        return {(run_id, segment): count for run_id, segment, count in self._connection.execute(query)}

    def _read_ahead(self, run_id: str, segment: int, step: int) -> _Ahead:
        where = (steps.c.run_id == run_id, steps.c.segment == segment, steps.c.step >= step)
        query = select_as_it_lies(steps).where(*where).order_by(steps.c.step).limit(STEPS_AHEAD)
        rows = self._connection.execute(query).mappings()
        # SQLite takes a text for a number and sorts it last.
        leaves = {row["step"]: _hash_row(run_id, row) for row in rows if isinstance(row["step"], int)}
        return _Ahead(segment, step, max(leaves) if len(leaves) == STEPS_AHEAD else float("inf"), leaves)

    def _read(
        self,
        table: Table,
        find_key: Callable[[RowMapping], RowKey],
        describe: Callable[[Any], Mapping[str, Any]],
        *,
        run_id: str = "run_id",
    ) -> Iterator[StoredRow]:
        query = select_as_it_lies(table).order_by(*table.primary_key.columns)
        for row in self._connection.execute(query).mappings():
            try:
                yield StoredRow(row[run_id], find_key(row), describe(decode_as_it_lies(table, row)))
            except UNREADABLE as exc:
                yield StoredRow(row[run_id], find_key(row), {}, unreadable=str(exc))


@contextmanager
def take_snapshot(database: Database) -> Iterator[LedgerSnapshot]:
    """One state of a store, whatever is written to it meanwhile."""
    with database.reading() as connection:
        if not database.is_sqlite and not connection.in_transaction():
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield LedgerSnapshot(connection)


def _find_checkpoint(row: RowMapping) -> RowKey:
    return ("checkpoint", row["segment"], row["step"], row["path"])


def _describe_measurement(row: Any) -> dict[str, Any]:
    return {"digest": digest_measurement(from_drift_row(row))}


def _describe_profile(row: Any, contents: Mapping[str, str]) -> dict[str, Any]:
    profile = from_profile_row(row)
    return {"digest": digest_profile(profile), "completions": combine_digests(profile.shards, contents)}


def _hash_row(run_id: str, row: RowMapping) -> Leaf:
    try:
        return hash_step(run_id, from_step_row(tuple(row.values()), {}))
    except UNREADABLE as exc:
        return Unreadable(str(exc))
