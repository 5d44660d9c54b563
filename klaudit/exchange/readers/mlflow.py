"""MLflow's SQLite store, such as `mlflow.db`."""

import math
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from klaudit.exchange.interpretation import RunFacts, interpret
from klaudit.exchange.reader import FileHead, ImportedRun, ReadOptions, is_wanted, refuse, shorten
from klaudit.exchange.scattered_values import ScatteredValues
from klaudit.exchange.sqlite_file import Columns, RowCount, has_columns, open_to_read, require_columns
from klaudit.records.run import RunStatus

TABLES: Columns = {
    "runs": frozenset({"run_uuid", "name", "status", "start_time", "lifecycle_stage"}),
    "metrics": frozenset({"run_uuid", "key", "value", "timestamp", "step", "is_nan"}),
    "params": frozenset({"run_uuid", "key", "value"}),
}
ACTIVE_RUNS = """
SELECT CAST(run_uuid AS TEXT), CAST(name AS TEXT), status, start_time FROM runs
WHERE lifecycle_stage = 'active' AND run_uuid IS NOT NULL ORDER BY start_time, run_uuid
"""
STATUSES: dict[str, RunStatus] = {"FAILED": "failed", "KILLED": "failed", "RUNNING": "running", "SCHEDULED": "running"}
LITERALS = {"True": True, "False": False, "None": None}
LONGEST_NUMBER = 40


class MLflow:
    """Reads the database that MLflow's tracking server or client writes (mlflow 3.17.2 store/tracking/dbmodels/models.py)."""

    name = "mlflow"
    describes = "SQLite database of MLflow, such as mlflow.db"

    def recognises(self, head: FileHead) -> bool:
        """By its tables."""
        return has_columns(head, TABLES)

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The runs of the file that are not deleted, the oldest first."""
        with open_to_read(path) as connection:
            require_columns(connection, TABLES, path=path, tool="MLflow")
            count = RowCount(path, connection, "metrics", options)
            for run_id, name, status, started_at in connection.execute(ACTIVE_RUNS).fetchall():
                logged = ScatteredValues(f"{path} run {shorten(name or run_id)!r}")
                if is_wanted(options, run_id, name):
                    _gather(connection, run_id, logged, path=path, count=count)
                if logged.is_empty:
                    continue
                began = _to_seconds(started_at)
                facts = RunFacts(
                    name=name or run_id,
                    began_at=None if began is None else datetime.fromtimestamp(began, UTC),
                    config=_read_params(connection, run_id),
                    part=run_id,
                )
                imported = interpret(logged.read(), path=path, options=options, facts=facts, notes=logged.notes)
                yield replace(imported, run=replace(imported.run, status=STATUSES.get(status, "finished")))


def _gather(connection: sqlite3.Connection, run_id: str, logged: ScatteredValues, *, path: Path, count: RowCount) -> None:
    # Rows are numbered as they were logged; times have only milliseconds.
    query = "SELECT rowid, key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? ORDER BY rowid"
    for row, key, value, milliseconds, step, is_nan in connection.execute(query, (run_id,)):
        where = f"{path} table 'metrics', row {row}"
        logged.add(step, _require_text(key, where), _read_number(value, is_nan, where), at=_to_seconds(milliseconds), where=where)
        count.add_row()


def _read_number(value: Any, is_nan: Any, where: str) -> float:
    if is_nan:
        return math.nan
    if not isinstance(value, (int, float)):
        raise refuse(where, f"expected a number; got {shorten(repr(value))}", field="value")
    # MLflow keeps an infinity as the largest float (mlflow 3.17.2 store/tracking/sqlalchemy_store.py line 1382).
    return math.copysign(math.inf, value) if abs(value) == sys.float_info.max else float(value)


def _require_text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise refuse(where, f"expected a name; got {shorten(repr(value))}", field="key")
    return value


def _to_seconds(milliseconds: Any) -> float | None:
    return milliseconds / 1000 if isinstance(milliseconds, int) and 0 < milliseconds < 4e12 else None


def _read_params(connection: sqlite3.Connection, run_id: str) -> dict[str, Any]:
    """The run's parameters; MLflow keeps each as text, and what was a number is one again."""
    rows = connection.execute("SELECT key, value FROM params WHERE run_uuid = ? ORDER BY key", (run_id,))
    return {str(key): _read_literal(value) for key, value in rows}


def _read_literal(text: Any) -> Any:
    if not isinstance(text, str) or len(text) > LONGEST_NUMBER:
        return text if isinstance(text, (str, int, float)) else None
    if text in LITERALS:
        return LITERALS[text]
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
