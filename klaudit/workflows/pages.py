"""What the pages show: reads of the store, turned into views."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from klaudit.audit import list_rules
from klaudit.records import Finding, KLBudget, Run, RunSummary, Segment, Severity
from klaudit.records.drift_shard import Sampler
from klaudit.report.views import (
    CaptureView,
    DriftView,
    LongRun,
    RunLedger,
    RunsView,
    RunView,
    SampleView,
    WaitingSteps,
    list_drawn_keys,
    needs_every_step,
    view_capture,
    view_drift,
    view_long_run,
    view_run,
    view_runs,
    view_sample,
)
from klaudit.report.views.capture import find_silence, state_waiting
from klaudit.report.views.drift_completion import CompletionPair
from klaudit.report.views.drift_location import LocationView
from klaudit.report.views.drift_matrix import MatrixView
from klaudit.report.views.drift_profile import CheckpointProfile
from klaudit.report.views.finding import FindingsView, FindingView, JudgedView, RuleText, view_findings, view_judged
from klaudit.report.views.frontier import FrontierView, view_frontier
from klaudit.store import LEVELS, Store, open_store
from klaudit.store.replay import Waiting
from klaudit.store.sessions import LEASE_S, is_segment_live
from klaudit.workflows.audits import audit_stored_run
from klaudit.workflows.drift_views import read_completions, read_location, read_matrix, read_profiles
from klaudit.workflows.frontier import study_stored_runs

LONG_RUN = 5_000
"""Steps beyond which a run is drawn from its roll-ups."""

MAX_BUCKETS = 4_000
"""Buckets of a curve at the finest level; of longer runs the next level is read."""

MAX_BROKEN = 64
"""Stretches with values that are not finite that are read step by step."""

WINDOWS = 10
"""Spans of a budget's window that are read: what lies before weighs less than 1e-8 in its EWMA."""

MOST_FINDINGS = 500
"""Findings of all runs that are read at once, those of the newest runs first."""

PASSING = 100
"""Steps of a live trainer that are on their way; so few are not worth a word unless the store has not heard of it for long."""


