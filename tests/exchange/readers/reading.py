from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klaudit.exchange.reader import NO_OPTIONS, ReadOptions
from klaudit.exchange.readers import find_reader
from klaudit.records import KLSeries, Run, StepRecord


@dataclass(frozen=True)
class ReadRun:
    """A run that was read to its end."""

    run: Run
    steps: Sequence[StepRecord]
    notes: Sequence[str]
    part: str
    files: Sequence[Path]
    format_name: str

    @property
    def kls(self) -> list[float | None]:
        return [step.kl.value for step in self.steps]

    @property
    def places(self) -> list[tuple[int, int]]:
        return [(step.segment, step.step) for step in self.steps]


def read_runs(path: Path, options: ReadOptions = NO_OPTIONS, format_name: str | None = None) -> list[ReadRun]:
    """All runs of a file, each read before the next."""
    reader = find_reader(path, format_name)
    return [
        ReadRun(one.run, steps, list(one.notes), one.part, one.files, reader.name)
        for one in reader.read(path, options)
        for steps in [tuple(one.steps)]
    ]


def read_one(path: Path, format_name: str | None = None, **said: Any) -> ReadRun:
    """The one run of a file."""
    (run,) = read_runs(path, ReadOptions(**said), format_name)
    return run


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def describe(series: Mapping[str, KLSeries]) -> dict[str, tuple[str, str, str]]:
    return {key: (one.kind, one.estimator, one.unit) for key, one in series.items()}
