"""What each KL of a run is."""

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, delete, insert, select

from klaudit.errors import InvalidRecord
from klaudit.ledger.bodies import describe_series
from klaudit.records import PRIMARY, KLReading, KLSeries, StepRecord
from klaudit.records.ledger import LedgerDraft
from klaudit.store.ledger import LedgerRepository
from klaudit.store.tables import kl_series

SERIES_FIELDS = ("kind", "estimator", "unit", "aggregation", "direction", "temperature", "source_key")


# Sorted here and not by the database, whose order of letters is its own affair.
_READ = select(kl_series).where(kl_series.c.run_id == bindparam("id"))


def to_series_columns(series: KLSeries) -> dict[str, Any]:
    """The columns `klaudit.store.tables.series_columns` of a series."""
    return {name: getattr(series, name) for name in SERIES_FIELDS}


def from_series_columns(row: RowMapping) -> KLSeries:
    """The series that `row` holds."""
    return KLSeries(**{name: row[name] for name in SERIES_FIELDS})


def read_series(connection: Connection, run_id: str) -> dict[str, KLSeries]:
    """Series of one run by key."""
    rows = connection.execute(_READ, {"id": run_id}).mappings()
    return {row["key"]: from_series_columns(row) for row in sorted(rows, key=itemgetter("key"))}


def read_all_series(connection: Connection) -> dict[str, dict[str, KLSeries]]:
    """Series of every run by run id, then by key."""
    found: dict[str, dict[str, KLSeries]] = {}
    for row in sorted(connection.execute(select(kl_series)).mappings(), key=itemgetter("key")):
        found.setdefault(row["run_id"], {})[row["key"]] = from_series_columns(row)
    return found


def declare_series(connection: Connection, run_id: str, series: Mapping[str, KLSeries], ledger: LedgerRepository) -> None:
    """Write the series of some keys, those that were there replaced."""
    if not series:
        return
    connection.execute(delete(kl_series).where(kl_series.c.run_id == run_id, kl_series.c.key.in_(series)))
    connection.execute(insert(kl_series), [{"run_id": run_id, "key": key, **to_series_columns(one)} for key, one in series.items()])
    body = {"series": {key: describe_series(one) for key, one in series.items()}}
    ledger.append(connection, [LedgerDraft("series_declared", body, run_id)])


def find_undeclared(declared: Mapping[str, KLSeries], records: Iterable[StepRecord]) -> dict[str, KLSeries]:
    """Series of some steps' measured readings that the run has not declared.

    Raises:
        InvalidRecord: a reading whose series is not the one that the run declared under its key.
    """
    undeclared: dict[str, KLSeries] = {}
    for record in records:
        for key, reading in ((PRIMARY, record.kl), *record.readings.items()):
            own = declared.get(key) or undeclared.get(key)
            if reading.value is None or reading.series is own:
                continue
            if own is None:
                undeclared[key] = reading.series
            elif reading.series != own:
                raise InvalidRecord(_describe_mismatch(record, key, reading, own))
    return undeclared


def _describe_mismatch(record: StepRecord, key: str, reading: KLReading, declared: KLSeries) -> str:
    return (
        f"step {record.step}: expected the reading {key!r} to belong to the run's {declared}; it belongs to {reading.series}. "
        "Log it under another key, or declare the series again"
    )
