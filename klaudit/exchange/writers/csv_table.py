"""CSV: the header of `klaudit-steps/1` in the one cell of the first row, then the names of the columns, then a row a step.

`pandas.read_csv(path, skiprows=1)` reads it, and so does a spreadsheet.
"""

import csv
import io
from collections.abc import Iterable
from typing import BinaryIO

from klaudit.exchange.step_table import find_columns, require_columns, to_row
from klaudit.exchange.steps_file import describe_run, encode_line
from klaudit.records import Run, StepRecord

HEADER_MARK = "# "
"""Before the header, so that tools that know comments skip it."""
APOSTROPHE = "'"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet may run a cell for that begins with it (owasp.org/www-community/attacks/CSV_Injection)."""


def write_csv(file: BinaryIO, run: Run, steps: Iterable[StepRecord]) -> None:
    """Write a table; the steps are gone over twice."""
    columns = find_columns(run, steps)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text, lineterminator="\n")
        # In one cell, quoted whole: were it cut at its commas, what stands in a run's name could begin a cell.
        text.write(f'"{HEADER_MARK}{encode_line(describe_run(run)).replace(chr(34), chr(34) * 2)}"\n')
        # Quoted all: a carriage return in a name would end the line otherwise.
        csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(map(neutralise, columns))
        for record in steps:
            row = to_row(record, run=run)
            require_columns(row, columns)
            writer.writerow([row.get(name) for name in columns])
    finally:
        text.detach()


def neutralise(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe before what could be one, and before what has one already."""
    return APOSTROPHE + text if text.startswith((*FORMULA_STARTS, APOSTROPHE)) else text


def restore(text: str) -> str:
    """The text that was neutralised."""
    return text.removeprefix(APOSTROPHE)
