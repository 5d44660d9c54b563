"""How much of a KL budget is used."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from klaudit.records import UNIT_LABELS, KLBudget, KLReading, Run, StepRecord, find_update_series
from klaudit.report.views.figure import format_number


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """One budget beside the number that it limits."""

    id: str
    label: str
    """Such as `2 nats/sequence, per step`."""
    limit: float
    """In `unit`."""
    unit: str
    """For people."""
    scope: str
    action: str
    owner: str | None
    reason: str | None
    value: float | None
    """What is compared with the limit, at the last step, in `unit`; None where nothing can be."""
    used_percent: float | None
    """`value` in percent of `limit`; above 100 is a breach of the value."""
    statement: str
    """What was compared with what, or why nothing was."""
    is_line: bool
    """Whether the limit can be drawn as a level on the chart of the governing KL."""


def measure_budget_use(budget: KLBudget, *, run: Run, steps: Sequence[StepRecord]) -> BudgetUse:
    """Compare the statistic of a budget's scope with its limit, over the last segment (per_step, window) or the whole run (path)."""
    governing = run.series.get(run.governing_key or "")
    if budget.scope == "checkpoint":
        value, what = None, "compared with the measured drift of checkpoints, not with logged KL"
    elif budget.scope == "path":
        value, what = sum_update_kl(budget, run=run, steps=steps)
    elif governing is None:
        value, what = None, "not compared: the run has no reference KL of known estimator and unit"
    else:
        value, what = judge_level(budget, run=run, steps=steps)
    return describe_use(
        budget, value=value, what=what, is_line=is_level(budget) and governing is not None and governing.unit == budget.unit
    )


def use_of_sum(budget: KLBudget, *, run: Run, total: float, n_finite: int, n_steps: int) -> BudgetUse:
    """A path budget beside the sum of the policy-update KL, which is in the budget's unit.

    Args:
        budget: of scope `path`.
        run: that logs a policy-update KL.
        total: the sum, in the budget's unit.
        n_finite: readings that it is the sum of.
        n_steps: of the run.
    """
    return describe_use(budget, value=total, what=describe_sum(run, n_finite=n_finite, n_steps=n_steps), is_line=False)


def describe_sum(run: Run, *, n_finite: int, n_steps: int) -> str:
    """What the statistic of a path budget is the sum of."""
    return f"sum of {run.series[find_update_series(run.series) or ''].label} over {n_finite:,} of {n_steps:,} steps"


def describe_use(budget: KLBudget, *, value: float | None, what: str, is_line: bool) -> BudgetUse:
    """Put a budget and its statistic into words."""
    used = None if value is None else 100 * value / budget.limit
    unit = UNIT_LABELS[budget.unit]
    compared = "" if value is None else f"{format_number(value)} of {budget.label}: "
    return BudgetUse(
        id=budget.id,
        label=budget.label,
        limit=budget.limit,
        unit=unit,
        scope=budget.scope,
        action=budget.action,
        owner=budget.owner,
        reason=budget.reason,
        value=value,
        used_percent=used,
        statement=compared + what,
        is_line=is_line,
    )


def is_level(budget: KLBudget) -> bool:
    """Whether the budget limits a level of KL and not a sum or a checkpoint."""
    return budget.scope in ("per_step", "window")


def judge_level(budget: KLBudget, *, run: Run, steps: Sequence[StepRecord]) -> tuple[float | None, str]:
    """Last governing reading, or its EWMA, in the budget's unit."""
    key = run.governing_key or ""
    last_segment = [one for one in steps if one.segment == steps[-1].segment]
    readings = [reading.to_unit(budget.unit) for one in last_segment if (reading := one.reading(key)) is not None]
    if not readings:
        return None, "not compared: no step has the governing KL"
    last = readings[-1]
    if last.value is None:
        return None, f"not compared: {last.not_measured}"
    if budget.window_steps is None:
        return last.value, f"{last.series.estimator} estimator at step {last_segment[-1].step}"
    finite = (one.value for one in readings if one.value is not None and math.isfinite(one.value))
    return smooth(finite, budget.window_steps), f"{last.series.estimator} estimator, smoothed, at step {last_segment[-1].step}"


def smooth(values: Iterable[float], span: int) -> float | None:
    """Last value of the EWMA of weight 2 / (span + 1) that starts at the first value; None of nothing."""
    weight = 2 / (span + 1)
    level: float | None = None
    for value in values:
        level = value if level is None else level + weight * (value - level)
    return level


def sum_update_kl(budget: KLBudget, *, run: Run, steps: Sequence[StepRecord]) -> tuple[float | None, str]:
    """Sum of the policy-update KL since the run began, in the budget's unit; steps without a finite one are counted and named."""
    key = find_update_series(run.series)
    if key is None:
        return None, "not compared: the run logs no policy-update KL of known unit"
    readings = [reading.to_unit(budget.unit) for one in steps if (reading := one.reading(key)) is not None]
    finite = [one.value for one in readings if one.is_finite and one.value is not None]
    if not finite:
        return None, f"not compared: no policy-update KL in {UNIT_LABELS[budget.unit]}"
    return math.fsum(finite), describe_sum(run, n_finite=len(finite), n_steps=len(steps))


def use_of_last_reading(budgets: Sequence[KLBudget], reading: KLReading | None) -> BudgetUse | None:
    """The per_step budget of which one reading uses most; None where none can be compared with it. A window needs more than one reading."""
    uses = []
    for budget in budgets:
        converted = None if reading is None else reading.to_unit(budget.unit)
        if converted is None or converted.value is None or budget.scope != "per_step" or converted.series.estimator == "unknown":
            continue
        uses.append(describe_use(budget, value=converted.value, what=f"last reading, {converted.series.estimator} estimator", is_line=True))
    return find_most_used(uses)


def find_most_used(uses: Iterable[BudgetUse]) -> BudgetUse | None:
    """The budget with the highest share, NaN above all; None where none was compared."""
    compared = [one for one in uses if one.used_percent is not None]
    return max(compared, key=lambda one: math.inf if math.isnan(one.used_percent or 0.0) else (one.used_percent or 0.0), default=None)
