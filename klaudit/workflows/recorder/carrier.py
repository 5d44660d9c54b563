"""From the queue into the store: the run is begun there, its steps are stored, its lease is kept, its alerts are sent, and it is ended."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from klaudit.alerts import Channel
from klaudit.errors import RunNotFound
from klaudit.records import Finding, KLBudget, KLSeries, LoggedStep
from klaudit.records.session import Session
from klaudit.store import Store, open_store
from klaudit.store.engine import anchor_url, show_url
from klaudit.store.intake import UNREACHABLE, apply_entry, store_findings, store_steps
from klaudit.store.journal.entry import STEPS, Entry, decode_step
from klaudit.store.journal.loss import Loss
from klaudit.store.sessions import LEASE_S, Begun, begin_session, end_session
from klaudit.workflows.alerting import AlertSender
from klaudit.workflows.audits import note_audit
from klaudit.workflows.recorder.live_audit import LiveAudit
from klaudit.workflows.recorder.queue import StepQueue
from klaudit.workflows.recorder.reporter import Reporter
from klaudit.workflows.replays import keep_replayed_findings

BUSY_TIMEOUT_S = 5.0
"""How long one attempt waits for another writer of the store, in seconds."""
HEARTBEAT_S = LEASE_S / 4
LAST_ALERTS_TIMEOUT_S = 5.0
"""How long the end of a run waits for alerts that are still on their way, in seconds."""
LOSS_REASON = "neither the store nor a journal took them"


class Carrier:
    """Carries one segment of a run into the store. For one thread at a time.

    Args:
        url: of the store.
        session: what is declared of the run.
        queue: of what is to be carried.
        audit: that looks at it on the way, unless a brake had it look before.
        channels: that alerts go to.
        reporter: is told what goes wrong.
        actor: name of the person behind the process, for the ledger.
    """

    def __init__(
        self,
        url: str,
        *,
        session: Session,
        queue: StepQueue,
        audit: LiveAudit,
        channels: Sequence[Channel],
        reporter: Reporter,
        actor: str | None,
    ) -> None:
        self.url = show_url(url)
        """Of the store, without its password."""
        self.run = session.run
        self.segment = 0
        self.budgets = session.budgets
        self.has_brake = has_brake(session.budgets)
        """Whether a budget asks for more than an alert; then each step is audited before it is carried."""
        self.n_stored = 0
        """Steps that were carried."""
        self._url = anchor_url(url)
        self._session = session
        self._queue = queue
        self._audit = audit
        self._alerts = AlertSender(channels)
        self._reporter = reporter
        self._actor = actor
        self._store: Store | None = None
        self._begun: Begun | None = None
        self._has_begun = False
        self._is_settled = True
        self._reported = Loss()
        self._next_heartbeat = 0.0

    def begin(self) -> None:
        """Reach the store and begin the run there, or its next segment.

        Raises:
            RunInUse: a live process writes the run that would be gone on with.
            RunNotFound: there is no run to go on with, and there must be.
            StoreError: the store cannot be used now; it is tried again with the steps.
        """
        if self._store is None:
            self._store = open_store(
                self._url, create=True, busy_timeout_s=BUSY_TIMEOUT_S, journals=self._session.journals, actor=self._actor
            )
            for line in self._store.warnings:
                self._reporter.warn(line)
        declared = None if self.run.series == self._session.run.series else self.run
        begun = begin_session(self._store, self._session, anew=self._has_begun)
        self._has_begun = True
        if begun.run.name != self._session.run.name and self._session.resumed_from_step:
            self._reporter.warn(f"this training is recorded as run {begun.run.name!r}")
        run = (
            begun.run
            if declared is None
            else replace(begun.run, series=declared.series, framework=declared.framework, algorithm=declared.algorithm)
        )
        if declared is not None:
            self._store.runs.set_series(run.id, run.series)
            if run.framework is not None and run.algorithm is not None:
                self._store.runs.set_trainer(run.id, framework=run.framework, algorithm=run.algorithm)
        self.budgets, self.has_brake = begun.budgets, has_brake(begun.budgets)
        self.segment, self.run = begun.segment, run
        self._begun = begun
        if self.has_brake:
            self._settle_audit(self._store, begun)
        else:
            self._is_settled = False
        self._next_heartbeat = time.monotonic() + HEARTBEAT_S

    def leave_store(self) -> None:
        """Close the store, where it is open."""
        if self._store is not None:
            self._store.close()

    def declare_series(self, series: dict[str, KLSeries], *, framework: str | None, algorithm: str | None) -> bool:
        """Put down what the run's KLs are and what trainer they come from, for what is carried from here on; whether the KLs were others before."""
        run = self.run
        self.run = replace(run, series={**run.series, **series}, framework=framework or run.framework, algorithm=algorithm or run.algorithm)
        return self.run.series != run.series

    def carry(self, *, closing: bool | None) -> bool:
        """Store what waits.

        Args:
            closing: whether the run failed, where nothing more will come; None: it goes on.

        Returns:
            Whether the run is ended in the store.

        Raises:
            RunNotFound: the run was taken out of the store; it is begun anew the next time.
            StoreError: the store failed; everything is tried again the next time.
            OSError: likewise.
        """
        try:
            store, begun = self._reach_store()
            self._carry_all(store, begun)
            self._queue.keep_journal()
            is_done = self._queue.trim() and closing is not None
            if is_done:
                self._end(store, begun, failed=bool(closing))
        except RunNotFound:
            self._begun = None
            raise
        return is_done

    def _reach_store(self) -> tuple[Store, Begun]:
        if self._store is not None and self._store.is_displaced():
            self._reporter.warn(
                f"the store at {self.url} was taken away during the training; it is made anew, without the steps that went with it"
            )
            self._store.close()
            self._store, self._begun = None, None
        if self._begun is None:
            self.begin()
        assert self._store is not None
        assert self._begun is not None
        return self._store, self._begun

    def _carry_all(self, store: Store, begun: Begun) -> None:
        if not self._is_settled:
            self._settle_audit(store, begun)
            self._is_settled = True
        while not self._queue.is_empty:
            if len(self._queue):
                self._queue.drop(self._carry_batch(store, begun, self._queue.read()))
            else:
                self._carry_spilled(store, begun)
            self._renew_lease(store, begun)
        if store.replayed:
            keep_replayed_findings(store)
        self._keep_findings(store)
        self._report_loss(store, begun)
        self._alerts.note_deliveries(store)
        self._renew_lease(store, begun)

    def _carry_spilled(self, store: Store, begun: Begun) -> None:
        """Store the next steps that are in the journal alone."""
        items, place = self._queue.read_spilled()
        while items:
            items = items[self._carry_batch(store, begun, items) :]
        if place is not None:
            self._queue.skip_spilled(place)

    def _carry_batch(self, store: Store, begun: Begun, items: Sequence[LoggedStep | Entry]) -> int:
        """Store the steps that a batch begins with, or its first entry; gives how many items that was."""
        steps: list[LoggedStep] = []
        refused: list[tuple[int, Exception]] = []
        for item in items:
            if isinstance(item, LoggedStep):
                steps.append(item)
            elif item[0] in STEPS:
                try:
                    steps.append(decode_step(item, segment=begun.segment, series={**self.run.series, **self._queue.series}))
                except Exception as error:
                    refused.append((item[1], error))
            else:
                break
        if not (steps or refused):
            entry = items[0]
            assert not isinstance(entry, LoggedStep)
            self._apply(store, begun, entry)
            return 1
        if steps:
            self._store_steps(store, begun, steps)
        # Counted only now: a store that is away would have them counted at each attempt.
        for _, reason in refused:
            self._reporter.note("storing", reason)
        self._queue.lose([step for step, _ in refused])
        return len(steps) + len(refused)

    def _apply(self, store: Store, begun: Begun, entry: Entry) -> None:
        """Store what is no step; what can never be stored is dropped, and said."""
        try:
            apply_entry(store, self.run.id, begun.segment, entry)
        except UNREACHABLE:
            raise
        except Exception as error:
            self._reporter.note("storing", error)
            return
        if entry[0] == "declared" and entry[4]:
            self._settle_audit(store, begun)
        elif entry[0] == "identity":
            self._observe_segment(store, begun)

    def _store_steps(self, store: Store, begun: Begun, steps: Sequence[LoggedStep]) -> None:
        placed = [_place(one, begun.segment) for one in steps]
        if not self.has_brake:
            for one in placed:
                self._audit.observe(one.record)
        findings = self._audit.findings
        refused = store_steps(store, self.run.id, placed, findings=findings, on_refused=self._note_refusal)
        self._queue.lose(refused.steps)
        self.n_stored += len(steps)
        self._send(store, findings, refused=refused.findings)
        self._queue.note_stored(one.record.step for one in steps)

    def _keep_findings(self, store: Store) -> None:
        """Store what the audit said since the last batch."""
        findings = self._audit.findings
        if findings:
            refused = store_findings(store, self.run.id, findings, on_refused=self._note_refusal)
            self._send(store, findings, refused=refused)

    def _send(self, store: Store, findings: Iterable[Finding], *, refused: Iterable[Finding]) -> None:
        """Tell of findings that are stored now, and not of those that the store refused."""
        untold = {one.id for one in refused}
        for finding in findings:
            self._audit.drop(finding)
            if finding.id not in untold:
                self._alerts.send(store, finding, run_name=self.run.name)

    def _note_refusal(self, error: Exception, _: LoggedStep | None) -> None:
        self._reporter.note("storing", error)

    def _settle_audit(self, store: Store, begun: Begun) -> None:
        self._alerts.skip(self._audit.settle(store, self.run, budgets=self.budgets, segment=begun.segment))

    def _observe_segment(self, store: Store, begun: Begun) -> None:
        self._audit.observe_segment(store.runs.segments(self.run.id)[begun.segment])

    def _report_loss(self, store: Store, begun: Begun) -> None:
        loss = self._queue.loss
        if loss == self._reported:
            return
        store.runs.set_loss(
            self.run.id, begun.segment, n_lost=loss.n, first_step=loss.first_step, last_step=loss.last_step, reason=LOSS_REASON
        )
        self._reported = loss
        self._observe_segment(store, begun)
        self._keep_findings(store)

    def _renew_lease(self, store: Store, begun: Begun) -> None:
        if time.monotonic() < self._next_heartbeat:
            return
        now = datetime.now(UTC)
        if not store.runs.renew_lease(self.run.id, begun.segment, now=now, until=now + timedelta(seconds=LEASE_S)):
            raise RunNotFound(f"run {self.run.name!r} was taken out of the store while it is being recorded; it is begun anew")
        self._next_heartbeat = time.monotonic() + HEARTBEAT_S

    def _end(self, store: Store, begun: Begun, *, failed: bool) -> None:
        self._alerts.wait(LAST_ALERTS_TIMEOUT_S)
        self._alerts.note_deliveries(store)
        # Tried again as a whole where the store fails in between.
        with store.together():
            # By which policy the segment was audited, with what came of it.
            if (audit := self._audit.conclude()) is not None:
                note_audit(store, audit)
            end_session(store, begun, failed=failed, at=datetime.now(UTC))
        self._queue.remove()
        store.close()


def has_brake(budgets: Sequence[KLBudget]) -> bool:
    """Whether one of some budgets asks for more than an alert."""
    return any(budget.action != "alert" for budget in budgets)


def _place(logged: LoggedStep, segment: int) -> LoggedStep:
    """The step in the segment that the store gave; its texts too, since who samples does not know it."""
    record = logged.record if logged.record.segment == segment else replace(logged.record, segment=segment)
    samples = tuple(one if one.segment == segment else replace(one, segment=segment) for one in logged.samples)
    return LoggedStep(record, samples)
