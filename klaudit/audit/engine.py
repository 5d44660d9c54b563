"""The audit engine: one step after another, live and afterwards the same."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from klaudit.audit.audit import Audit, Coverage, SilentRule
from klaudit.audit.policy import PRESETS, Policy
from klaudit.audit.rule import Rule
from klaudit.audit.rules import RULES
from klaudit.audit.rules.non_finite import list_non_finite
from klaudit.records import PRIMARY, DriftMeasurement, Finding, KLBudget, Run, Segment, StepRecord


class AuditEngine:
    """Judges a run step by step; after n steps it stands where `audit_run` over these n steps stands.

    Segments are audited one by one: with a new segment every episode ends and every state starts again, except the sum of a path budget,
    which goes on because it counts from the start of the run, steps that a resume took back included.
    A trainer that resumes gives the engine the stored steps first.
    """

    def __init__(self, run: Run, policy: Policy = PRESETS["default"], budgets: Sequence[KLBudget] = ()) -> None:
        self.run = run
        self.policy = policy
        covering = tuple(budget for budget in budgets if budget.covers(run.id, run.name))
        self._rules = [rule for rule in (_build_rule(one, run=run, policy=policy, budgets=covering) for one in RULES) if rule is not None]
        self._findings: dict[str, Finding] = {}
        self._last: tuple[int, int] | None = None
        self._key = run.governing_key or PRIMARY
        self._n_steps = 0
        self._n_measured = 0
        self._n_non_finite = 0
        self._intervals: Counter[int] = Counter()

    def observe(self, record: StepRecord) -> tuple[Finding, ...]:
        """Judge the next step. One that does not come after the last one by (segment, step) is left out: not judged, not counted.

        Returns:
            The findings that are new or changed by it; none for a step that is left out.
        """
        place = (record.segment, record.step)
        if self._last is not None and place <= self._last:
            return ()
        changed: list[Finding] = []
        if self._last is not None and self._last[0] != record.segment:
            changed += (finding for rule in self._rules for finding in rule.begin_segment())
        elif self._last is not None:
            self._intervals[record.step - self._last[1]] += 1
        self._last = place
        self._count(record)
        changed += (finding for rule in self._rules for finding in rule.observe(record))
        return self._keep(changed)

    def observe_segment(self, segment: Segment) -> tuple[Finding, ...]:
        """Judge what is known of a stretch of the run besides its steps; called in the order of the segments, and again when more is known.

        Returns:
            The findings that are new or changed by it.
        """
        return self._keep(finding for rule in self._rules for finding in rule.observe_segment(segment))

    def observe_drift(self, measurements: Iterable[DriftMeasurement]) -> tuple[Finding, ...]:
        """Judge what was measured on the run's checkpoints: all of it, once.

        Returns:
            The findings that are new or changed by it.
        """
        listed = list(measurements)
        return self._keep(finding for rule in self._rules for finding in rule.observe_drift(listed))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings so far, sorted by first_step, code, id."""
        return tuple(sorted(self._findings.values(), key=lambda finding: (finding.first_step, finding.code, finding.id)))

    @property
    def coverage(self) -> Coverage:
        """What the engine could see so far."""
        return Coverage(
            steps=self._n_steps,
            kl_measured=self._n_measured,
            gaps=count_gaps(self._intervals),
            non_finite=self._n_non_finite,
            rules_not_run=tuple(self._list_silent_rules()),
        )

    def conclude(self) -> Audit:
        """The audit of what was seen so far; the engine may go on."""
        return Audit(run=self.run, policy=self.policy, governing_key=self.run.governing_key, coverage=self.coverage, findings=self.findings)

    def _keep(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        kept: dict[str, Finding] = {}
        for finding in findings:
            severity = self.policy.rules[finding.code].severity
            kept[finding.id] = finding if severity is None else replace(finding, severity=severity)
        self._findings |= kept
        return tuple(kept.values())

    def _count(self, record: StepRecord) -> None:
        reading = record.reading(self._key)
        self._n_steps += 1
        self._n_measured += reading is not None and reading.is_finite
        self._n_non_finite += bool(list_non_finite(record))

    def _list_silent_rules(self) -> Iterator[SilentRule]:
        running = {rule.code: rule for rule in self._rules}
        for one in RULES:
            rule = running.get(one.code)
            reasons = ["switched off by the policy"] if rule is None else rule.explain_silence()
            yield from (SilentRule(code=one.code, why=why) for why in reasons)


def audit_run(
    run: Run,
    steps: Iterable[StepRecord],
    *,
    policy: Policy = PRESETS["default"],
    budgets: Sequence[KLBudget] = (),
    segments: Iterable[Segment] = (),
    drift_measurements: Iterable[DriftMeasurement] = (),
) -> Audit:
    """Audit stored steps with the engine that runs live.

    The outcome is that of a live engine which saw the same steps in the same order. Stored steps come sorted, so a step that was
    logged out of order, which a live engine leaves out, is judged here: the two agree only where steps were logged in order.

    Args:
        steps: ordered by (segment, step), each once; one that does not come after the one before it is left out.
        segments: of the run, in order.
        drift_measurements: of the run's checkpoints; those of other runs are left out.
    """
    engine = AuditEngine(run, policy, budgets)
    for segment in segments:
        engine.observe_segment(segment)
    for record in steps:
        engine.observe(record)
    engine.observe_drift(drift_measurements)
    return engine.conclude()


def count_gaps(intervals: Counter[int]) -> int:
    """Steps that are missing, where the most common distance between two records (the smaller, at a tie) is the logging interval."""
    if not intervals:
        return 0
    interval = min(intervals, key=lambda distance: (-intervals[distance], distance))
    return sum(n * (distance // interval - 1) for distance, n in intervals.items() if distance > interval)


def _build_rule(rule: type[Rule[Any]], *, run: Run, policy: Policy, budgets: Sequence[KLBudget]) -> Rule[Any] | None:
    settings = policy.rules.get(rule.code)
    if settings is None or not settings.enabled:
        return None
    return rule(run, parameters=settings.parameters, budgets=budgets)
