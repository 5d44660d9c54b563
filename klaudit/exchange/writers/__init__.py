"""Every format that `klaudit export` writes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from klaudit.exchange.writers.csv_table import write_csv
from klaudit.exchange.writers.parquet_table import write_parquet
from klaudit.exchange.writers.steps_lines import write_steps_lines
from klaudit.records import Run, StepRecord


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes one format, and holds no more than some thousand steps in memory."""

    write: Callable[[BinaryIO, Run, Iterable[StepRecord]], None]
    """Given the file, the run and its steps, which can be gone over more than once."""
    n_passes: int
    """How often it goes over the steps: a table's columns are known only when every step was seen."""
    is_text: bool = True
    """Whether a terminal can show it."""


WRITERS: Mapping[str, Writer] = {
    "steps-jsonl": Writer(write_steps_lines, n_passes=1),
    "csv": Writer(write_csv, n_passes=2),
    "parquet": Writer(write_parquet, n_passes=2, is_text=False),
}
"""By the name for `--format`. Each can be imported again, and nothing is lost on the way."""
