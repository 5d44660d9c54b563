"""Parquet: a column a number, and the header of `klaudit-steps/1` in the file's metadata."""

import itertools
from collections.abc import Iterable
from datetime import datetime
from typing import Any, BinaryIO

from klaudit.errors import MissingExtra
from klaudit.exchange.step_table import READINGS, WHOLE_FIELDS, find_columns, require_columns, to_row
from klaudit.exchange.steps_file import FORMAT, describe_run, encode_line
from klaudit.records import Run, StepRecord
from klaudit.records.non_finite import NON_FINITE

ROWS_A_GROUP = 10_000
METADATA_KEY = FORMAT.encode()


def write_parquet(file: BinaryIO, run: Run, steps: Iterable[StepRecord]) -> None:
    """Write a table; the steps are gone over twice.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra("Parquet", "dashboard") from error
    columns = find_columns(run, steps)
    types = {
        **dict.fromkeys(columns, pyarrow.float64()),
        **dict.fromkeys(WHOLE_FIELDS, pyarrow.int64()),
        "time": pyarrow.timestamp("us", tz="UTC"),
        READINGS: pyarrow.string(),
    }
    schema = pyarrow.schema([(name, types[name]) for name in columns], metadata={METADATA_KEY: encode_line(describe_run(run)).encode()})
    with parquet.ParquetWriter(file, schema) as writer:
        for records in _batch(steps, ROWS_A_GROUP):
            rows = [to_row(record, run=run) for record in records]
            for row in rows:
                require_columns(row, columns)
            cells = [[_to_cell(name, row.get(name)) for row in rows] for name in columns]
            writer.write_table(pyarrow.table([pyarrow.array(one, types[name]) for name, one in zip(columns, cells, strict=True)], schema))


def _to_cell(column: str, value: Any) -> Any:
    if column == "time":
        return datetime.fromisoformat(value)
    return value if column == READINGS or not isinstance(value, str) else NON_FINITE[value]


def _batch(steps: Iterable[StepRecord], size: int) -> Iterable[list[StepRecord]]:
    remaining = iter(steps)
    return iter(lambda: list(itertools.islice(remaining, size)), [])
