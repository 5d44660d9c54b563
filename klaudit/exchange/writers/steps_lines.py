"""`klaudit-steps/1`: a header line, then one JSON line a step."""

from collections.abc import Iterable
from typing import BinaryIO

from klaudit.exchange.steps_file import format_lines
from klaudit.records import Run, StepRecord


def write_steps_lines(file: BinaryIO, run: Run, steps: Iterable[StepRecord]) -> None:
    """Write a header line and a line a step."""
    file.writelines(line.encode() for line in format_lines(run, steps))
