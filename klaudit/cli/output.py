"""How commands print: tables and lines for people, one JSON object for programs."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from klaudit.records import Severity
from klaudit.records.non_finite import encode_json

PIPED_WIDTH = 200
"""Columns where no terminal says how many there are: lines are for grep, not for the eye."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
messages = Console(stderr=True, highlight=False)

SEVERITY_STYLES = {Severity.INFO: "cyan", Severity.WARNING: "yellow", Severity.CRITICAL: "bold red"}
SCHEMA_VERSION = 1


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output; non-finite numbers as strings."""
    sys.stdout.write(
        json.dumps({"schema_version": SCHEMA_VERSION, **encode_json(value)}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """A table on standard output, or a line that says why there is none. Columns that end in `>` are right-aligned."""
    if not rows:
        console.print(empty, markup=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.removesuffix(">"), justify="right" if column.endswith(">") else "left", overflow="fold", no_wrap=column == columns[0]
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
