"""trackio's SQLite database of a project."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from klaudit.exchange.interpretation import RunFacts, interpret
from klaudit.exchange.places import read_time
from klaudit.exchange.reader import FileHead, ImportedRun, ReadOptions, is_wanted, refuse, shorten
from klaudit.exchange.scattered_values import ScatteredValues
from klaudit.exchange.sqlite_file import Columns, RowCount, has_columns, open_to_read, require_columns

TABLES: Columns = {"metrics": frozenset({"id", "run_name", "timestamp", "step", "metrics"})}
TRAINER_STEP = "train/global_step"
"""What Hugging Face's trainers log beside trackio's own step, which counts calls of `log`."""
PRIVATE = "_"
"""Before what trackio adds to a configuration: the user's name, the time, the group."""


class Trackio:
    """Reads what trackio keeps of a project (trackio 0.43.0 sqlite_storage.py)."""

    name = "trackio"
    describes = "SQLite database of a trackio project"

    def recognises(self, head: FileHead) -> bool:
        """By its tables."""
        return has_columns(head, TABLES)

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The runs of the project, the oldest first."""
        with open_to_read(path) as connection:
            found = require_columns(connection, TABLES, path=path, tool="trackio")
            # Older versions tell runs by their names alone.
            run_column = "run_id" if "run_id" in found["metrics"] else "run_name"
            count = RowCount(path, connection, "metrics", options)
            query = (
                f"SELECT CAST({run_column} AS TEXT), CAST(min(run_name) AS TEXT) FROM metrics "
                f"WHERE {run_column} IS NOT NULL GROUP BY {run_column} ORDER BY min(id)"
            )
            for run_id, name in connection.execute(query).fetchall():
                logged = ScatteredValues(f"{path} run {shorten(name)!r}")
                if is_wanted(options, run_id, name):
                    rows = connection.execute(
                        f"SELECT id, step, timestamp, metrics FROM metrics WHERE {run_column} = ? ORDER BY id", (run_id,)
                    )
                    _gather(rows, logged, path=path, options=options, count=count)
                if logged.is_empty:
                    continue
                config = _read_config(connection, found, run_id, path)
                facts = RunFacts(name=name or run_id, config=config, part=run_id)
                yield interpret(logged.read(), path=path, options=options, facts=facts, notes=logged.notes)


def _gather(rows: sqlite3.Cursor, logged: ScatteredValues, *, path: Path, options: ReadOptions, count: RowCount) -> None:
    column = options.columns.get("step", TRAINER_STEP)
    trainer_step: Any = None
    for row, own_step, timestamp, text in rows:
        where = f"{path} table 'metrics', row {row}"
        values = _read_object(text, where, field="metrics")
        # What is logged without the trainer's step belongs to the last one.
        trainer_step = values.pop(column, trainer_step)
        moment = read_time(timestamp)
        for key, value in values.items():
            step = own_step if trainer_step is None else trainer_step
            logged.add(step, key, value, at=None if moment is None else moment.timestamp(), where=where)
        count.add_row()


def _read_config(connection: sqlite3.Connection, found: Columns, run_id: Any, path: Path) -> dict[str, Any]:
    columns = found.get("configs", frozenset())
    run_column = "run_id" if "run_id" in columns else "run_name"
    if not {run_column, "config"} <= columns:
        return {}
    row = connection.execute(f"SELECT config FROM configs WHERE {run_column} = ?", (run_id,)).fetchone()
    config = {} if row is None else _read_object(row[0], f"{path} table 'configs', run {shorten(run_id)!r}", field="config")
    return {key: value for key, value in config.items() if not key.startswith(PRIVATE)}


def _read_object(text: Any, where: str, *, field: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise refuse(where, f"expected a JSON object; {error}", field=field) from error
    if not isinstance(content, dict):
        raise refuse(where, f"expected a JSON object; got {shorten(repr(content))}", field=field)
    return content
