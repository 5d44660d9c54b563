"""Runs in directories: into the store, and out of it."""

import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from klaudit.exchange.recorded_run import RecordedRun, read_recorded_run, write_recorded_run
from klaudit.records import Checkpoint, Run, Segment, TextSample
from klaudit.store import Store
from klaudit.workflows.audits import audit_stored_run, keep_findings
from klaudit.workflows.recorder import find_free_name


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """What became of a recorded run in the store."""

    run: Run
    n_steps: int
    n_findings: int
    is_new: bool
    """False: the very same recording was there already, and nothing was written."""


def load_recorded_run(store: Store, directory: Path) -> LoadedRun:
    """Put a recorded run into the store, audit it and keep its findings; loading it twice changes nothing.

    Raises:
        InvalidStepsFile: a file of the directory cannot be read.
        KlauditError: the store refuses a part of it. Either way nothing of the run is left there.
    """
    recorded = read_recorded_run(directory)
    for summary in store.runs.list():
        if summary.run.started_at == recorded.run.started_at and summary.run.config == recorded.run.config:
            return LoadedRun(summary.run, summary.n_steps, len(store.findings.list(summary.run.id)), is_new=False)
    run = replace(
        recorded.run, id=uuid.uuid4().hex[:12], name=find_free_name(recorded.run.name, taken=store.runs.names_like(recorded.run.name))
    )
    store.runs.add(run)
    try:
        _write(store, run, recorded)
    except BaseException:
        store.runs.delete(run.id)
        raise
    audit = audit_stored_run(store, run.id)
    keep_findings(store, audit)
    return LoadedRun(run, len(recorded.steps), len(audit.findings), is_new=True)


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
        run=replace(run, config=config) if config is not None else run,
        steps=store.steps.list(run.id),
        samples=store.samples.list(run.id),
        # Where the weights lay on the machine that measured them is nobody's business; the checkpoint's own name is.
        drift=tuple(replace(one, run_id=None, checkpoint=Path(one.checkpoint).name) for one in store.drift.list(run.id)),
        budgets=tuple(replace(budget, run_id=None, id="") for budget in store.budgets.for_run(run)),
    )
    write_recorded_run(directory, recorded)


def _write(store: Store, run: Run, recorded: RecordedRun) -> None:
    checkpoints = {one.checkpoint: one for one in recorded.drift if one.step is not None}
    for index in sorted({step.segment for step in recorded.steps} or {0}):
        store.runs.add_segment(Segment(run.id, index, run.started_at, ended_at=run.finished_at))
    samples: dict[tuple[int, int], list[TextSample]] = defaultdict(list)
    for sample in recorded.samples:
        samples[sample.segment, sample.step].append(sample)
    for step in recorded.steps:
        store.steps.add(run.id, step, samples[step.segment, step.step])
    for name, one in checkpoints.items():
        store.checkpoints.add(Checkpoint(run.id, one.step or 0, name, one.measured_at, digest=one.checkpoint_digest))
    store.drift.add_all([replace(one, run_id=run.id) for one in recorded.drift])
    for budget in recorded.budgets:
        store.budgets.add(replace(budget, run_id=run.id, match=None, created_at=budget.created_at or datetime.now(UTC)))
