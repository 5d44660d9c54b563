"""One monitor for a run that is being trained: every step is stored, audited and, where a finding asks for it, told to somebody."""

import os
import queue
import re
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Self

from klaudit.alerts import Channel, compose_alert
from klaudit.audit import AuditEngine, Policy
from klaudit.errors import AlertNotDelivered, InvalidRecord
from klaudit.records import Alert, Checkpoint, Finding, KLBudget, KLSeries, Run, Segment, Severity, StepRecord, TextSample
from klaudit.store import Store

LAST_ALERTS_TIMEOUT_S = 5.0
"""How long closing a run waits for alerts that are still on their way."""


class RunRecorder:
    """Writes one segment of a run. Not for two threads at once.

    Args:
        store: open for writing; closed with the recorder.
        run: as it stands in the store.
        segment: that this process writes.
        budgets: the run's, as they stand in the store.
        policy: of the live audit.
        channels: that alerts go to.
    """

    def __init__(
        self, store: Store, *, run: Run, segment: int, budgets: Sequence[KLBudget], policy: Policy, channels: Sequence[Channel]
    ) -> None:
        self.run = run
        self.segment = segment
        self.budgets = tuple(budgets)
        self._store = store
        self._policy = policy
        self._channels = tuple(channels)
        self._engine: AuditEngine | None = None
        self._last: tuple[int, int] | None = None
        self._alerted: dict[str, Severity] = {}
        self._outcomes: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
        self._deliveries: list[threading.Thread] = []

    @property
    def store_url(self) -> str:
        """Of the store, without its password."""
        return self._store.url

    def declare_series(self, series: dict[str, KLSeries], *, framework: str | None = None, algorithm: str | None = None) -> None:
        """Say what the run's KLs are, best before the first step, and what trainer they come from."""
        self.run = replace(self.run, series=series, framework=framework or self.run.framework, algorithm=algorithm or self.run.algorithm)
        # Rules look at the governing series, which may be another one now.
        self._engine = None
        self._store.runs.set_series(self.run.id, series)
        if framework is not None and algorithm is not None:
            self._store.runs.set_trainer(self.run.id, framework=framework, algorithm=algorithm)

    def record(self, step: StepRecord, *, samples: Sequence[TextSample] = ()) -> tuple[Finding, ...]:
        """Audit one step and store it: `observe`, then `keep`.

        Raises:
            InvalidRecord: a step that does not come after the last one.
            StoreError: it could not be stored.
        """
        findings = self.observe(step)
        self.keep(step, samples=samples, findings=findings)
        return findings

    def observe(self, step: StepRecord) -> tuple[Finding, ...]:
        """Audit one step. Nothing is written, so that a brake does not depend on the store.

        Returns:
            The findings that this step made or revised.

        Raises:
            InvalidRecord: a step that does not come after the last one.
        """
        place = (step.segment, step.step)
        if self._last is not None and place < self._last:
            raise InvalidRecord(f"steps of a segment go up: expected one after {self._last[1]}; got {step.step}, which is not recorded")
        if self._engine is None:
            self._engine = self._replay_engine(before=place)
        self._last = place
        return self._engine.observe(step)

    def keep(self, step: StepRecord, *, samples: Sequence[TextSample] = (), findings: Sequence[Finding] = ()) -> None:
        """Store one step with its findings in one commit, and tell the channels.

        Args:
            step: of this segment.
            samples: its texts; their segment is set to the step's, since who samples does not know it.
            findings: what `observe` said of it.

        Raises:
            DuplicateStep: the step is stored already.
            StoreError: it could not be stored.
        """
        self._store.steps.add(self.run.id, step, [replace(sample, segment=step.segment) for sample in samples], findings=findings)
        for finding in findings:
            self._alert(finding)
        self._note_deliveries()

    def add_checkpoint(self, *, step: int, path: str) -> None:
        """Note that the policy was saved."""
        self._store.checkpoints.add(Checkpoint(run_id=self.run.id, step=step, path=path, saved_at=datetime.now(UTC), segment=self.segment))

    def close(self, *, failed: bool = False) -> None:
        """End the segment and the run; waits a bounded time for alerts on their way."""
        until = time.monotonic() + LAST_ALERTS_TIMEOUT_S
        for delivery in self._deliveries:
            delivery.join(timeout=max(0.0, until - time.monotonic()))
        now = datetime.now(UTC)
        try:
            self._store.runs.end_segment(self.run.id, self.segment, now)
            self._store.runs.set_status(self.run.id, "failed" if failed else "finished", now)
            self._note_deliveries()
        finally:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)

    def _replay_engine(self, *, before: tuple[int, int]) -> AuditEngine:
        """An engine that has seen what was logged before, so that a resumed run is audited as a whole; nobody is told of the past again."""
        engine = AuditEngine(self.run, policy=self._policy, budgets=self.budgets)
        for earlier in self._store.steps.list(self.run.id):
            if (earlier.segment, earlier.step) < before:
                engine.observe(earlier)
        self._alerted |= {finding.id: finding.severity for finding in engine.findings}
        return engine

    def _alert(self, finding: Finding) -> None:
        """One message when a finding appears and one each time that it grows, and none for what is only worth knowing."""
        before = self._alerted.get(finding.id)
        if finding.severity is Severity.INFO or (before is not None and finding.severity.rank <= before.rank):
            return
        self._alerted[finding.id] = finding.severity
        for channel in self._channels:
            alert = compose_alert(finding, run_name=self.run.name, channel=channel.name, created_at=datetime.now(UTC))
            self._store.alerts.add(alert)
            delivery = threading.Thread(target=self._deliver, args=(channel, alert), name="klaudit-alert", daemon=True)
            delivery.start()
            self._deliveries.append(delivery)

    def _deliver(self, channel: Channel, alert: Alert) -> None:
        """In a thread of its own: a webhook that hangs must not hold the trainer."""
        try:
            channel.deliver(alert)
        except AlertNotDelivered as error:
            self._outcomes.put((alert.id, str(error)))
        except Exception as error:
            # A channel may be anybody's; an alert that nobody got must not stay pending.
            self._outcomes.put((alert.id, f"{type(error).__name__}: {error}"))
        else:
            self._outcomes.put((alert.id, None))

    def _note_deliveries(self) -> None:
        while True:
            try:
                alert_id, error = self._outcomes.get_nowait()
            except queue.Empty:
                return
            self._store.alerts.set_delivery(alert_id, "delivered" if error is None else "failed", error)


