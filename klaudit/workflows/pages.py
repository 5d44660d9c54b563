"""What the pages show: reads of the store, turned into views."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from klaudit.records import Finding, KLBudget, Run, RunSummary
from klaudit.report.views import (
    DriftView,
    LongRun,
    RunsView,
    RunView,
    SampleView,
    list_drawn_keys,
    needs_every_step,
    view_drift,
    view_long_run,
    view_run,
    view_runs,
    view_sample,
)
from klaudit.store import LEVELS, Store, open_store

LONG_RUN = 5_000
"""Steps beyond which a run is drawn from its roll-ups."""

MAX_BUCKETS = 4_000
"""Buckets of a curve at the finest level; of longer runs the next level is read."""

MAX_BROKEN = 64
"""Stretches with values that are not finite that are read step by step."""

WINDOWS = 10
"""Spans of a budget's window that are read: what lies before weighs less than 1e-8 in its EWMA."""


@dataclass(frozen=True, slots=True)
class RunState:
    """What says whether a page must be drawn again."""

    run_id: str
    status: str
    n_steps: int
    last_logged_at: datetime | None


class Pages:
    """The reads of one store. Every call is a read of its own, so that it may be shared by threads."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def store_url(self) -> str:
        """Of the store, without its password."""
        return self._store.url

    def show_runs(self) -> RunsView:
        """The list of runs."""
        return view_runs(self._store.runs.list(), budgets=self._store.budgets.list())

    def find_run(self, name: str) -> Run:
        """One run by id or name.

        Raises:
            RunNotFound: none has it.
        """
        return self._store.runs.get(name)

    def read_state(self, run_id: str) -> RunState:
        """Whether anything has changed; cheap.

        Raises:
            RunNotFound: no run has that id.
        """
        summary = self._store.runs.summarize(run_id)
        return RunState(summary.run.id, summary.run.status, summary.n_steps, summary.last_logged_at)

    def show_run(self, run_id: str, *, max_points: int = 2000) -> RunView:
        """One run: curves, budgets, findings. A long one is drawn from its roll-ups.

        Raises:
            RunNotFound: no run has that id.
        """
        summary = self._store.runs.summarize(run_id)
        run = summary.run
        findings, budgets = self._store.findings.list(run.id), self._store.budgets.for_run(run)
        checkpoints = self._store.checkpoints.list(run.id)
        if summary.n_steps > LONG_RUN and not any(needs_every_step(one, summary) for one in budgets):
            long = self._read_long_run(summary, findings=findings, budgets=budgets)
            return view_long_run(long, findings=findings, budgets=budgets, checkpoints=checkpoints, max_points=max_points)
        steps = self._store.steps.list(run.id)
        return view_run(run, steps=steps, findings=findings, budgets=budgets, checkpoints=checkpoints, max_points=max_points)

    def show_drift(self, run_id: str) -> DriftView:
        """The measured drift of a run's checkpoints.

        Raises:
            RunNotFound: no run has that id.
        """
        summary = self._store.runs.summarize(run_id)
        run, measurements = summary.run, self._store.drift.list(run_id)
        budgets = self._store.budgets.for_run(run)
        if summary.n_steps <= LONG_RUN:
            return view_drift(run, measurements=measurements, steps=self._store.steps.list(run.id), budgets=budgets)
        after = {one.step + 1 for one in measurements if one.step is not None}
        places = [(segment.index, step) for segment in self._store.runs.segments(run.id) for step in after]
        buckets = [] if run.governing_key is None else self._store.rollups.read(run.id, run.governing_key, choose_level(summary.n_steps))
        steps = self._store.steps.read(run.id, places)
        return view_drift(run, measurements=measurements, steps=steps, budgets=budgets, logged=buckets)

    def _read_long_run(self, summary: RunSummary, *, findings: Sequence[Finding], budgets: Sequence[KLBudget]) -> LongRun:
        store, run_id = self._store, summary.run.id
        level, keys = choose_level(summary.n_steps), list_drawn_keys(summary)
        rollups = {key: store.rollups.read(run_id, key, level) for key in keys}
        last = store.steps.last(run_id)
        span = max((one.window_steps or 1 for one in budgets), default=1)
        tail = store.steps.list(run_id, segment=last.segment, newest_first=True, limit=WINDOWS * span) if last is not None else []
        broken = store.rollups.list_broken(run_id, keys)
        read = broken[:: math.ceil(len(broken) / MAX_BROKEN) or 1]
        finest = min(LEVELS)
        near = [(segment, step) for segment, bucket in read for step in range(bucket * finest, (bucket + 1) * finest)]
        named = [(one.segment, step) for one in findings for step in (one.first_step, one.detected_step, one.last_step)]
        return LongRun(
            summary=summary,
            level=level,
            rollups=rollups,
            steps=store.steps.read(run_id, {*near, *named}),
            tail=tail[::-1],
            n_segments=len({one.segment for buckets in rollups.values() for one in buckets}),
            n_broken=len(broken),
            n_broken_read=len(read),
        )

    def list_sample_steps(self, run_id: str) -> Sequence[int]:
        """Steps that sampled texts were kept of."""
        return self._store.samples.steps_with_samples(run_id)

    def show_samples(self, run_id: str, *, step: int) -> tuple[SampleView, ...]:
        """The sampled texts of one step."""
        return tuple(view_sample(one) for one in self._store.samples.list(run_id, step=step))


def open_pages(url: str) -> Pages:
    """Open a store for its pages.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    return Pages(open_store(url, read_only=True))


def choose_level(n_steps: int) -> int:
    """Steps a bucket for a run of so many steps."""
    return min(LEVELS) if n_steps <= MAX_BUCKETS * min(LEVELS) else max(LEVELS)
