"""Runs in directories: into the store, and out of it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from klaudit.exchange.recorded_run import RecordedRun, read_recorded_run, write_recorded_run
from klaudit.records import Run
from klaudit.store import Store
from klaudit.workflows.loading import LoadedRun, load_run, recall_run


def load_recorded_run(store: Store, directory: Path) -> LoadedRun:
    """Put a recorded run into the store, audit it and keep its findings; loading it twice changes nothing.

    Raises:
        InvalidStepsFile: a file of the directory cannot be read.
        KlauditError: the store refuses a part of it. Either way nothing of the run is left there.
    """
    recorded = read_recorded_run(directory)
    for summary in store.runs.list():
        if summary.run.started_at == recorded.run.started_at and summary.run.config == recorded.run.config:
            return recall_run(summary)
    return load_run(
        store,
        recorded.run,
        sorted(recorded.steps, key=lambda step: (step.segment, step.step)),
        samples=recorded.samples,
        drift=recorded.drift,
        budgets=recorded.budgets,
    )


def save_recorded_run(store: Store, name: str, directory: Path, *, config: Mapping[str, Any] | None = None) -> None:
    """Write a run of the store into a directory.

    Args:
        store: that holds the run.
        name: its id or name.
        directory: to write into.
        config: recorded in place of the trainer's arguments.

    Raises:
        RunNotFound: no run has that id or name.
    """
    run = store.runs.get(name)
    recorded = RecordedRun(
        run=hide_folders(run if config is None else replace(run, config=config)),
        steps=store.steps.list(run.id),
        samples=store.samples.list(run.id),
        # Where the weights lay on the machine that measured them is nobody's business; the checkpoint's own name is.
        drift=tuple(replace(one, run_id=None, checkpoint=Path(one.checkpoint).name) for one in store.drift.list(run.id)),
        budgets=tuple(replace(budget, run_id=None, id="") for budget in store.budgets.for_run(run)),
    )
    write_recorded_run(directory, recorded)


def hide_folders(run: Run) -> Run:
    """The run with models and tokenizers named as they are, without the folders that they and the code lay in: those are nobody's business."""
    if run.identity is None:
        return run
    return replace(run, identity={key: _hide_folder(part) for key, part in run.identity.items()})


def _hide_folder(part: Any) -> Any:
    if not isinstance(part, Mapping):
        return part
    hidden = dict(part)
    if _is_folder(part.get("name")):
        hidden["name"] = Path(part["name"]).name
    if _is_folder(part.get("remote")):
        hidden["remote"] = None
    return hidden


def _is_folder(name: Any) -> bool:
    return isinstance(name, str) and (Path(name).is_absolute() or name.startswith("file:"))