@dataclass(frozen=True, slots=True)
class RunState:
    """What says whether a page must be drawn again."""

    run_id: str
    status: str
    n_steps: int
    last_logged_at: datetime | None
    silence: str | None = None
    """`no sign of life since 14:03 UTC` where the run says that it is running and nobody writes it."""


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
        summaries = self._store.runs.list()
        silences = {one.run.id: self.find_silence(one) for one in summaries if one.run.status == "running"}
        return view_runs(summaries, budgets=self._store.budgets.list(), silences=silences)

    def list_waiting(self) -> tuple[WaitingSteps, ...]:
        """Steps that stand in journals and not in the store yet, without those of a live trainer that are about to be carried over."""
        waiting, now = self._store.list_waiting(), datetime.now(UTC)
        if not waiting:
            return ()
        names = {one.run.id: one.run.name for one in self._store.runs.list()}
        return tuple(
            WaitingSteps(one.run_id, state_waiting(names.get(one.run_id, one.run_name), one.n_steps, is_live=one.is_live))
            for one in waiting
            if not (one.is_live and one.n_steps < PASSING and self._is_heard(one, now=now))
        )

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
        return RunState(summary.run.id, summary.run.status, summary.n_steps, summary.last_logged_at, self.find_silence(summary))

    def read_ledger(self, run_id: str, *, after: RunLedger) -> RunLedger:
        """What the ledger holds of a run; nothing of it is checked.

        Args:
            run_id: of the run.
            after: as it was read before, so that only newer entries are read.
        """
        return after.follow(self._store.ledger.list(run_id=run_id, after_seq=after.seq))

    def show_capture(self, run_id: str, *, ledger: RunLedger) -> CaptureView:
        """What was recorded of a run: its KLs, segments, identity and ledger.

        Raises:
            RunNotFound: no run has that id.
        """
        summary, now = self._store.runs.summarize(run_id), datetime.now(UTC)
        segments = self._store.runs.segments(run_id)
        live = next((one.index for one in reversed(segments) if is_segment_live(one, at=now)), None)
        return view_capture(summary, segments=segments, ledger=ledger, live_segment=live, now=now)

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
        buckets = [] if run.governing_key is None else self._store.rollups.read(run.id, run.governing_key, choose_level(summary.n_steps))
        segments = {one.segment for one in buckets} | {one.index for one in self._store.runs.segments(run.id)}
        places = [(segment, one.step + 1) for segment in segments for one in measurements if one.step is not None]
        steps = self._store.steps.read(run.id, places)
        return view_drift(run, measurements=measurements, steps=steps, budgets=budgets, logged=buckets)

    def show_profiles(self, run_id: str) -> tuple[CheckpointProfile, ...]:
        """What is measured of a run's checkpoints beside their KL, by step."""
        return read_profiles(self._store, run_id)

    def show_matrix(self, run_id: str) -> MatrixView | None:
        """KL between every two checkpoints of a run; None where it was not measured."""
        return read_matrix(self._store, run_id)

    def show_location(self, keys: Sequence[str], *, sampler: Sampler) -> LocationView | None:
        """Where the drift of one checkpoint is, from its shards; None where no completion of that sampler was kept.

        Raises:
            StoreError: a shard cannot be read.
        """
        return read_location(self._store, keys, sampler=sampler)

    def show_completions(self, keys: Sequence[str], *, prompt_index: int) -> tuple[CompletionPair, ...]:
        """What both models wrote on one prompt, from the shards that hold it.

        Raises:
            StoreError: a shard cannot be read.
        """
        return read_completions(self._store, keys, prompt_index=prompt_index)

    def show_frontier(self, run_ids: Sequence[str]) -> FrontierView:
        """Reward against drift of one run, or of several as a sweep.

        Raises:
            RunNotFound: one of them is not there.
        """
        return view_frontier(study_stored_runs(self._store, run_ids))

    def show_findings(self, run_id: str) -> FindingsView:
        """What was found in one run, the worst first.

        Raises:
            RunNotFound: no run has that id.
        """
        run = self._store.runs.get(run_id)
        return FindingsView(view_findings(self._store.findings.list(run.id), run=run, rules=describe_rules()))

    def list_findings(self) -> FindingsView:
        """What was found in all runs, the gravest first and among them the newest run's, up to `MOST_FINDINGS`."""
        found: list[FindingView] = []
        n_left_out = 0
        for summary in sorted(self._store.runs.list(), key=lambda one: (one.run.started_at, one.run.name), reverse=True):
            n_here = sum(summary.n_findings.values())
            if len(found) + n_here > MOST_FINDINGS and found:
                n_left_out += n_here
            elif n_here:
                found += view_findings(self._store.findings.list(summary.run.id), run=summary.run, rules=describe_rules())
        return FindingsView(tuple(sorted(found, key=lambda one: -Severity(one.severity).rank)), n_left_out)

    def show_judged(self, run_id: str) -> JudgedView | None:
        """What was judged of a run and what could not be, by an audit of its steps; None for a run too long to audit for a page.

        Raises:
            RunNotFound: no run has that id.
        """
        if self._store.runs.summarize(run_id).n_steps > LONG_RUN:
            return None
        return view_judged(audit_stored_run(self._store, run_id).to_dict(), rules=describe_rules())

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

    def find_silence(self, summary: RunSummary) -> str | None:
        """`no sign of life since 14:03 UTC` for a run that says that it is running and that nobody writes; None for every other."""
        if summary.run.status != "running":
            return None
        segments, now = self._store.runs.segments(summary.run.id), datetime.now(UTC)
        writer = segments[-1] if segments else None
        return find_silence(
            summary.run,
            last_logged_at=summary.last_logged_at,
            n_steps=summary.n_steps,
            writer=writer,
            is_writer_live=writer is not None and is_segment_live(writer, at=now),
            now=now,
        )

    def _is_heard(self, waiting: Waiting, *, now: datetime) -> bool:
        """Whether the store heard of the writer of a run no longer than half a lease ago."""
        writers: Sequence[Segment] = self._store.runs.segments(waiting.run_id)
        return bool(writers) and (sign := writers[-1].heartbeat_at) is not None and (now - sign).total_seconds() < LEASE_S / 2

    def list_sample_steps(self, run_id: str) -> Sequence[int]:
        """Steps that sampled texts were kept of."""
        return self._store.samples.steps_with_samples(run_id)

    def show_samples(self, run_id: str, *, step: int) -> tuple[SampleView, ...]:
        """The sampled texts of one step."""
        return tuple(view_sample(one) for one in self._store.samples.list(run_id, step=step))


def open_pages(url: str, *, journals: Sequence[str] = ()) -> Pages:
    """Open a store for its pages.

    Args:
        url: of the store.
        journals: directories in which steps may wait besides the usual one.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    return Pages(open_store(url, read_only=True, journals=journals))


@functools.cache
def describe_rules() -> Mapping[str, RuleText]:
    """What every rule says of itself, by its code."""
    return {
        one.code: RuleText(
            code=one.code,
            name=one.name,
            summary=one.summary,
            why=one.sections["Why it matters"],
            todo=one.sections["What to do"],
            settings={parameter.name: parameter.text for parameter in one.parameters},
        )
        for one in list_rules()
    }


def choose_level(n_steps: int) -> int:
    """Steps a bucket for a run of so many steps."""
    return min(LEVELS) if n_steps <= MAX_BUCKETS * min(LEVELS) else max(LEVELS)
