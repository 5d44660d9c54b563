"""The audit of a run while it is being trained."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace

from klaudit.audit import Audit, AuditEngine, Policy
from klaudit.records import Finding, KLBudget, Run, Segment, StepRecord
from klaudit.store import Store
from klaudit.workflows.recorder.reporter import Reporter

LONGEST_HOLD_S = 0.05
"""How long a step waits for the audit of another at most, in seconds; it is looked at with the next one then."""
MOST_UNSETTLED = 10_000
"""Steps that are remembered for an engine that has seen what is stored."""


class LiveAudit:
    """Audits steps as they come, and keeps what it finds until that is stored. Several threads may share it.

    Args:
        run: that is audited.
        budgets: of the run.
        policy: to judge by.
        reporter: is told where an audit fails.
    """

    def __init__(self, run: Run, *, budgets: Sequence[KLBudget], policy: Policy, reporter: Reporter) -> None:
        self.lock = threading.Lock()
        """Held while the engine looks at something."""
        self._run = run
        self._budgets = budgets
        self._policy = policy
        self._reporter = reporter
        self._engine: AuditEngine | None = None
        # The engine has not seen what is stored: until the store is reached, and from a declaration of series until that is stored.
        self._n_unsettled = 1
        self._unsettled: list[StepRecord] = []
        self._missed: list[StepRecord] = []
        self._findings: dict[str, Finding] = {}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found or revised and is not stored yet."""
        return tuple(self._findings.values())

    def observe(self, record: StepRecord) -> tuple[Finding, ...]:
        """Look at the next step; gives the findings that it made or revised."""
        if not self.lock.acquire(timeout=LONGEST_HOLD_S):
            self._missed.append(record)
            return ()
        try:
            missed, self._missed = self._missed, []
            return tuple(finding for one in (*missed, record) for finding in self._judge(one))
        except Exception as error:
            self._reporter.note("auditing", error)
            return ()
        finally:
            self.lock.release()

    def observe_segment(self, segment: Segment) -> None:
        """Look at what is known of a segment besides its steps."""
        with self.lock:
            if self._engine is not None:
                self._keep(self._engine.observe_segment(segment))

    def follow(self, run: Run, *, anew: bool) -> None:
        """More was declared of the run; anew where its series are others now, since rules look at the governing one."""
        with self.lock:
            self._run = run
            if anew:
                self._engine = None
                self._n_unsettled += 1

    def settle(self, store: Store, run: Run, *, budgets: Sequence[KLBudget], segment: int) -> tuple[Finding, ...]:
        """Take an engine that has seen what is stored, so that a run is audited as a whole.

        Args:
            store: that holds the run.
            run: as the store has it.
            budgets: likewise.
            segment: that is written now.

        Returns:
            What is on record already, so that nobody is told of it again.
        """
        engine = AuditEngine(run, policy=self._policy, budgets=budgets)
        for one in store.runs.segments(run.id):
            engine.observe_segment(one)
        for earlier in store.steps.iterate(run.id):
            engine.observe(earlier)
        told = {finding.id for finding in store.findings.list(run.id)}
        on_record = tuple(finding for finding in engine.findings if finding.id in told)
        with self.lock:
            self._run, self._budgets = run, budgets
            # A trainer that was killed may not have lived to store what its last steps said.
            self._keep(finding for finding in engine.findings if finding.id not in told)
            for record in self._unsettled:
                self._keep(engine.observe(replace(record, segment=segment)))
            self._n_unsettled = max(0, self._n_unsettled - 1)
            if not self._n_unsettled:
                self._unsettled.clear()
            self._engine = engine
        return on_record

    def conclude(self) -> Audit | None:
        """The whole audit; None where nothing was audited, or the audit fails, which is told."""
        try:
            with self.lock:
                return None if self._engine is None else self._engine.conclude()
        except Exception as error:
            # A run must end, whatever its audit does.
            self._reporter.note("auditing", error)
            return None

    def drop(self, finding: Finding) -> None:
        """A finding is stored; it is kept where it was revised meanwhile."""
        with self.lock:
            if self._findings.get(finding.id) is finding:
                del self._findings[finding.id]

    def _judge(self, record: StepRecord) -> tuple[Finding, ...]:
        """For a holder of the lock."""
        if self._n_unsettled:
            self._unsettled.append(record)
            del self._unsettled[:-MOST_UNSETTLED]
        if self._engine is None:
            self._engine = AuditEngine(self._run, policy=self._policy, budgets=self._budgets)
        return self._keep(self._engine.observe(record))

    def _keep(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        kept = {finding.id: finding for finding in findings}
        self._findings |= kept
        return tuple(kept.values())
