"""One monitor for a run that is being trained: every step is journaled at once, then audited, stored and, where a finding asks for it, told.

`log()` writes one line to a local journal and returns. A thread carries the steps into the store in batches and trims the journal.
When the store does not answer, steps wait in the journal; when the process dies, whoever opens the store next carries them over.
"""

import atexit
import contextlib
import functools
import os
import socket
import sys
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from klaudit.alerts import Channel
from klaudit.audit import AuditEngine, Policy, describe_policy
from klaudit.errors import (
    InvalidRecord,
    JournalUnwritable,
    NotAStore,
    RunInUse,
    RunNotFound,
    SchemaTooNew,
    SchemaTooOld,
    StoreError,
)
from klaudit.records import PRIMARY, Finding, KLBudget, KLSeries, LoggedStep, Run, StepRecord, TextSample
from klaudit.records.session import InUse, Resume, Session
from klaudit.records.step import require_step
from klaudit.store import Store, open_store
from klaudit.store.engine import anchor_url, show_url
from klaudit.store.journal import (
    STEPS,
    Entry,
    Journal,
    JournalPlace,
    Loss,
    decode_series,
    decode_step,
    describe_process_start,
    encode_numbers,
    list_journal_directories,
)
from klaudit.store.journal import encode_series as encode_series_entry
from klaudit.store.sessions import BATCH, LEASE_S, UNREACHABLE, Begun, apply_entry, begin_session, end_session, store_steps
from klaudit.workflows.alerting import AlertSender
from klaudit.workflows.audits import note_audit
from klaudit.workflows.replays import keep_replayed_findings

Durability = Literal["step", "batch"]
"""`step`: a step whose `log()` returned survives the death of the process; `batch`: all but those of the last `POLL_S` seconds do."""

POLL_S = 0.1
"""How long a step waits for its batch, in seconds."""
MOST_WAITING = 10_000
"""Steps without texts that wait in memory, some 30 MB; more wait in the journal alone."""
TOKENS_A_STEP = 16
"""So many tokens of a text sample take as much memory as a step."""
BUSY_TIMEOUT_S = 5.0
"""How long one attempt waits for another writer of the store, in seconds."""
LONGEST_PAUSE_S = 5.0
"""Between two attempts at a store that does not answer, in seconds."""
HEARTBEAT_S = LEASE_S / 4
LAST_STEPS_TIMEOUT_S = 10.0
"""How long the end of a run waits for the store, in seconds; what is not stored by then stays in the journal."""
LAST_ALERTS_TIMEOUT_S = 5.0
"""How long the end of a run waits for alerts that are still on their way, in seconds."""
LOSS_REASON = "neither the store nor a journal took them"
LONGEST_HOLD_S = 0.05
"""How long `log()` waits for its audit at most, in seconds."""


class Reporter(Protocol):
    """Who is told what goes wrong."""

    def note(self, what: str, error: Exception) -> None:
        """Something inside klaudit failed."""

    def warn(self, line: str) -> None:
        """Something that a person should know."""


class Silence:
    """Tells nobody."""

    def note(self, what: str, error: Exception) -> None:
        """See Reporter."""

    def warn(self, line: str) -> None:
        """See Reporter."""


