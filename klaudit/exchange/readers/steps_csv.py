"""What `klaudit export --format csv` wrote."""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from klaudit.exchange.lines import Line, read_lines
from klaudit.exchange.reader import FileHead, ImportedRun, ReadOptions, refuse
from klaudit.exchange.step_table import READINGS, WHOLE_FIELDS, read_table
from klaudit.exchange.steps_file import FORMAT, read_run
from klaudit.exchange.writers.csv_table import HEADER_MARK, restore

QUOTED_START = f'"{HEADER_MARK}{{""format"": ""{FORMAT}""'
DIGITS_OF_LARGEST_STEP = 19


class StepsCSV:
    """Reads what `klaudit export --format csv` writes."""

    name = "steps-csv"
    describes = "CSV that klaudit export wrote"

    def recognises(self, head: FileHead) -> bool:
        """Whether the first row is a header of `klaudit-steps/1`."""
        return head.text.startswith(QUOTED_START)

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The one run of the file.

        Raises:
            InvalidImportFile: a row that cannot be read.
        """
        lines = read_lines(path, on_progress=options.on_progress, keeps_ends=True)
        header = _read_header(next(lines, Line(1, "")), path)
        run = read_run(header, f"{path} line 1", began_at=datetime.fromtimestamp(path.stat().st_mtime, UTC))
        yield read_table(run, _read_rows(lines, path), options)


def _read_header(line: Line, path: Path) -> dict[str, Any]:
    # Not by csv, whose cells end at 128 KiB. A spreadsheet that saved the file put commas behind.
    text = line.text.rstrip(",\r\n")
    try:
        header = json.loads(text[1:-1].replace('""', '"').removeprefix(HEADER_MARK))
    except (ValueError, RecursionError) as error:
        raise refuse(f"{path} line 1", f"expected the header of {FORMAT} in one cell; {error}") from error
    if not isinstance(header, dict):
        raise refuse(f"{path} line 1", f"expected the header of {FORMAT} in one cell; got {header!r:.80}")
    return header


def _read_rows(lines: Iterator[Line], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = csv.reader(_require_ends(lines, path), strict=True)
    try:
        names = [restore(cell) for cell in next(rows, [])]
        if not {"step", "segment"} <= set(names) or len(set(names)) < len(names):
            raise refuse(f"{path} line 2", f"expected the names of the columns, each once; got {', '.join(names)!r:.80}")
        for cells in rows:
            where = f"{path} line {rows.line_num + 1}"
            if len(cells) != len(names):
                raise refuse(where, f"expected {len(names)} cells; got {len(cells)}")
            yield where, {name: _read_cell(name, cell) for name, cell in zip(names, cells, strict=True) if cell}
    except csv.Error as error:
        raise refuse(f"{path} line {rows.line_num + 1}", f"expected CSV; {error}") from error


def _require_ends(lines: Iterator[Line], path: Path) -> Iterator[str]:
    """Refuse a file that was cut off: half of a number looks like a number."""
    for line in lines:
        if not line.text.endswith("\n"):
            raise refuse(f"{path} line {line.number}", "expected the end of the line; the file was cut off inside it")
        yield line.text


def _read_cell(column: str, cell: str) -> Any:
    """The cell's number; where it holds none its text, for the error that names it."""
    if column in WHOLE_FIELDS:
        return int(cell) if cell.isascii() and cell.isdigit() and len(cell) <= DIGITS_OF_LARGEST_STEP else cell
    if column in (READINGS, "time"):
        return cell
    try:
        return float(cell)
    except ValueError:
        return cell
