"""KLA405 limit_loosened."""

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import Field

from klaudit.audit.budget_watch import BudgetLevel, BudgetWatch, CheckpointWatch, describe_budget, list_latest_drift
from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation, complete_reading
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.records import UNIT_LABELS, DriftMeasurement, Finding, KLBudget, LimitChange, Run, Severity
from klaudit.records.moment import format_moment

REMEDY = (
    "Have the budget's owner confirm the new limit in writing, with a reason that does not rest on the outcome; until then judge the run, and "
    "release its checkpoints, by the old one."
)


class LimitLoosenedParameters(RuleParameters):
    """Parameters of KLA405."""

    evidence_steps: int = Field(default=20, ge=1, le=1000, description="readings up to the change that are kept as evidence")


class WatchedChange:
    """A limit that was relaxed, held against the readings from before it was."""

    def __init__(self, change: LimitChange, *, run: Run, n_kept: int) -> None:
        self.change = change
        self.watch: BudgetWatch | CheckpointWatch = (
            CheckpointWatch(change.before) if change.before.scope == "checkpoint" else BudgetWatch(change.before, run=run, n_kept=n_kept)
        )
        self.is_judged = False
        self.breach: BudgetLevel | None = None
        """The first level that noise cannot explain, else the first over the limit."""
        self.last: BudgetLevel | None = None
        self.evidence: dict[str, Any] = {}

    @property
    def is_critical(self) -> bool:
        """Whether noise cannot explain the breach."""
        return self.breach is not None and _is_beyond_noise(self.breach, self.change.before)

    def observe(self, level: BudgetLevel | None) -> None:
        """Take in a level of the old budget."""
        if level is None:
            return
        limit = self.change.before.limit
        is_worse = _is_beyond_noise(level, self.change.before) and not self.is_critical
        if level.value > limit and (self.breach is None or is_worse):
            self.breach = level
            self.evidence = self.watch.evidence()
        self.last = level


