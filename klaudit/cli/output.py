"""How commands print: tables and lines for people, one JSON object for programs."""

import json
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from klaudit.records import Severity
from klaudit.records.non_finite import encode_json

PIPED_WIDTH = 200
"""Columns where no terminal says how many there are: lines are for grep, not for the eye."""

BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
"""Bidirectional classes of characters that turn around what follows."""


def escape_controls(text: str) -> str:
    """The text with what a terminal would obey instead of show, line ends too, as Python escapes it: names come from imported files."""
    return "".join(one.encode("unicode_escape").decode() if _is_control(one) else one for one in text)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or unicodedata.bidirectional(character) in BIDI_CONTROLS


class Printer(Console):
    """A console whose texts cannot command the terminal. Several lines are several texts, with `sep` a line feed."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print like rich does, control characters escaped."""
        super().print(*(escape_controls(one) if isinstance(one, str) else one for one in objects), **options)


console = Printer(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
messages = Printer(stderr=True, highlight=False)

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
        table.add_row(*(Text(escape_controls(cell)) for cell in row))
    console.print(table)
