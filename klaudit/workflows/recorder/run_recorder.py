"""What a trainer holds of its recording: it hands over steps and whatever else there is to tell, and closes."""

import atexit
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from klaudit.alerts import Channel
from klaudit.audit import Policy
from klaudit.errors import InvalidRecord
from klaudit.ledger.bodies import describe_stop
from klaudit.records import PRIMARY, Finding, KLBudget, KLSeries, LoggedStep, Run, StepRecord, TextSample
from klaudit.records.session import Session
from klaudit.records.step import require_step
from klaudit.store.journal.entry import Entry, encode_numbers, encode_series
from klaudit.store.journal.writer import Journal
from klaudit.workflows.recorder.carrier import Carrier
from klaudit.workflows.recorder.fork import RECORDERS
from klaudit.workflows.recorder.live_audit import LiveAudit
from klaudit.workflows.recorder.queue import StepQueue
from klaudit.workflows.recorder.reporter import Reporter
from klaudit.workflows.recorder.worker import Worker

LAST_STEPS_TIMEOUT_S = 10.0
"""How long the end of a run waits for the store, in seconds; what is not stored by then stays in the journal."""


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
        self._queue = StepQueue(journal, is_prompt=is_prompt, reporter=reporter)
        self._audit = LiveAudit(session.run, budgets=session.budgets, policy=policy, reporter=reporter)
        self._carrier = Carrier(
            url, session=session, queue=self._queue, audit=self._audit, channels=channels, reporter=reporter, actor=actor
        )
        self._worker = Worker(self._carrier, self._queue, reporter=reporter)
        self._reporter = reporter
        self._must_be_closed = must_be_closed
        self._is_outside = False
        self._is_closed = False

    @property
    def run(self) -> Run:
        """As it is known now: the store may name it otherwise."""
        return self._carrier.run

    @property
    def segment(self) -> int:
        """That is written, as far as the store was reached."""
        return self._carrier.segment

    @property
    def budgets(self) -> tuple[KLBudget, ...]:
        """Of the run, with those that the store has for it."""
        return self._carrier.budgets

    @property
    def has_brake(self) -> bool:
        """Whether a budget asks for more than an alert; then each step is audited before `log()` returns."""
        return self._carrier.has_brake

    @property
    def store_url(self) -> str:
        """Of the store, without its password."""
        return self._carrier.url

    @property
    def n_lost(self) -> int:
        """Steps whose `log()` returned and that are nowhere."""
        return self._queue.loss.n

    @property
    def journal_directory(self) -> Path | None:
        """Where steps wait for the store; None: in memory alone."""
        return self._queue.directory

    def begin(self) -> None:
        """Reach the store and begin the run there, or its next segment.

        Raises:
            RunInUse: a live process writes the run that would be gone on with.
            RunNotFound: there is no run to go on with, and there must be.
            StoreError: the store cannot be used now; it is tried again with the steps.
        """
        self._carrier.begin()

    def give_up(self) -> None:
        """Leave nothing behind of a recording that was not started."""
        self._carrier.leave_store()
        self._queue.remove()

    def stay_away(self) -> None:
        """The store was not reached, and a person knows it."""
        self._worker.stay_away()

    def start(self) -> None:
        """Start to carry steps over."""
        RECORDERS.add(self)
        atexit.register(self._close_at_exit)
        self._worker.start()

    def declare_series(self, series: dict[str, KLSeries], *, framework: str | None = None, algorithm: str | None = None) -> None:
        """Say what the run's KLs are, best before the first step, and what trainer they come from."""
        changed = self._carrier.declare_series(series, framework=framework, algorithm=algorithm)
        self._audit.follow(self.run, anew=changed)
        self._hand_over(("declared", encode_series(series)[1], framework, algorithm, changed))

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
        self._queue.put_step(logged)
        return self._audit.observe(step) if self._carrier.has_brake else ()

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
        run = self._carrier.run
        entry = encode_numbers(step, kl=kl, n_sequences=run.batch_size, beta=beta, score=score, metrics=metrics)
        self._queue.put_numbers(entry, run.series[PRIMARY])

    def add_checkpoint(self, *, step: int, path: str, digest: str | None = None) -> None:
        """Note that the policy was saved."""
        self._hand_over(("checkpoint", step, path, datetime.now(UTC).isoformat(), digest))

    def set_identity(self, identity: Mapping[str, Any]) -> None:
        """Put down what policy, reference, tokenizer and code are, as JSON."""
        self._hand_over(("identity", dict(identity)))

    def note_stop(self, finding: Finding) -> None:
        """Put down that the training is ended here, because the budget of a finding asks for it."""
        self._hand_over(("stopped", describe_stop(finding)))

    def flush(self, timeout_s: float = LAST_STEPS_TIMEOUT_S) -> bool:
        """Wait until the store holds what was logged; False when that took longer than `timeout_s` seconds."""
        return self._worker.flush(timeout_s)

    def close(self, *, failed: bool = False) -> None:
        """End the segment and the run, within bounded time; what the store does not take by then stays in the journal."""
        if self._is_outside or self._is_closed:
            return
        atexit.unregister(self._close_at_exit)
        self._queue.put_end(failed=failed)
        self._is_closed = True
        if not self._worker.close(failed=failed, timeout_s=LAST_STEPS_TIMEOUT_S):
            where = (
                "in memory, and are lost when this process ends"
                if self.journal_directory is None
                else f"in {self.journal_directory}, and whoever opens the store for writing next carries them over"
            )
            self._reporter.warn(
                f"the store at {self.store_url} has not taken the last steps of run {self.run.name!r} yet; they wait {where}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)

    def keep_out(self) -> bool:
        """Keep the worker out of the store, for a fork; False where it did not come out in time."""
        return self._worker.keep_out()

    def let_in(self) -> None:
        """After `keep_out`."""
        self._worker.let_in()

    def step_outside(self) -> None:
        """For the child of a fork: this process records nothing, and holds nothing of what its parent records with."""
        self._is_outside = True
        self._queue.abandon()

    def _hand_over(self, entry: Entry) -> None:
        if not (self._is_outside or self._is_closed):
            self._queue.put_entry(entry)

    def _require_next(self, step: int) -> None:
        if self._is_outside:
            raise InvalidRecord(
                f"expected steps from the process that records run {self.run.name!r}; this one was forked from it, and its step is not recorded"
            )
        if self._is_closed:
            raise InvalidRecord(f"expected steps before the run is closed; got step {step} after it")
        last = self._queue.last_step
        if last is not None and step <= last:
            raise InvalidRecord(f"steps of a segment go up: expected one after {last}; got {step}, which is not recorded")

    def _require_declared(self, logged: LoggedStep) -> None:
        """Refuse now what the store would refuse when nobody listens any more."""
        record, series = logged.record, self._carrier.run.series
        for key, reading in ((PRIMARY, record.kl), *record.readings.items()):
            declared = series.get(key)
            if reading.series is not declared and declared is not None and reading.value is not None and reading.series != declared:
                raise InvalidRecord(
                    f"step {record.step}: expected the reading {key!r} to belong to the run's {declared}; it belongs to {reading.series}. "
                    "Log it under another key, or declare the series again"
                )
        for sample in logged.samples:
            if sample.step != record.step:
                raise InvalidRecord(f"expected text samples of step {record.step}; got one of step {sample.step}")

    def _close_at_exit(self) -> None:
        """The interpreter ends and nobody closed the run: it failed where an exception ended the program, or where it had to be closed."""
        self.close(failed=self._must_be_closed or getattr(sys, "last_value", None) is not None)
