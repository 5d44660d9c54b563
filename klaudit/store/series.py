"""What each KL of a run is."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, select

from klaudit.errors import InvalidRecord
from klaudit.records import PRIMARY, KLReading, KLSeries, StepRecord
from klaudit.store.engine import Database
from klaudit.store.tables import kl_series

SERIES_FIELDS = ("kind", "estimator", "unit", "aggregation", "direction", "temperature", "source_key")


def to_series_columns(series: KLSeries) -> dict[str, Any]:
    """The columns `klaudit.store.tables.series_columns` of a series."""
    return {name: getattr(series, name) for name in SERIES_FIELDS}


def from_series_columns(row: RowMapping) -> KLSeries:
    """The series that `row` holds."""
    return KLSeries(**{name: row[name] for name in SERIES_FIELDS})


class SeriesRepository:
    """The declared series of every run, those of runs that were written to or read kept at hand."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, dict[str, KLSeries]] = {}

    def read(self, connection: Connection, run_id: str) -> dict[str, KLSeries]:
        """Series of one run by key."""
        rows = connection.execute(select(kl_series).where(kl_series.c.run_id == run_id).order_by(kl_series.c.key)).mappings()
        return {row["key"]: from_series_columns(row) for row in rows}

    def read_all(self, connection: Connection) -> dict[str, dict[str, KLSeries]]:
        """Series of every run by run id, then by key."""
        found: dict[str, dict[str, KLSeries]] = {}
        for row in connection.execute(select(kl_series).order_by(kl_series.c.run_id, kl_series.c.key)).mappings():
            found.setdefault(row["run_id"], {})[row["key"]] = from_series_columns(row)
        return found

    def declare(self, connection: Connection, run_id: str, series: Mapping[str, KLSeries]) -> None:
        """Write the series of some keys, those that were there replaced."""
        if not series:
            return
        connection.execute(delete(kl_series).where(kl_series.c.run_id == run_id, kl_series.c.key.in_(series)))
        connection.execute(insert(kl_series), [{"run_id": run_id, "key": key, **to_series_columns(one)} for key, one in series.items()])

    def find_undeclared(self, run_id: str, record: StepRecord) -> dict[str, KLSeries]:
        """Series of a step's measured readings that the run has not declared.

        Raises:
            InvalidRecord: a reading whose series is not the one that the run declared under its key.
        """
        known = self._known.get(run_id)
        if known is None:
            with self._database.reading() as connection:
                known = self._known[run_id] = self.read(connection, run_id)
        undeclared = {}
        for key, reading in ((PRIMARY, record.kl), *record.readings.items()):
            declared = known.get(key)
            if reading.value is None or reading.series is declared:
                continue
            if declared is None:
                undeclared[key] = reading.series
            elif reading.series != declared:
                raise InvalidRecord(_describe_mismatch(record, key, reading, declared))
        return undeclared

    def remember(self, run_id: str, series: Mapping[str, KLSeries]) -> None:
        """Keep at hand what was just committed."""
        self._known.setdefault(run_id, {}).update(series)

    def forget(self, run_id: str) -> None:
        """Read the run's series again when they are next wanted."""
        self._known.pop(run_id, None)


def _describe_mismatch(record: StepRecord, key: str, reading: KLReading, declared: KLSeries) -> str:
    return (
        f"step {record.step}: expected the reading {key!r} to belong to the run's {declared}; it belongs to {reading.series}. "
        "Log it under another key, or declare the series again"
    )
