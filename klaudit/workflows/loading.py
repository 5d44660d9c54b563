"""Whole runs into the store: all of a run, or nothing of it."""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice

from klaudit.records import Checkpoint, DriftMeasurement, KLBudget, LoggedStep, Run, RunSummary, Segment, StepRecord, TextSample
from klaudit.store import Store
from klaudit.store.sessions import find_free_name
from klaudit.workflows.audits import audit_stored_run, keep_findings

BATCH = 1_000
"""Steps that are written at once."""


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """What became of a whole run in the store."""

    run: Run
    n_steps: int
    n_kl_measured: int
    """Steps with a finite governing KL (the step's own `kl` where no series governs)."""
    n_findings: int
    is_new: bool
    """False: the very same run was there already, and nothing was written."""


def load_run(
    store: Store,
    run: Run,
    steps: Iterable[StepRecord],
    *,
    samples: Iterable[TextSample] = (),
    drift: Sequence[DriftMeasurement] = (),
    budgets: Iterable[KLBudget] = (),
) -> LoadedRun:
    """Put a run that is over into the store, audit it and keep its findings, in one transaction.

    Args:
        store: open for writing; whoever else writes to it waits until the run is in.
        run: its id is given here, and its name gets a number where it is taken.
        steps: in order of segment and step; no more than some thousand are held in memory.
        samples: texts of these steps.
        drift: measurements of its checkpoints.
        budgets: of this run alone.

    Raises:
        KlauditError: the store refuses a part of it, or `steps` ends with an error. Either way nothing of the run is left there.
    """
    texts: dict[tuple[int, int], list[TextSample]] = defaultdict(list)
    for sample in samples:
        texts[sample.segment, sample.step].append(sample)
    with store.together():
        run = replace(run, id=uuid.uuid4().hex[:12], name=find_free_name(run.name, taken=store.runs.names_like(run.name)))
        store.runs.add(run)
        n_steps = _add_steps(store, run, (LoggedStep(step, tuple(texts.get((step.segment, step.step), ()))) for step in steps))
        for name, one in {one.checkpoint: one for one in drift if one.step is not None}.items():
            store.checkpoints.add(Checkpoint(run.id, one.step or 0, name, one.measured_at, digest=one.checkpoint_digest))
        store.drift.add_all([replace(one, run_id=run.id) for one in drift])
        for budget in budgets:
            store.budgets.add(replace(budget, run_id=run.id, match=None, created_at=budget.created_at or datetime.now(UTC)))
        audit = audit_stored_run(store, run.id)
        keep_findings(store, audit)
    return LoadedRun(run, n_steps, audit.coverage.kl_measured, len(audit.findings), is_new=True)


def recall_run(summary: RunSummary) -> LoadedRun:
    """A run that was loaded before."""
    return LoadedRun(summary.run, summary.n_steps, summary.n_kl_measured, sum(summary.n_findings.values()), is_new=False)


def _add_steps(store: Store, run: Run, logged: Iterator[LoggedStep]) -> int:
    n_steps = 0
    segment: Segment | None = None
    while batch := list(islice(logged, BATCH)):
        for one in batch:
            record = one.record
            if segment is None or record.segment != segment.index:
                segment = Segment(run.id, record.segment, run.started_at, ended_at=run.finished_at)
                store.runs.add_segment(segment)
        store.steps.add_all(run.id, batch)
        n_steps += len(batch)
    if segment is None:
        store.runs.add_segment(Segment(run.id, 0, run.started_at, ended_at=run.finished_at))
    return n_steps
