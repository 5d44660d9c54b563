"""`klaudit-steps/1`, one line at a time."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from klaudit.errors import InvalidStepsFile
from klaudit.exchange.lines import Line, read_lines
from klaudit.exchange.reader import FileHead, ImportedRun, ReadOptions, shorten
from klaudit.exchange.steps_file import FORMAT, read_run, read_step
from klaudit.records import Run, StepRecord


class StepsJSONL:
    """Reads what `klaudit export --format steps-jsonl` writes."""

    name = "steps-jsonl"
    describes = f"{FORMAT}, klaudit's own"

    def recognises(self, head: FileHead) -> bool:
        """By the format that the first line names."""
        return f'"{FORMAT.partition("/")[0]}/' in head.text.lstrip().partition("\n")[0]

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The run of the file."""
        lines = read_lines(path, on_progress=options.on_progress)
        first = next(lines, None)
        if first is None:
            raise InvalidStepsFile(f"{path}: expected a {FORMAT} header on line 1; the file is empty")
        second = next(lines, None)
        began_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        header = _decode(path, first)
        run = read_run(header, _locate(path, first), began_at=began_at)
        if second is not None:
            # A run that does not say when it began, began with its first step.
            step = read_step(_decode(path, second), _locate(path, second), run=run)
            run = read_run(header, _locate(path, first), began_at=step.logged_at)
        if options.name is not None:
            run = replace(run, name=options.name)
        yield ImportedRun(run, _read_steps(path, [] if second is None else [second], lines, run))


def _read_steps(path: Path, peeked: list[Line], lines: Iterator[Line], run: Run) -> Iterator[StepRecord]:
    last: tuple[int, int] | None = None
    for source in (peeked, lines):
        for line in source:
            where = _locate(path, line)
            step = read_step(_decode(path, line), where, run=run)
            place = (step.segment, step.step)
            if last is not None and place <= last:
                came = f"segment {place[0]}, step {place[1]} comes after segment {last[0]}, step {last[1]}"
                raise InvalidStepsFile(f'{where}, field "step": expected steps that go up, each once; {came}')
            last = place
            yield step


def _locate(path: Path, line: Line) -> str:
    return f"{path} line {line.number}"


def _decode(path: Path, line: Line) -> dict[str, Any]:
    try:
        content = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        raise InvalidStepsFile(f"{_locate(path, line)}: expected one JSON object; {error}") from error
    if not isinstance(content, dict):
        raise InvalidStepsFile(f"{_locate(path, line)}: expected one JSON object; got {shorten(repr(content))}")
    return content