class LimitLoosened(Rule[LimitLoosenedParameters]):
    """A limit was relaxed during or after its breach.

    What it checks:
        Each budget that was removed, and replaced by nothing or by one that is looser: a higher limit, a slower scope, acting on the bound
        in place of the value, a weaker action. The removed budget is held against the readings up to its removal, as KLA101 would have.

    Formula:
        warning: before its removal the old budget's value was over its limit. critical: so was its lower bound (see KLA101). A budget that
        was removed before any breach, or replaced by one that is no looser, is no finding.

    Why it matters:
        A limit that gives way when it is reached limits nothing, and what is left on record is a run within its budget.

    Parameters and where the defaults come from:
        A budget that is set up to an hour after the removal of another counts as its replacement (convention). evidence_steps 20 is the
        window of the change rules.

    What to do:
        Have the budget's owner confirm the new limit, with a reason that does not rest on the outcome; until then judge the run by the old one.

    Example finding:
        The limit of 2 nats/sequence, per step was replaced by 5 nats/sequence, per step while it was exceeded (at 2026-11-22T10:31:00Z, by Ada): KL to reference (full, nats/sequence) had been 2.41 nats/sequence at step 34.
    """

    code = "KLA405"
    name = "limit_loosened"
    version = 1
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = LimitLoosenedParameters

    def __init__(self, run: Run, *, parameters: LimitLoosenedParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.watched: dict[LimitChange, WatchedChange] = {}
        self._last: tuple[int, int] | None = None

    def reset(self) -> None:
        """See Rule: windows start again, paths go on."""
        for one in self.watched.values():
            if isinstance(one.watch, BudgetWatch):
                one.watch.begin_segment()

    def observe_limit_changes(self, changes: Iterable[LimitChange]) -> Iterator[Finding]:
        """See Rule: changes that are new are watched from here on, those that were watched are judged."""
        for change in changes:
            if change in self.watched:
                yield from self._judge(self.watched[change])
            else:
                self.watched[change] = WatchedChange(change, run=self.run, n_kept=self.parameters.evidence_steps)

    def observe(self, observation: Observation) -> Iterator[Finding]:
        """See Rule."""
        record = observation.record
        self._last = (record.segment, record.step)
        for one in self.watched.values():
            if one.is_judged or not isinstance(one.watch, BudgetWatch):
                continue
            if record.logged_at > one.change.changed_at:
                yield from self._judge(one)
                continue
            reading = None if one.watch.key is None else complete_reading(record, key=one.watch.key, run=self.run)
            if reading is not None:
                one.observe(one.watch.observe(reading, step=record.step))

    def observe_drift(self, measurements: Iterable[DriftMeasurement]) -> Iterator[Finding]:
        """See Rule: what had been measured when a checkpoint budget was relaxed."""
        listed = list(measurements)
        for one in self.watched.values():
            if isinstance(one.watch, CheckpointWatch) and not one.is_judged:
                known = [measurement for measurement in listed if measurement.measured_at <= one.change.changed_at]
                for measurement in list_latest_drift(known, run_id=self.run.id):
                    one.observe(one.watch.observe(measurement))
        yield from ()

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.watched:
            yield "no budget of this run is known to have been removed or relaxed"
        for change, one in self.watched.items():
            if one.watch.not_compared is not None:
                yield f"budget {change.before.label}, relaxed at {format_moment(change.changed_at)}: {one.watch.not_compared}"

    def _judge(self, one: WatchedChange) -> Iterator[Finding]:
        if one.is_judged or one.breach is None:
            return
        one.is_judged = True
        change, breach, budget = one.change, one.breach, one.change.before
        segment, step = self._last or (0, breach.step)
        last = one.last or breach
        when = "while it was exceeded" if last.value > budget.limit else "after it had been exceeded"
        judgement = Judgement(
            severity=Severity.CRITICAL if one.is_critical else Severity.WARNING,
            badness=breach.value,
            message=f"The limit of {budget.label} was {describe_change(change)} {when} (at {format_moment(change.changed_at)}, by "
            f"{change.by or 'somebody unknown'}): {breach.subject} had been {breach.value:.3g} {UNIT_LABELS[budget.unit]} at step {breach.step}.",
            remedy=REMEDY,
            value=breach.value,
            threshold=budget.limit,
            unit=budget.unit,
            first_step=min(breach.step, step),
            evidence={
                "changed_at": format_moment(change.changed_at),
                "by": change.by,
                "what": list(change.what),
                "before": describe_budget(budget),
                "after": None if change.after is None else describe_budget(change.after),
                "breach": {"step": breach.step, "value": breach.value, "lower_bound": breach.lower_bound},
                "last_before_change": {"step": last.step, "value": last.value, "lower_bound": last.lower_bound},
                **one.evidence,
            },
        )
        subject = f"{budget.id or budget.label}/{format_moment(change.changed_at)}"
        series = one.watch.key if isinstance(one.watch, BudgetWatch) else "drift"
        episode = self.start_episode(series=series, subject=subject, quiet_steps=1)
        finding = episode.observe_at(max(step, breach.step), judgement, segment=segment)
        self.episodes.remove(episode)
        if finding is not None:
            yield finding


def describe_change(change: LimitChange) -> str:
    """What was done to the limit, for people."""
    if change.after is None:
        return "removed and not replaced"
    looser = [
        text
        for name, text in (
            ("on", "acting once noise cannot explain a breach, and not at once"),
            ("action", f"with the action {change.after.action} in place of {change.before.action}"),
        )
        if name in change.what
    ]
    return " ".join([f"replaced by {change.after.label}", *([", ".join(looser)] if looser else [])])


def _is_beyond_noise(level: BudgetLevel, budget: KLBudget) -> bool:
    return level.lower_bound is not None and level.lower_bound > budget.limit
