"""TensorBoard's event files: one, or a log directory in which every directory with event files is a run."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

from klaudit.exchange.event_file import FIRST_EVENT, read_events
from klaudit.exchange.interpretation import RunFacts, interpret
from klaudit.exchange.reader import FileHead, ImportedRun, ReadOptions, is_wanted, refuse
from klaudit.exchange.scattered_values import ScatteredValues

FILE_MARK = ".tfevents."
"""In the name of every event file: TensorBoard finds them by it."""
FIRST_RECORD = 64
"""Bytes at a file's start within which its version stands."""


class TensorBoard:
    """Reads what any `SummaryWriter` writes; numbers only, not histograms, images or texts."""

    name = "tensorboard"
    describes = "TensorBoard event file, or a directory of runs with event files"

    def recognises(self, head: FileHead) -> bool:
        """By the version in the first record; a directory by its files' names."""
        if head.is_directory:
            return any(FILE_MARK in name for name in head.names)
        return FIRST_EVENT in head.start[:FIRST_RECORD]

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The runs of the directory, by name."""
        files = sorted((one for one in path.rglob(f"*{FILE_MARK}*") if one.is_file()), key=_find_place) if path.is_dir() else [path]
        if not files:
            raise refuse(path, f"expected event files, which have {FILE_MARK!r} in their names; there are none")
        sizes = {file: file.stat().st_size for file in files}
        n_before = 0
        for directory, of_run in groupby(files, key=lambda file: file.parent):
            run_files = list(of_run)
            part = str(directory.relative_to(path)) if path.is_dir() else ""
            name = _name_run(path, directory)
            if is_wanted(options, part, name):
                imported = _read_run(run_files, name, part, options, n_before=n_before, n_bytes=sum(sizes.values()))
                if imported is not None:
                    yield imported
            n_before += sum(sizes[file] for file in run_files)


def _find_place(file: Path) -> tuple[Path, str]:
    """The run, and within it the time that a file's name begins with."""
    return file.parent, file.name


def _name_run(path: Path, directory: Path) -> str:
    root = path.resolve() if path.is_dir() else directory.resolve()
    return "/".join((root.name or "tensorboard", *directory.relative_to(path).parts)) if path.is_dir() else root.name or "tensorboard"


def _read_run(files: list[Path], name: str, part: str, options: ReadOptions, *, n_before: int, n_bytes: int) -> ImportedRun | None:
    """A run from its files, the oldest first; None where they hold no number."""
    logged = ScatteredValues(str(files[0].parent))
    cut: list[Path] = []
    for file in files:
        report = partial(_report, options, n_before, n_bytes)
        for event in read_events(file, on_progress=report, on_cut=cut.append):
            if event.starts_session and event.step <= logged.last_step:
                logged.begin_segment()
            for tag, value in event.scalars:
                logged.add(event.step, tag, value, at=event.wall_time, where=event.where)
        n_before += file.stat().st_size
    if logged.is_empty:
        return None
    notes = [f"{file.name} ends inside a record, as a killed run leaves it; all that comes before is here" for file in cut]
    facts = RunFacts(name=name, part=part)
    return replace(interpret(logged.read(), path=files[0], options=options, facts=facts, notes=(*logged.notes, *notes)), files=tuple(files))


def _report(options: ReadOptions, n_before: int, n_bytes: int, n_done: int) -> None:
    options.on_progress(n_before + n_done, n_bytes)
