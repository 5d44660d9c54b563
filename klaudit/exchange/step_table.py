"""A run as a table, which CSV and Parquet hold: a header, then one row a step and one column a number.

A row is a line of `klaudit-steps/1` whose metrics have a column each. The names of the columns are those of the fields and of the
metrics; a metric whose name a field bears, or that begins with `metric:`, has `metric:` before it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from klaudit.errors import KlauditError
from klaudit.exchange.reader import ImportedRun, ReadOptions, refuse
from klaudit.exchange.steps_file import describe_step, encode_line, read_step
from klaudit.records import Run, StepRecord

FIELDS = ("step", "segment", "time", "kl", "kl_se", "beta", "score")
WHOLE_FIELDS = ("step", "segment")
READINGS = "readings"
"""What the other columns cannot say of the step's KLs, as JSON; a table in which no step needs it has no such column."""
METRIC_PREFIX = "metric:"


def find_columns(run: Run, steps: Iterable[StepRecord]) -> tuple[str, ...]:
    """The columns that some steps need: the fields, then the metrics in the order in which they first appear."""
    found: dict[str, None] = dict.fromkeys(FIELDS)
    for record in steps:
        found |= dict.fromkeys(to_row(record, run=run))
    return (*(name for name in found if name != READINGS), *(name for name in found if name == READINGS))


def to_row(record: StepRecord, *, run: Run) -> dict[str, Any]:
    """A step by column; a non-finite number is the string that JSON has for it."""
    row = describe_step(record, run=run)
    metrics, readings = row.pop("metrics", {}), row.pop(READINGS, None)
    row |= {_name_column(name): value for name, value in metrics.items()}
    return row if readings is None else row | {READINGS: encode_line(readings)}


def require_columns(row: Mapping[str, Any], columns: tuple[str, ...]) -> None:
    """Refuse a row with a number that has no column.

    Raises:
        KlauditError: the run changed between the two times that its steps were read.
    """
    if unknown := sorted(row.keys() - set(columns)):
        raise KlauditError(f"step {row['step']} came to hold {', '.join(unknown)} while the run was exported; export it again")


def from_row(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The line of `klaudit-steps/1` that a row stands for; a cell that is None is not there.

    Raises:
        InvalidImportFile: `readings` is no JSON.
    """
    line: dict[str, Any] = {name: value for name, value in row.items() if value is not None}
    if READINGS in line:
        line[READINGS] = _read_json(line[READINGS], where)
    metrics = {name.removeprefix(METRIC_PREFIX): line.pop(name) for name in list(line) if name not in FIELDS and name != READINGS}
    return {**line, "metrics": metrics}


def read_table(run: Run, rows: Iterable[tuple[str, Mapping[str, Any]]], options: ReadOptions) -> ImportedRun:
    """A run and the steps that rows stand for, to be read as the steps are asked for."""
    return ImportedRun(run=run if options.name is None else replace(run, name=options.name), steps=read_rows(rows, run=run))


def read_rows(rows: Iterable[tuple[str, Mapping[str, Any]]], *, run: Run) -> Iterator[StepRecord]:
    """The steps that rows stand for.

    Args:
        rows: where each stands, and its cells by column.
        run: that they are steps of.

    Raises:
        InvalidImportFile: a cell that cannot be read, or a step that does not follow the one before it.
    """
    before = (0, -1)
    for where, row in rows:
        record = read_step(from_row(row, where), where, run=run)
        if (record.segment, record.step) <= before:
            came = f"segment {record.segment}, step {record.step} comes after segment {before[0]}, step {before[1]}"
            raise refuse(where, f"expected each step once, in order of segment and step; {came}", field="step")
        before = (record.segment, record.step)
        yield record


def _name_column(metric: str) -> str:
    return METRIC_PREFIX + metric if metric in (*FIELDS, READINGS) or metric.startswith(METRIC_PREFIX) else metric


def _read_json(text: Any, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise refuse(where, f"expected a JSON object; {error}", field=READINGS) from error