def begin_run(
    store: Store,
    *,
    run: Run,
    resumed_from_step: int | None = None,
    budgets: Sequence[KLBudget] = (),
    policy: Policy,
    channels: Sequence[Channel] = (),
) -> RunRecorder:
    """Begin a run, or the next segment of one.

    A trainer that resumes goes on with its run in a new segment. One that starts again under an old name gets a new run, `name-2`.
    Of several runs that came of one name, a trainer goes on with the one that wrote to its own output directory.

    Args:
        store: open for writing; the recorder closes it.
        run: what is known of it; its `id` is given here.
        resumed_from_step: the step that the trainer goes on from; None or 0 for a fresh start.
        budgets: set in code for this run; those in the store that cover the run are added. A resume adds what it brings and takes nothing
            back: a limit ends when a person removes it.
        policy: of the live audit.
        channels: that alerts go to.
    """
    now = datetime.now(UTC)
    taken = store.runs.names_like(run.name)
    if resumed_from_step and run.name in taken:
        begun = find_resumed_run(store, run=run)
        index = len(store.runs.segments(begun.id))
        store.runs.set_status(begun.id, "running", None)
    else:
        begun = replace(run, id=uuid.uuid4().hex[:12], name=find_free_name(run.name, taken=taken))
        index = 0
        store.runs.add(begun)
    store.runs.add_segment(
        Segment(begun.id, index, now, host=socket.gethostname(), pid=os.getpid(), resumed_from_step=resumed_from_step or None)
    )
    standing = {describe_limit(budget) for budget in store.budgets.for_run(begun)}
    for budget in budgets:
        if describe_limit(budget) not in standing:
            store.budgets.add(replace(budget, run_id=begun.id, match=None, created_at=now))
    return RunRecorder(store, run=begun, segment=index, budgets=store.budgets.for_run(begun), policy=policy, channels=channels)


def find_resumed_run(store: Store, *, run: Run) -> Run:
    """The run that a trainer goes on with: the latest of `name`, `name-2` and so on with its output directory, else `name` itself.

    Raises:
        RunNotFound: no run has that name.
    """
    directory = run.config.get("output_dir")
    pattern = re.compile(rf"{re.escape(run.name)}(-\d+)?")
    same = [
        one.run
        for one in store.runs.list()
        if directory is not None and pattern.fullmatch(one.run.name) and one.run.config.get("output_dir") == directory
    ]
    return max(same, key=lambda one: one.started_at) if same else store.runs.get(run.name)


def describe_limit(budget: KLBudget) -> tuple[object, ...]:
    """What makes two budgets the same to a run."""
    return (budget.limit, budget.unit, budget.scope, budget.window_steps, budget.on, budget.action)


def find_free_name(name: str, *, taken: Sequence[str]) -> str:
    """`name`, or `name-2`, `name-3` and so on when it is taken."""
    if name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"
