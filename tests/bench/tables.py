"""Figures of a benchmark, for a terminal or for docs/performance.md."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figures:
    """A table of text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def print_table(figures: Figures, *, as_markdown: bool) -> None:
    """On standard output."""
    if as_markdown:
        lines = [f"**{figures.title}**", "", "| " + " | ".join(figures.columns) + " |", "|---" + "|---:" * (len(figures.columns) - 1) + "|"]
        print("\n".join([*lines, *("| " + " | ".join(row) + " |" for row in figures.rows), ""]))
        return
    table = Table(title=figures.title)
    for number, column in enumerate(figures.columns):
        table.add_column(column, justify="right" if number else "left")
    for row in figures.rows:
        table.add_row(*row)
    Console().print(table)