class RunRecorder:
    """Writes one segment of a run. For one thread, in the process that made it.

    Args:
        url: of the store.
        session: what is declared of the run.
        journal: that steps go through; None: they wait in memory alone.
        policy: of the live audit.
        channels: that alerts go to.
        reporter: is told what goes wrong.
        actor: name of the person behind the process, for the ledger.
        is_prompt: whether each step goes to the journal before `log()` returns, and not only once memory is full.
        must_be_closed: whether a run that nobody closed has failed.
    """

    def __init__(
        self,
        url: str,
        *,
        session: Session,
        journal: Journal | None,
        policy: Policy,
        channels: Sequence[Channel],
        reporter: Reporter,
        actor: str | None = None,
        is_prompt: bool = True,
        must_be_closed: bool = False,
    ) -> None:
        self.run = session.run
        self.segment = 0
        self.budgets = session.budgets
        self.has_brake = has_brake(session.budgets)
        """Whether a budget asks for more than an alert; then each step is audited before `log()` returns."""
        self._url = anchor_url(url)
        self._shown_url = show_url(url)
        self._session = session
        self._journal = journal
        self._policy = policy
        self._reporter = reporter
        self._actor = actor
        self._is_prompt = is_prompt
        self._must_be_closed = must_be_closed
        self._store: Store | None = None
        self._begun: Begun | None = None
        self._queue: deque[LoggedStep | Entry] = deque()
        self._weight = 0
        self._spilled: JournalPlace | None = None
        self._spilled_series: dict[str, KLSeries] = {}
        self._unjournaled: set[int] = set()
        self._loss = Loss()
        self._at_risk = Loss()
        self._reported = Loss()
        self._last_step: int | None = None
        self._engine: AuditEngine | None = None
        self._engine_lock = threading.Lock()
        # The engine has not seen what is stored: until the store is reached, and from a declaration of series until that is stored.
        self._n_unsettled = 1
        self._is_settled = True
        self._has_begun = False
        self._unsettled: list[StepRecord] = []
        self._missed: list[StepRecord] = []
        self._findings: dict[str, Finding] = {}
        self._alerts = AlertSender(channels)
        self._lock = threading.Lock() if journal is None else journal.lock
        """Held while something is handed over, and while the journal is trimmed."""
        self._is_outside = False
        self._is_away = False
        self._pause_s = 0.0
        self._n_away = 0
        self._next_heartbeat = 0.0
        self._closing: bool | None = None
        self._wake = threading.Event()
        self._carried = threading.Condition()
        self._carrying = threading.Lock()
        """Held while the worker is inside the store."""
        self._worker = threading.Thread(target=self._work, name="klaudit-recorder", daemon=True)

    @property
    def store_url(self) -> str:
        """Of the store, without its password."""
        return self._shown_url

    @property
    def n_lost(self) -> int:
        """Steps whose `log()` returned and that are nowhere."""
        return self._loss.n

    @property
    def journal_directory(self) -> Path | None:
        """Where steps wait for the store; None: in memory alone."""
        return None if self._journal is None else self._journal.directory

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
            self._settle_engine(self._store, begun)
        else:
            self._is_settled = False
        self._next_heartbeat = time.monotonic() + HEARTBEAT_S

    def leave_store(self) -> None:
        """Close the store, where it is open."""
        if self._store is not None:
            self._store.close()

    def stay_away(self) -> None:
        """The store was not reached, and a person knows it."""
        self._is_away = True

    def start(self) -> None:
        """Start to carry steps over."""
        RECORDERS.add(self)
        atexit.register(self._close_at_exit)
        self._worker.start()

    def declare_series(self, series: dict[str, KLSeries], *, framework: str | None = None, algorithm: str | None = None) -> None:
        """Say what the run's KLs are, best before the first step, and what trainer they come from."""
        changed = {**self.run.series, **series} != self.run.series
        self.run = replace(
            self.run,
            series={**self.run.series, **series},
            framework=framework or self.run.framework,
            algorithm=algorithm or self.run.algorithm,
        )
        if changed:
            # Rules look at the governing series, which may be another one now.
            with self._engine_lock:
                self._engine = None
                self._n_unsettled += 1
        self._hand_over(("declared", encode_series_entry(series)[1], framework, algorithm, changed))

    def log(self, step: StepRecord, *, samples: Sequence[TextSample] = ()) -> tuple[Finding, ...]:
        """Journal one step, and audit it where a budget has a brake.

        Returns:
            The findings that this step made or revised, where a budget has a brake; else none, because the audit comes later.

        Raises:
            InvalidRecord: a step that does not come after the last one, or one of a process that was forked from the recording one.
        """
        self._require_next(step.step)
        logged = LoggedStep(step, tuple(samples))
        self._require_declared(logged)
        with self._lock:
            is_full = self._is_full
            place = self._journal.place if self._journal is not None and is_full else None
            is_journaled = self._journal is not None and (is_full or self._is_prompt) and self._journal.append_step(step, samples)
            self._queue_step(step.step, logged, place, is_journaled=is_journaled)
        self._last_step = step.step
        return self._observe(step) if self.has_brake else ()

    def log_numbers(
        self,
        step: int,
        *,
        kl: float | None,
        beta: float | None = None,
        score: float | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Journal one step of bare numbers, for loops that log thousands of times a second; it becomes a record when it is stored.

        Args:
            step: the loop's global step.
            kl: a number of the run's declared series; None: not measured at this step.
            beta: KL coefficient in force.
            score: raw reward, mean over the batch.
            metrics: everything else.

        Raises:
            InvalidRecord: as `log`; what is no number is found later where nothing is journaled, and is counted then.
        """
        require_step(step)
        self._require_next(step)
        entry = encode_numbers(step, kl=kl, n_sequences=self.run.batch_size, beta=beta, score=score, metrics=metrics)
        with self._lock:
            if self._is_prompt and self._journal is not None and not self._is_full:
                self._queue_step(step, entry, None, is_journaled=self._journal.append_numbers(entry, self.run.series[PRIMARY]))
            else:
                place = self._journal.place if self._journal is not None and self._is_full else None
                is_journaled = (
                    place is not None and self._journal is not None and self._journal.append_numbers(entry, self.run.series[PRIMARY])
                )
                self._queue_step(step, entry, place, is_journaled=is_journaled)
        self._last_step = step

    def _require_next(self, step: int) -> None:
        if self._is_outside:
            raise InvalidRecord(
                f"expected steps from the process that records run {self.run.name!r}; this one was forked from it, and its step is not recorded"
            )
        if self._closing is not None:
            raise InvalidRecord(f"expected steps before the run is closed; got step {step} after it")
        if self._last_step is not None and step <= self._last_step:
            raise InvalidRecord(f"steps of a segment go up: expected one after {self._last_step}; got {step}, which is not recorded")

    def _require_declared(self, logged: LoggedStep) -> None:
        """Refuse now what the store would refuse when nobody listens any more."""
        record = logged.record
        for key, reading in ((PRIMARY, record.kl), *record.readings.items()):
            declared = self.run.series.get(key)
            if reading.series is not declared and declared is not None and reading.value is not None and reading.series != declared:
                raise InvalidRecord(
                    f"step {record.step}: expected the reading {key!r} to belong to the run's {declared}; it belongs to {reading.series}. "
                    "Log it under another key, or declare the series again"
                )
        for sample in logged.samples:
            if sample.step != record.step:
                raise InvalidRecord(f"expected text samples of step {record.step}; got one of step {sample.step}")

    def add_checkpoint(self, *, step: int, path: str, digest: str | None = None) -> None:
        """Note that the policy was saved."""
        self._hand_over(("checkpoint", step, path, datetime.now(UTC).isoformat(), digest))

    def set_identity(self, identity: Mapping[str, Any]) -> None:
        """Put down what policy, reference, tokenizer and code are, as JSON."""
        self._hand_over(("identity", dict(identity)))

    def flush(self, timeout_s: float = LAST_STEPS_TIMEOUT_S) -> bool:
        """Wait until the store holds what was logged; False when that took longer than `timeout_s` seconds."""
        until = time.monotonic() + timeout_s
        with self._carried:
            while self._queue or self._spilled is not None:
                if time.monotonic() >= until or not self._worker.is_alive():
                    return False
                self._wake.set()
                self._carried.wait(min(max(until - time.monotonic(), 0.0), POLL_S))
        return True

    def close(self, *, failed: bool = False) -> None:
        """End the segment and the run, within bounded time; what the store does not take by then stays in the journal."""
        if self._is_outside or self._closing is not None:
            return
        atexit.unregister(self._close_at_exit)
        # A handler of a signal may call this in the middle of log(), whose thread holds the lock.
        if self._lock.acquire(timeout=LONGEST_HOLD_S):
            try:
                if self._journal is not None:
                    self._journal.append(("end", failed))
            finally:
                self._lock.release()
        self._closing = failed
        self._wake.set()
        if self._worker.is_alive():
            self._worker.join(LAST_STEPS_TIMEOUT_S)
        if self._worker.is_alive():
            where = (
                "in memory, and are lost when this process ends"
                if self._journal is None
                else f"in {self._journal.directory}, and whoever opens the store for writing next carries them over"
            )
            self._reporter.warn(
                f"the store at {self.store_url} has not taken the last steps of run {self.run.name!r} yet; they wait {where}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)

    @property
    def _is_full(self) -> bool:
        """Whether a step that comes now waits in the journal alone."""
        return self._spilled is not None or self._weight >= MOST_WAITING

    def _queue_step(self, step: int, logged: LoggedStep | Entry, place: JournalPlace | None, *, is_journaled: bool) -> None:
        """Put a step where the worker finds it; `place` is where its line stands in the journal, for a queue that is full."""
        if not self._is_full:
            self._queue.append(logged)
            self._weight += weigh(logged)
            if not is_journaled and self._is_prompt and self._journal is not None:
                self._unjournaled.add(step)
                self._note_at_risk(self._at_risk.add(step))
        elif not is_journaled:
            self._lose(step)
        elif self._spilled is None:
            self._spilled = place

    def _hand_over(self, entry: Entry) -> None:
        if self._is_outside or self._closing is not None:
            return
        with self._lock:
            place = None if self._journal is None else self._journal.place
            is_journaled = self._journal is not None and self._journal.append(entry)
            if not is_journaled or not self._is_full:
                self._queue.append(entry)
                self._weight += weigh(entry)
            elif self._spilled is None:
                self._spilled = place

    def _lose(self, step: int) -> None:
        self._loss = self._loss.add(step)
        if self._loss.n == 1:
            self._reporter.warn(
                f"step {step} is lost: neither the store nor a journal takes it. Steps that are lost are counted, and become a finding"
            )
        self._note_at_risk(self._at_risk.add(step))

    def _note_at_risk(self, at_risk: Loss) -> None:
        """Put down what is lost, and what would be if the process died now."""
        self._at_risk = at_risk
        if self._journal is not None:
            self._journal.note_at_risk(at_risk)

    def _work(self) -> None:
        while True:
            self._wake.wait(self._pause_s or POLL_S)
            self._fall_in_step()
            self._wake.clear()
            is_done = False
            # Whatever a reporter of somebody else's raises, the thread that stores the steps lives.
            with contextlib.suppress(Exception):
                is_done = self._try_to_carry()
            with self._carried:
                self._carried.notify_all()
            if is_done and self._closing is not None:
                return

    def _try_to_carry(self) -> bool:
        try:
            with self._carrying:
                is_done = self._carry()
        except UNREACHABLE as error:
            self._stay_away(error)
        except Exception as error:
            self._pause_s = LONGEST_PAUSE_S
            self._reporter.note("storing", error)
        else:
            self._come_back()
            return is_done
        return False

    def _fall_in_step(self) -> None:
        """Begin just behind a step: Python runs one thread at a time, and so the work is over before the next step is logged."""
        last, until = self._last_step, time.monotonic() + LONGEST_HOLD_S
        while self._queue and self._last_step == last and not self._wake.is_set() and time.monotonic() < until:
            time.sleep(0.001)

    def _stay_away(self, error: Exception) -> None:
        if isinstance(error, RunNotFound):
            self._begun = None
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s or POLL_S)
        if not self._is_away:
            self._is_away = True
            where = "in memory" if self._journal is None else f"in {self._journal.directory}"
            self._reporter.warn(f"the store does not take steps; they wait {where} and training goes on. {error}")

    def _come_back(self) -> None:
        self._pause_s = 0.0
        if self._is_away:
            n, self._n_away, self._is_away = self._n_away, 0, False
            self._reporter.warn(f"the store takes steps again; {n} that had waited were carried over")

    def _carry(self) -> bool:
        """Store what waits; True when nothing does any more."""
        store, begun = self._reach_store()
        if not self._is_settled:
            self._settle_engine(store, begun)
            self._is_settled = True
        while self._queue or self._spilled is not None:
            if self._queue:
                n = self._carry_batch(store, begun, list(islice(self._queue, BATCH)))
                with self._lock:
                    self._weight -= sum(weigh(self._queue.popleft()) for _ in range(n))
            else:
                self._carry_spilled(store, begun)
            self._renew_lease(store, begun)
        if store.replayed:
            keep_replayed_findings(store)
        self._keep_findings(store)
        self._report_loss(store, begun)
        self._alerts.note_deliveries(store)
        self._renew_lease(store, begun)
        if self._journal is not None and self._journal.is_displaced():
            self._reporter.warn(f"the journal in {self._journal.directory} was taken away during the training; it is made anew")
            with self._lock:
                self._journal.reopen()
        with self._lock:
            is_done = not self._queue and self._spilled is None
            # The line that says how the run ended stays until its end is stored.
            if is_done and self._journal is not None and self._closing is None:
                self._journal.trim()
        if is_done and self._closing is not None:
            self._end(store, begun, failed=self._closing)
        return is_done

    def _reach_store(self) -> tuple[Store, Begun]:
        if self._store is not None and self._store.is_displaced():
            self._reporter.warn(
                f"the store at {self.store_url} was taken away during the training; it is made anew, without the steps that went with it"
            )
            self._store.close()
            self._store, self._begun = None, None
        if self._begun is None:
            self.begin()
        assert self._store is not None
        assert self._begun is not None
        return self._store, self._begun

    def _renew_lease(self, store: Store, begun: Begun) -> None:
        if time.monotonic() < self._next_heartbeat:
            return
        now = datetime.now(UTC)
        if not store.runs.renew_lease(self.run.id, begun.segment, now=now, until=now + timedelta(seconds=LEASE_S)):
            raise RunNotFound(f"run {self.run.name!r} was taken out of the store while it is being recorded; it is begun anew")
        self._next_heartbeat = time.monotonic() + HEARTBEAT_S

    def _carry_batch(self, store: Store, begun: Begun, items: Sequence[LoggedStep | Entry]) -> int:
        """Store the steps that a batch begins with, or its first entry; gives how many items that was."""
        steps: list[LoggedStep] = []
        refused: list[tuple[int, Exception]] = []
        for item in items:
            if isinstance(item, LoggedStep):
                steps.append(item)
            elif item[0] in STEPS:
                try:
                    steps.append(decode_step(item, segment=begun.segment, series={**self.run.series, **self._spilled_series}))
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
        for step, reason in refused:
            self._reporter.note("storing", reason)
            with self._lock:
                self._lose(step)
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
            self._settle_engine(store, begun)
        elif entry[0] == "identity":
            self._observe_segment(store, begun)

    def _store_steps(self, store: Store, begun: Begun, steps: Sequence[LoggedStep]) -> None:
        placed = [_place(one, begun.segment) for one in steps]
        if not self.has_brake:
            for one in placed:
                self._observe(one.record)
        findings = tuple(self._findings.values())
        refused = store_steps(
            store, self.run.id, placed, findings=findings, on_refused=lambda error, _: self._reporter.note("storing", error)
        )
        with self._lock:
            for step in refused:
                self._lose(step)
        self._n_away += len(steps) if self._is_away else 0
        self._send(store, findings)
        if self._unjournaled:
            with self._lock:
                self._unjournaled.difference_update(one.record.step for one in steps)
                self._note_at_risk(functools.reduce(Loss.add, self._unjournaled, self._loss))

    def _carry_spilled(self, store: Store, begun: Begun) -> None:
        """Store the next steps that are in the journal alone."""
        assert self._journal is not None
        assert self._spilled is not None
        entries, place = self._journal.read_from(self._spilled, BATCH)
        if not entries:
            with self._lock:
                is_at_end = self._journal.is_at_end(place)
                self._spilled = None if is_at_end else place
            if is_at_end:
                self._spilled_series.clear()
            return
        items: list[LoggedStep | Entry] = []
        for entry in entries:
            if entry[0] == "series":
                self._spilled_series |= decode_series(entry)
            elif entry[0] != "end":
                items.append(entry)
        while items:
            n = self._carry_batch(store, begun, items)
            items = items[n:]
        self._spilled = place

    def _report_loss(self, store: Store, begun: Begun) -> None:
        with self._lock:
            loss = self._loss
        if loss == self._reported:
            return
        store.runs.set_loss(
            self.run.id, begun.segment, n_lost=loss.n, first_step=loss.first_step, last_step=loss.last_step, reason=LOSS_REASON
        )
        self._reported = loss
        self._observe_segment(store, begun)
        self._keep_findings(store)

    def _observe_segment(self, store: Store, begun: Begun) -> None:
        """Audit what is known of the segment besides its steps."""
        segment = store.runs.segments(self.run.id)[begun.segment]
        with self._engine_lock:
            if self._engine is not None:
                self._keep(self._engine.observe_segment(segment))

    def _end(self, store: Store, begun: Begun, *, failed: bool) -> None:
        self._alerts.wait(LAST_ALERTS_TIMEOUT_S)
        self._alerts.note_deliveries(store)
        # Tried again as a whole where the store fails in between.
        with store.together():
            self._note_audit(store)
            end_session(store, begun, failed=failed, at=datetime.now(UTC))
        if self._journal is not None:
            self._journal.remove()
        store.close()

    def _note_audit(self, store: Store) -> None:
        """Put into the ledger by which policy the segment was audited, with what came of it."""
        try:
            with self._engine_lock:
                audit = None if self._engine is None else self._engine.conclude()
        except Exception as error:
            # A run must end, whatever its audit does.
            self._reporter.note("auditing", error)
            return
        if audit is not None:
            note_audit(store, audit)

    def _close_at_exit(self) -> None:
        """The interpreter ends and nobody closed the run: it failed where an exception ended the program, or where it had to be closed."""
        self.close(failed=self._must_be_closed or getattr(sys, "last_value", None) is not None)

    def keep_out(self) -> bool:
        """Keep the worker out of the store, for a fork; False where it did not come out in time."""
        return self._carrying.acquire(timeout=LONGEST_HOLD_S)

    def let_in(self) -> None:
        """After `keep_out`."""
        self._carrying.release()

    def step_outside(self) -> None:
        """For the child of a fork: this process records nothing, and holds nothing of what its parent records with."""
        self._is_outside = True
        if self._journal is not None:
            self._journal.abandon()

    def _observe(self, record: StepRecord) -> tuple[Finding, ...]:
        if not self._engine_lock.acquire(timeout=LONGEST_HOLD_S):
            self._missed.append(record)
            return ()
        try:
            missed, self._missed = self._missed, []
            return tuple(finding for one in (*missed, record) for finding in self._judge(one))
        except Exception as error:
            self._reporter.note("auditing", error)
            return ()
        finally:
            self._engine_lock.release()

    def _judge(self, record: StepRecord) -> tuple[Finding, ...]:
        """For a holder of the engine's lock."""
        if self._n_unsettled:
            self._unsettled.append(record)
            del self._unsettled[:-MOST_WAITING]
        if self._engine is None:
            self._engine = AuditEngine(self.run, policy=self._policy, budgets=self.budgets)
        return self._keep(self._engine.observe(record))

    def _keep(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        kept = {finding.id: finding for finding in findings}
        self._findings |= kept
        return tuple(kept.values())

    def _keep_findings(self, store: Store) -> None:
        """Store what the audit said since the last batch."""
        findings = tuple(self._findings.values())
        if not findings:
            return
        store.findings.upsert(self.run.id, findings)
        self._send(store, findings)

    def _send(self, store: Store, findings: Iterable[Finding]) -> None:
        """Tell of findings that are stored now, unless they were revised meanwhile."""
        for finding in findings:
            with self._engine_lock:
                if self._findings.get(finding.id) is finding:
                    del self._findings[finding.id]
            self._alerts.send(store, finding, run_name=self.run.name)

    def _settle_engine(self, store: Store, begun: Begun) -> None:
        """Give the audit an engine that has seen what is stored, so that a run is audited as a whole; nobody is told again of what is on record."""
        engine = AuditEngine(self.run, policy=self._policy, budgets=self.budgets)
        for segment in store.runs.segments(self.run.id):
            engine.observe_segment(segment)
        for earlier in store.steps.iterate(self.run.id):
            engine.observe(earlier)
        told = {finding.id for finding in store.findings.list(self.run.id)}
        self._alerts.skip(finding for finding in engine.findings if finding.id in told)
        with self._engine_lock:
            # A trainer that was killed may not have lived to store what its last steps said.
            self._keep(finding for finding in engine.findings if finding.id not in told)
            for record in self._unsettled:
                self._keep(engine.observe(replace(record, segment=begun.segment)))
            self._n_unsettled = max(0, self._n_unsettled - 1)
            if not self._n_unsettled:
                self._unsettled.clear()
            self._engine = engine


RECORDERS: weakref.WeakSet[RunRecorder] = weakref.WeakSet()
"""Those of this process."""


_held: list[RunRecorder] = []
"""Those whose worker is kept out of the store by a fork that is under way."""


def _before_fork() -> None:
    """A process that is forked while a thread of it is inside SQLite leaves its child with locks that nobody gives back."""
    _held.extend(recorder for recorder in list(RECORDERS) if recorder.keep_out())


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().let_in()


def _after_fork_in_child() -> None:
    _held.clear()
    for recorder in list(RECORDERS):
        recorder.step_outside()
    RECORDERS.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def weigh(item: LoggedStep | Entry) -> int:
    """What an item takes of the memory that steps may wait in, in steps without texts."""
    if not isinstance(item, LoggedStep) or not item.samples:
        return 1
    return 1 + sum(len(sample.tokens) for sample in item.samples) // TOKENS_A_STEP


def has_brake(budgets: Sequence[KLBudget]) -> bool:
    """Whether one of some budgets asks for more than an alert."""
    return any(budget.action != "alert" for budget in budgets)


def _place(logged: LoggedStep, segment: int) -> LoggedStep:
    """The step in the segment that the store gave; its texts too, since who samples does not know it."""
    record = logged.record if logged.record.segment == segment else replace(logged.record, segment=segment)
    samples = tuple(one if one.segment == segment else replace(one, segment=segment) for one in logged.samples)
    return LoggedStep(record, samples)


def start_recording(
    url: str,
    *,
    run: Run,
    resumed_from_step: int | None = None,
    resume: Resume = "auto",
    in_use: InUse = "refuse",
    budgets: Sequence[KLBudget] = (),
    policy: Policy,
    channels: Sequence[Channel] = (),
    durability: Durability = "step",
    journals: Sequence[str | Path] = (),
    controller: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
    actor: str | None = None,
    must_be_closed: bool = False,
) -> RunRecorder:
    """Begin to record a run, or the next segment of one. A store that does not answer now is no hindrance where there is a journal.

    Args:
        url: of the store; made when it is not there.
        run: what is known of it; its `id` is given here.
        resumed_from_step: the step that the trainer goes on from; None or 0 for a fresh start.
        resume: whether it goes on with its run.
        in_use: what to do when a live process writes that run.
        budgets: set in code for this run; those in the store that cover the run are added. A resume adds what it brings and takes nothing
            back: a limit ends when a person removes it.
        policy: of the live audit.
        channels: that alerts go to.
        durability: what survives the death of the process.
        journals: directories for the journal, best first; default: beside an SQLite file, in the user's state directory for another store.
        controller: state of the beta controller, as JSON.
        reporter: is told what goes wrong.
        actor: name of the person behind the process, for the ledger.
        must_be_closed: whether a run that nobody closed before the interpreter ends has failed, as with trainers that tell of their end.

    Raises:
        InvalidConfig: not the URL of a store.
        RunInUse: a live process writes that run.
        RunNotFound: `resume="must"` and there is no such run.
        StoreError: neither the store nor a journal can be written.
    """
    reporter = reporter or Silence()
    directories = list_journal_directories(url, journals)
    session = Session(
        id=uuid.uuid4().hex,
        run=replace(run, id=uuid.uuid4().hex[:12]),
        started_at=datetime.now(UTC),
        host=socket.gethostname(),
        pid=os.getpid(),
        process_started=describe_process_start(os.getpid()),
        resumed_from_step=resumed_from_step or None,
        resume=resume,
        in_use=in_use,
        budgets=tuple(budgets),
        controller=controller,
        audit_policy=describe_policy(policy),
        journals=tuple(map(str, directories)),
    )
    journal = _open_journal(directories, session, reporter, usual=list_journal_directories(url))
    recorder = RunRecorder(
        url,
        session=session,
        journal=journal,
        policy=policy,
        channels=channels,
        reporter=reporter,
        actor=actor,
        is_prompt=durability == "step",
        must_be_closed=must_be_closed,
    )
    try:
        recorder.begin()
    except StoreError as error:
        if (
            journal is None
            or isinstance(error, RunInUse)
            or (in_use == "refuse" and isinstance(error, (NotAStore, SchemaTooOld, SchemaTooNew)))
        ):
            _give_up(recorder, journal)
            raise
        reporter.warn(f"the store cannot be used yet, and steps wait in {journal.directory}: {error}")
        recorder.stay_away()
    except BaseException:
        _give_up(recorder, journal)
        raise
    recorder.start()
    return recorder


def _open_journal(directories: Sequence[Path], session: Session, reporter: Reporter, *, usual: Sequence[Path]) -> Journal | None:
    if not directories:
        return None
    try:
        return Journal(directories, session, usual=usual)
    except JournalUnwritable as error:
        reporter.warn(f"steps wait in memory alone, and those of the last {POLL_S:g} s are lost when the process is killed: {error}")
        return None


def _give_up(recorder: RunRecorder, journal: Journal | None) -> None:
    recorder.leave_store()
    if journal is not None:
        journal.remove()
