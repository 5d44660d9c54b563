"""The audit engine: one step after another, live and afterwards the same."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, product
from typing import Any

from klaudit.audit.audit import SWITCHED_OFF, Audit, Coverage, SilentRule
from klaudit.audit.change_watch import ChangeWatch
from klaudit.audit.observation import Observation, observe_record
from klaudit.audit.policy import Policy
from klaudit.audit.presets import PRESETS
from klaudit.audit.rule import Rule
from klaudit.audit.rules import RULES
from klaudit.audit.spacing import count_gaps
from klaudit.records import PRIMARY, DriftMeasurement, DriftProfile, Finding, KLBudget, LimitChange, Run, Segment, StepRecord

BLOCK = 100
"""Stored steps that one rule takes before the next one does: what it works with stays in the processor's cache."""


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
        self._turns = group_rules(self._rules)
        self._findings: dict[str, Finding] = {}
        self._last: tuple[int, int] | None = None
        self._governing_key = run.governing_key
        self._changes = ChangeWatch(run, policy.detection)
        self._key = self._governing_key or PRIMARY
        self._n_steps = 0
        self._n_measured = 0
        self._n_non_finite = 0
        self._intervals: Counter[int] = Counter()

    def observe(self, record: StepRecord) -> tuple[Finding, ...]:
        """Judge the next step. One that does not come after the last one by (segment, step) is left out: not judged, not counted.

        Returns:
            The findings that are new or changed by it; none for a step that is left out.
        """
        return self.observe_all((record,))

    def observe_all(self, records: Iterable[StepRecord]) -> tuple[Finding, ...]:
        """Judge the next steps, as `observe` does one after another; faster, because each rule takes all of them in turn.

        Returns:
            The findings that are new or changed by them.
        """
        changed: list[Finding] = []
        observations: list[Observation] = []
        for record in records:
            place = (record.segment, record.step)
            if self._last is not None and place <= self._last:
                continue
            if self._last is not None and self._last[0] != record.segment:
                changed += self._judge(observations)
                observations.clear()
                changed += (finding for rule in self._rules for finding in rule.begin_segment())
                self._changes.begin_segment()
            elif self._last is not None:
                self._intervals[record.step - self._last[1]] += 1
            self._last = place
            observation = observe_record(record, run=self.run, governing_key=self._governing_key, changes=self._changes)
            self._count(observation)
            observations.append(observation)
        changed += self._judge(observations)
        return self._keep(changed) if changed else ()

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

    def observe_profiles(self, profiles: Iterable[DriftProfile]) -> tuple[Finding, ...]:
        """Judge what was measured of the run's checkpoints beside their KL: all of it, once.

        Returns:
            The findings that are new or changed by it.
        """
        listed = list(profiles)
        return self._keep(finding for rule in self._rules for finding in rule.observe_profiles(listed))

    def observe_limit_changes(self, changes: Iterable[LimitChange]) -> tuple[Finding, ...]:
        """Judge what was done to the run's limits.

        Called with all that is known before the steps, so that what was removed is still held against them, and again after the last of
        them, to judge what was changed since.

        Returns:
            The findings that are new or changed by it.
        """
        listed = list(changes)
        return self._keep(finding for rule in self._rules for finding in rule.observe_limit_changes(listed))

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

    def _judge(self, observations: Sequence[Observation]) -> list[Finding]:
        changed: list[Finding] = []
        names: set[str] = set()
        for observation in observations:
            names.update(observation.record.metrics)
        for rules in self._turns:
            needs = rules[0].needs
            if needs is not None and needs.isdisjoint(names):
                continue
            for observation, rule in product(observations, rules):
                changed += rule.observe(observation)
        return changed

    def _keep(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        kept: dict[str, Finding] = {}
        for finding in findings:
            severity = self.policy.rules[finding.code].severity
            kept[finding.id] = finding if severity is None else replace(finding, severity=severity)
        self._findings |= kept
        return tuple(kept.values())

    def _count(self, observation: Observation) -> None:
        reading = observation.record.reading(self._key)
        self._n_steps += 1
        self._n_measured += reading is not None and reading.is_finite
        self._n_non_finite += bool(observation.non_finite)

    def _list_silent_rules(self) -> Iterator[SilentRule]:
        running = {rule.code: rule for rule in self._rules}
        for one in RULES:
            rule = running.get(one.code)
            reasons = [SWITCHED_OFF] if rule is None else rule.explain_silence()
            yield from (SilentRule(code=one.code, why=why) for why in reasons)


def audit_run(
    run: Run,
    steps: Iterable[StepRecord],
    *,
    policy: Policy = PRESETS["default"],
    budgets: Sequence[KLBudget] = (),
    segments: Iterable[Segment] = (),
    drift_measurements: Iterable[DriftMeasurement] = (),
    drift_profiles: Iterable[DriftProfile] = (),
    limit_changes: Sequence[LimitChange] = (),
) -> Audit:
    """Audit stored steps with the engine that runs live.

    The outcome is that of a live engine which saw the same steps in the same order. Stored steps come sorted, so a step that was
    logged out of order, which a live engine leaves out, is judged here: the two agree only where steps were logged in order.

    Args:
        steps: ordered by (segment, step), each once; one that does not come after the one before it is left out.
        segments: of the run, in order.
        drift_measurements: of the run's checkpoints; those of other runs are left out.
        drift_profiles: likewise.
        limit_changes: of the budgets that cover or covered the run.
    """
    engine = AuditEngine(run, policy, budgets)
    engine.observe_limit_changes(limit_changes)
    for segment in segments:
        engine.observe_segment(segment)
    remaining = iter(steps)
    while block := list(islice(remaining, BLOCK)):
        engine.observe_all(block)
    engine.observe_drift(drift_measurements)
    engine.observe_profiles(drift_profiles)
    engine.observe_limit_changes(limit_changes)
    return engine.conclude()


def group_rules(rules: Iterable[Rule[Any]]) -> list[list[Rule[Any]]]:
    """The rules in turns: those that share what they work out take a step together."""
    turns: list[list[Rule[Any]]] = []
    for rule in rules:
        turn = next((one for one in turns if rule.shares_with(one[0])), None)
        if turn is None:
            turns.append([rule])
        else:
            turn.append(rule)
    return turns


def _build_rule(rule: type[Rule[Any]], *, run: Run, policy: Policy, budgets: Sequence[KLBudget]) -> Rule[Any] | None:
    settings = policy.rules.get(rule.code)
    if settings is None or not settings.enabled:
        return None
    return rule(run, parameters=settings.parameters, budgets=budgets)
