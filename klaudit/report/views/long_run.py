"""A run too long to read every step of: drawn from its roll-ups, and from the steps that somebody will look for."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from klaudit.records import PRIMARY, UNIT_LABELS, Checkpoint, Finding, KLBudget, RollUp, RunSummary, StepRecord, find_update_series
from klaudit.report.views.budget import BudgetUse, measure_budget_use, use_of_sum
from klaudit.report.views.curve import Curve, Point, StepKey, draw_curve
from klaudit.report.views.run import (
    METRICS,
    RunView,
    list_figures,
    list_named_places,
    place_markers,
    read_metric,
    sort_series,
    state_coverage,
)


@dataclass(frozen=True, slots=True)
class LongRun:
    """What is read of a long run."""

    summary: RunSummary
    level: int
    """Steps a bucket of `rollups`."""
    rollups: Mapping[str, Sequence[RollUp]]
    """By key, each in order of segment and step."""
    steps: Sequence[StepRecord]
    """Read one by one: the last, those that findings name, those around what is not finite."""
    tail: Sequence[StepRecord]
    """The last of the last segment, in order: what budgets on a window look at."""
    n_segments: int
    n_broken: int = 0
    """Stretches of steps with a value that is not finite."""
    n_broken_read: int = 0
    """Those of them that `steps` has."""


def view_long_run(
    long: LongRun,
    *,
    findings: Sequence[Finding] = (),
    budgets: Sequence[KLBudget] = (),
    checkpoints: Sequence[Checkpoint] = (),
    max_points: int = 2000,
) -> RunView:
    """Draw a run from its roll-ups: lowest and highest step of every bucket, every finding's step, every gap that was read.

    Curves have no band: a standard error belongs to a step, and most steps are not read.

    Args:
        long: what was read; at least one step.
        findings: of the run.
        budgets: those that do not cover the run are passed over.
        checkpoints: of the run.
        max_points: points a curve keeps of its series; findings and gaps may add a few.
    """
    run, summary = long.summary.run, long.summary
    detail = sorted({(one.segment, one.step): one for one in (*long.tail, *long.steps)}.values(), key=lambda one: (one.segment, one.step))
    keep = list_named_places(findings)
    uses = tuple(judge_budget(one, long) for one in budgets if one.covers(run.id, run.name))
    return RunView(
        run_id=run.id,
        name=run.name,
        status=run.status,
        governing_key=run.governing_key,
        statement=state_coverage(run, n_measured=summary.n_kl_measured, n_steps=summary.n_steps),
        headline=list_figures(run, detail[-1], uses, n_measured=summary.n_kl_measured, n_steps=summary.n_steps),
        curves=tuple(draw_long_curves(long, detail, keep, max_points)),
        budgets=uses,
        markers=place_markers(run, detail, findings),
        checkpoint_steps=tuple(sorted({one.step for one in checkpoints})),
        n_steps=summary.n_steps,
        n_segments=long.n_segments,
    )


def list_drawn_keys(summary: RunSummary) -> list[str]:
    """Keys of everything that is drawn of a run, where it has them."""
    return list(dict.fromkeys((*sort_series(summary.run, summary.run.series), PRIMARY, *METRICS)))


def draw_long_curves(long: LongRun, detail: Sequence[StepRecord], keep: Collection[StepKey], max_points: int) -> list[Curve]:
    """KLs first, then `METRICS`, each where the run has a finite value of it."""
    run = long.summary.run
    curves = []
    for key, series in sort_series(run, run.series).items():
        points = [Point(one.segment, one.step, reading.value) for one in detail if (reading := one.reading(key)) is not None]
        drawn = (key, series.label, UNIT_LABELS[series.unit], series.estimator)
        curves.append(draw_long_curve(long, drawn, points, keep, max_points))
    for key, (label, unit) in METRICS.items():
        points = [Point(one.segment, one.step, value) for one in detail if (value := read_metric(one, key)) is not None]
        curves.append(draw_long_curve(long, (key, label, unit, None), points, keep, max_points))
    return [one for one in curves if one is not None]


def draw_long_curve(
    long: LongRun, drawn: tuple[str, str, str, str | None], read: Sequence[Point], keep: Collection[StepKey], max_points: int
) -> Curve | None:
    """One curve from buckets and from the points that were read; None where the run has nothing of it."""
    key, label, unit, estimator = drawn
    buckets = long.rollups.get(key, ())
    if not any(one.n for one in buckets):
        return None
    points = merge_points(buckets, read)
    n_points = long.summary.n_steps if key == PRIMARY else sum(one.n + one.n_non_finite for one in buckets)
    curve = draw_curve(points, key=key, label=label, unit=unit, max_points=max_points, estimator=estimator, keep=keep, n_points=n_points)
    return replace(curve, statement=state_buckets(curve, long))


def merge_points(buckets: Sequence[RollUp], read: Sequence[Point]) -> list[Point]:
    """Lowest and highest point of every bucket and the points that were read, in order of segment and step."""
    found: dict[StepKey, Point] = {}
    for one in buckets:
        for step, value in ((one.min_step, one.min), (one.max_step, one.max)):
            if step is not None:
                found[one.segment, step] = Point(one.segment, step, value)
    found |= {(one.segment, one.step): one for one in read}
    return [found[place] for place in sorted(found)]


def state_buckets(curve: Curve, long: LongRun) -> str:
    """Say how a long series is thinned, and which of its gaps are not drawn."""
    kept = f"lowest and highest of every {long.level:,} steps and every finding's point kept; bands are left out of long runs"
    if long.n_broken_read < long.n_broken:
        kept += f"; gaps drawn in {long.n_broken_read:,} of {long.n_broken:,} stretches that have one"
    return f"showing {curve.n_shown:,} of {curve.n_points:,} points; {kept}"


def judge_budget(budget: KLBudget, long: LongRun) -> BudgetUse:
    """Compare a budget with its statistic: the sum of a path from the roll-ups, everything else from the last steps."""
    run = long.summary.run
    buckets = [one for one in long.rollups.get(find_update_series(run.series) or "", ()) if one.n] if budget.scope == "path" else []
    if not buckets:
        return measure_budget_use(budget, run=run, steps=long.tail)
    total = math.fsum(math.inf if one.total is None else one.total for one in buckets)
    return use_of_sum(budget, run=run, total=total, n_finite=sum(one.n for one in buckets), n_steps=long.summary.n_steps)


def needs_every_step(budget: KLBudget, summary: RunSummary) -> bool:
    """Whether a budget's statistic is a sum over steps that must each be turned into its unit, which no roll-up can."""
    key = find_update_series(summary.run.series)
    return budget.scope == "path" and key is not None and summary.run.series[key].unit != budget.unit
