"""CSV of any loop: a row a step, whatever its columns are called."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from klaudit.exchange.interpretation import interpret
from klaudit.exchange.lines import read_lines
from klaudit.exchange.places import STEP_NAMES, Places, drop_missing, find_places
from klaudit.exchange.reader import FileHead, ImportedRun, LoggedValues, ReadOptions, refuse, shorten

DELIMITERS = ",;\t"


class CSVColumns:
    """Reads tables with a line of column names."""

    name = "csv"
    describes = "CSV with a line of column names, separated by comma, semicolon or tab"

    def recognises(self, head: FileHead) -> bool:
        """By a first line with a delimiter and a column of steps; by its name where the column must be named."""
        if b"\0" in head.start:
            return False
        names = split_names(head.text.lstrip().partition("\n")[0])
        is_named = head.path.name.removesuffix(".gz").endswith((".csv", ".tsv"))
        return len(names) > 1 and (is_named or any(name in names for name in STEP_NAMES))

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The run of the table."""
        yield interpret(_read_logged(path, options), path=path, options=options)


def split_names(line: str) -> list[str]:
    """The column names of a first line."""
    try:
        return [name.strip() for name in next(csv.reader([line.rstrip("\r")], delimiter=find_delimiter(line)), [])]
    except csv.Error:
        return []


def find_delimiter(line: str) -> str:
    """The delimiter that a line of column names has most of."""
    return max(DELIMITERS, key=line.count)


def _read_logged(path: Path, options: ReadOptions) -> Iterator[LoggedValues]:
    places: Places | None = None
    for where, row in read_rows(path, options):
        if places is None:
            places = find_places(row, options, where)
        # A step of 17 digits would lose its last ones as a float.
        values = {name: cell if name in (places.step, places.segment) else read_cell(cell) for name, cell in row.items()}
        yield places.take(drop_missing(values), where)


def read_rows(path: Path, options: ReadOptions) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each row stands, and its cells by column.

    Raises:
        InvalidImportFile: two columns of one name, a row with more cells than there are columns, or with fewer.
    """
    number = 0
    lines = read_lines(path, on_progress=options.on_progress, keeps_ends=True)
    first = next((line for line in lines if line.text.strip()), None)
    if first is None:
        raise refuse(path, "expected a line of column names; the file is empty")
    names = split_names(first.text.rstrip("\r\n"))
    _require_names(names, f"{path} line {first.number}")

    def feed() -> Iterator[str]:
        nonlocal number
        for line in lines:
            number = line.number
            yield line.text

    try:
        for cells in csv.reader(feed(), delimiter=find_delimiter(first.text), strict=True):
            if not cells:
                continue
            if len(cells) != len(names):
                raise refuse(f"{path} line {number}", f"expected {len(names)} cells, one a column; got {len(cells)}")
            yield f"{path} line {number}", dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise refuse(f"{path} line {number}", f"expected CSV; {error}") from error


def read_cell(cell: str) -> float | str:
    """A cell's number; the cell itself where it holds none."""
    try:
        return float(cell)
    except ValueError:
        return cell


def _require_names(names: Sequence[str], where: str) -> None:
    twice = {name for name in names if names.count(name) > 1}
    if twice or not names:
        what = f"twice {shorten(', '.join(map(repr, sorted(twice))))}" if twice else "none"
        raise refuse(where, f"expected column names, each once; got {what}")
