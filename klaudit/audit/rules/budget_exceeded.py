"""KLA101 budget_exceeded."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import Field

from klaudit.audit.budget_watch import BudgetLevel, BudgetWatch, CheckpointWatch, describe_budget, list_latest_drift
from klaudit.audit.episode import Episode, Judgement
from klaudit.audit.observation import Observation, complete_reading
from klaudit.audit.rule import NOTHING, Rule, RuleParameters
from klaudit.records import UNIT_LABELS, DriftMeasurement, Finding, KLBudget, Run, Severity

REMEDIES = {
    "per_step": "Raise beta or lower the learning rate; if the sampled texts have degenerated, go back to the last checkpoint under the limit.",
    "window": "Raise beta or lower the learning rate, or have the budget's owner decide on a new limit; the level has stayed up, so one good step will not do.",
    "path": "Stop, or have the budget's owner grant more: what policy updates have spent does not come back.",
    "checkpoint": "Do not release this checkpoint; take an earlier one whose interval lies under the limit, or train on with a higher beta.",
}


class BudgetExceededParameters(RuleParameters):
    """Parameters of KLA101."""

    quiet_steps: int = Field(default=3, ge=1, le=1_000_000, description="readings back at or under the limit that end an episode")
    evidence_steps: int = Field(default=20, ge=1, le=1000, description="readings up to the worst one that are kept as evidence")


class BudgetExceeded(Rule[BudgetExceededParameters]):
    """A KL is over the limit that a person set.

    What it checks:
        Each budget of the run. per_step: the governing reading of the step. window: the EWMA of the governing series. path: the sum of
        policy-update KL since the run began, over all segments, steps that a resume took back included. checkpoint: the measured drift
        (full vocabulary, all prompts) of a saved policy. A reading in the other unit is converted by its mean response length; one
        whose unit is unknown or that cannot be converted is never compared. Readings that are absent, NaN or infinite are left out.
        A checkpoint whose drift is infinite is over every limit; one whose drift is NaN is left out and named in the coverage.

    Formula:
        warning: value > limit. critical: value - 1.645 SE > limit, the one-sided 95% lower bound. checkpoint: critical where the lower
        end of the measured 95% interval over prompts is over the limit, or the drift is infinite. window: m = (1 - a) m + a x and
        SE^2 = (1 - a)^2 SE^2 + a^2 SE_x^2 with a = 2 / (N + 1), started by the first reading. path: values and squared standard errors
        add up. Without a standard error there is no critical, and the message says so.

    Why it matters:
        The budget is what the owner of the run promised about the distance to the reference. A batch of 16 sequences can be over it by
        chance: the bound tells that from a breach that noise cannot explain. A checkpoint is measured on a set of prompts: its interval
        says how far other prompts like these may put it.

    Parameters and where the defaults come from:
        The limit, unit and scope are the budget's own; no budget exists unless a person set one. quiet_steps 3 is a convention, so
        that a series that hovers around its limit is one finding. evidence_steps 20 is the window of the change rules.

    What to do:
        Raise beta or lower the learning rate, go back to a checkpoint under the limit, or have the budget's owner accept the breach.

    Example finding:
        KL to reference (full, nats/sequence) was 2.41 nats/sequence at step 34, over the limit of 2 nats/sequence, per step; so is its one-sided 95% lower bound, 2.21.
    """

    code = "KLA101"
    name = "budget_exceeded"
    version = 1
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = BudgetExceededParameters

    def __init__(self, run: Run, *, parameters: BudgetExceededParameters, budgets: Sequence[KLBudget] = ()) -> None:
        super().__init__(run, parameters=parameters, budgets=budgets)
        on_steps = [budget for budget in budgets if budget.scope != "checkpoint"]
        self.watches = [BudgetWatch(budget, run=run, n_kept=parameters.evidence_steps) for budget in on_steps]
        self.by_watch = [(watch, self._start_episode(watch.budget, series=watch.key)) for watch in self.watches]
        self.needs = None if self.watches else NOTHING
        self.checkpoint_watches = [CheckpointWatch(budget) for budget in budgets if budget.scope == "checkpoint"]

    def reset(self) -> None:
        """See Rule: windows start again, paths go on."""
        for watch in self.watches:
            watch.begin_segment()

    def observe(self, observation: Observation) -> Iterator[Finding]:
        """See Rule."""
        record = observation.record
        for watch, episode in self.by_watch:
            reading = None if watch.key is None else complete_reading(record, key=watch.key, run=self.run)
            level = None if reading is None else watch.observe(reading, step=record.step)
            if level is None:
                continue
            finding = episode.observe(record, self._judge_level(watch, level))
            if finding is not None:
                yield finding

    def observe_drift(self, measurements: Iterable[DriftMeasurement]) -> Iterator[Finding]:
        """See Rule: each checkpoint budget against the measured drift, in the order of the checkpoints."""
        latest = list_latest_drift(measurements, run_id=self.run.id)
        for watch in self.checkpoint_watches:
            episode = self._start_episode(watch.budget, series="drift", quiet_steps=1)
            for measurement in latest:
                level = watch.observe(measurement)
                if level is None:
                    continue
                finding = episode.observe_at(level.step, self._judge_level(watch, level), segment=0)
                if finding is not None:
                    yield finding

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.budgets:
            yield "no budget is set"
        watches: list[BudgetWatch | CheckpointWatch] = [*self.watches, *self.checkpoint_watches]
        for watch in watches:
            if watch.not_compared is not None:
                yield f"budget {watch.budget.label}: {watch.not_compared}"

    def _start_episode(self, budget: KLBudget, *, series: str | None, quiet_steps: int | None = None) -> Episode:
        subject = budget.id or f"{budget.scope}/{budget.limit!r}/{budget.unit}/{budget.window_steps}"
        return self.start_episode(series=series, subject=subject, quiet_steps=quiet_steps or self.parameters.quiet_steps)

    def _judge_level(self, watch: BudgetWatch | CheckpointWatch, level: BudgetLevel) -> Judgement | None:
        budget = watch.budget
        if level.value <= budget.limit:
            return None
        is_critical = level.lower_bound is not None and level.lower_bound > budget.limit
        evidence: dict[str, Any] = {"budget": describe_budget(budget), "value": level.value, "lower_bound": level.lower_bound}
        return Judgement(
            severity=Severity.CRITICAL if is_critical else Severity.WARNING,
            badness=level.value,
            message=f"{level.subject} was {level.value:.3g} {UNIT_LABELS[budget.unit]} at step {level.step}, "
            f"over the limit of {budget.label}; {_explain_bound(level, scope=budget.scope, is_critical=is_critical)}.",
            remedy=REMEDIES[budget.scope],
            value=level.value,
            threshold=budget.limit,
            unit=budget.unit,
            evidence=evidence | watch.evidence(),
        )


def _explain_bound(level: BudgetLevel, *, scope: str, is_critical: bool) -> str:
    bound, chance = level.bound_name, "other prompts" if scope == "checkpoint" else "noise"
    if level.lower_bound is None:
        return "its standard error is unknown, so this cannot become critical"
    if level.lower_bound == math.inf:
        return "no noise explains infinity"
    if is_critical:
        return f"so is {bound}, {level.lower_bound:.3g}"
    return f"{bound}, {level.lower_bound:.3g}, is not, so {chance} could explain it"
