"""Runs of the store as files of other formats."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from klaudit.errors import StoreError
from klaudit.exchange.whole_file import write_whole_bytes
from klaudit.exchange.writers import WRITERS
from klaudit.records import StepRecord
from klaudit.store import Store

STEPS_A_PAGE = 2_000

Progress = Callable[[int, int], None]
"""Given steps done and steps in all, where a table's steps count twice: they are gone over twice."""


def export_run(store: Store, name: str, file: BinaryIO, *, format_name: str, on_progress: Progress = lambda done, total: None) -> int:
    """Write a run as it stands now to a file; returns how many steps it has.

    Args:
        store: that holds the run.
        name: its id or name.
        file: to write to.
        format_name: of `klaudit.exchange.writers.WRITERS`.
        on_progress: called once a page of steps.

    Raises:
        RunNotFound: no run has that id or name.
        MissingExtra: the format needs an optional part of klaudit.
    """
    writer = WRITERS[format_name]
    run_id = store.runs.get(name).id
    # In this order: a step that a live trainer adds behind the last one may belong to a series that the header does not know.
    last = store.steps.last(run_id)
    run = store.runs.get(run_id)
    n_steps = store.steps.count(run_id)
    end = (-1, -1) if last is None else (last.segment, last.step)
    writer.write(file, run, _StoredSteps(store, run_id, end, n_steps * writer.n_passes, on_progress))
    return n_steps


def save_export(store: Store, name: str, path: Path, *, format_name: str, on_progress: Progress = lambda done, total: None) -> int:
    """Write a run's file; it appears whole or not at all. Returns how many steps it has.

    Raises:
        RunNotFound: no run has that id or name.
        MissingExtra: the format needs an optional part of klaudit.
        StoreError: the place cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole_bytes(path) as file:
            return export_run(store, name, file, format_name=format_name, on_progress=on_progress)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


@dataclass(slots=True)
class _StoredSteps:
    """The steps of a run up to one of them, read page by page, as often as they are asked for."""

    store: Store
    run_id: str
    end: tuple[int, int]
    """Segment and step of the last one."""
    n_in_all: int
    on_progress: Progress
    n_done: int = 0

    def __iter__(self) -> Iterator[StepRecord]:
        after: tuple[int, int] | None = None
        while page := self.store.steps.list(self.run_id, after=after, limit=STEPS_A_PAGE):
            for record in page:
                after = (record.segment, record.step)
                if after > self.end:
                    return
                yield record
            self.n_done += len(page)
            self.on_progress(min(self.n_done, self.n_in_all), self.n_in_all)
