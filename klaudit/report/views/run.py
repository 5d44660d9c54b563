"""One run: its KL, what moved with it, its budgets and its findings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from klaudit.records import PRIMARY, UNIT_LABELS, Checkpoint, Finding, KLBudget, KLReading, KLSeries, Run, StepRecord
from klaudit.report.views.budget import BudgetUse, find_most_used, measure_budget_use
from klaudit.report.views.curve import Curve, Point, StepKey, draw_curve
from klaudit.report.views.figure import Figure, format_count, format_number, format_percent, format_reading

METRICS: Mapping[str, tuple[str, str]] = {
    "beta": ("beta", "reward/nat"),
    "implied_beta": ("implied beta (KL penalty / KL)", "reward/nat"),
    "score": ("score (raw reward)", "reward"),
    "heldout_score": ("held-out score", "reward"),
    "kl_penalty": ("KL penalty (beta x KL)", "reward"),
    "rlhf_reward": ("RLHF reward (score - KL penalty)", "reward"),
    "entropy": ("policy entropy", "nats/token"),
    "response_length": ("response length", "tokens"),
    "eos_fraction": ("responses that end by themselves", "share"),
    "distinct_2": ("distinct bigrams", "share"),
    "clip_fraction": ("clipped ratios", "share"),
    "ratio": ("policy ratio", "ratio"),
    "grad_norm": ("gradient norm", "loss units"),
    "learning_rate": ("learning rate", "per step"),
}
"""Label and unit of everything drawn that is not a KL."""


@dataclass(frozen=True, slots=True)
class Marker:
    """A finding on a chart."""

    finding_id: str
    step: int
    """Where it was detected."""
    first_step: int
    last_step: int
    segment: int
    severity: str
    code: str
    rule: str
    series: str | None
    message: str
    remedy: str
    value: float | None
    """Value of the marked curve there, for the marker's height; None where it has none."""


@dataclass(frozen=True, slots=True)
class RunView:
    """What the page Run and the report show of one run."""

    run_id: str
    name: str
    status: str
    governing_key: str | None
    """Key of the curve that budgets are compared with; None where no reference KL of known estimator and unit exists."""
    statement: str
    """What the governing KL is, and on how many steps it was measured."""
    headline: tuple[Figure, ...]
    """Keys: kl, d, beta, score, heldout_score, budget_used, coverage."""
    curves: tuple[Curve, ...]
    """KLs first, the governing one at their head; then `METRICS`; those without any value left out."""
    budgets: tuple[BudgetUse, ...]
    markers: tuple[Marker, ...]
    """In order of segment and step."""
    checkpoint_steps: tuple[int, ...]
    n_steps: int
    n_segments: int

    def curve(self, key: str) -> Curve | None:
        """The curve of one series or metric."""
        return next((one for one in self.curves if one.key == key), None)

    @property
    def governing(self) -> Curve | None:
        """The KL that is shown first: the governing one, else the primary one."""
        return self.curve(self.governing_key or PRIMARY)

    def figure(self, key: str) -> Figure | None:
        """The headline number of that key."""
        return next((one for one in self.headline if one.key == key), None)


def view_run(
    run: Run,
    *,
    steps: Sequence[StepRecord],
    findings: Sequence[Finding] = (),
    budgets: Sequence[KLBudget] = (),
    checkpoints: Sequence[Checkpoint] = (),
    max_points: int = 2000,
) -> RunView:
    """Draw one run.

    Args:
        steps: of all segments, in any order; superseded ones too.
        budgets: those that do not cover the run are passed over.
        max_points: points a curve keeps of its series; findings and gaps may add a few.
    """
    ordered = sorted(steps, key=lambda one: (one.segment, one.step))
    keep = list_named_places(findings)
    uses = tuple(measure_budget_use(one, run=run, steps=ordered) for one in budgets if one.covers(run.id, run.name) and ordered)
    n_measured = count_measured(run, ordered)
    return RunView(
        run_id=run.id,
        name=run.name,
        status=run.status,
        governing_key=run.governing_key,
        statement=state_coverage(run, n_measured=n_measured, n_steps=len(ordered)),
        headline=list_figures(run, ordered[-1], uses, n_measured=n_measured, n_steps=len(ordered)) if ordered else (),
        curves=(*draw_kls(run, ordered, keep, max_points), *draw_metrics(ordered, keep, max_points)),
        budgets=uses,
        markers=place_markers(run, ordered, findings),
        checkpoint_steps=tuple(sorted({one.step for one in checkpoints})),
        n_steps=len(ordered),
        n_segments=len({one.segment for one in ordered}),
    )


def list_named_places(findings: Sequence[Finding]) -> set[StepKey]:
    """The records that findings name: where each began, was detected and ended."""
    return {(one.segment, step) for one in findings for step in (one.first_step, one.detected_step, one.last_step)}


def find_series(run: Run, steps: Sequence[StepRecord]) -> dict[str, KLSeries]:
    """Every KL of the run by key, in the order in which they are drawn."""
    series = dict(run.series)
    for one in steps:
        series.setdefault(PRIMARY, one.kl.series)
        for key, reading in one.readings.items():
            series.setdefault(key, reading.series)
    return sort_series(run, series)


def sort_series(run: Run, series: Mapping[str, KLSeries]) -> dict[str, KLSeries]:
    """The governing one first, then reference, update and mismatch."""
    kinds = ("reference", "unknown", "baseline", "update", "mismatch")
    return dict(sorted(series.items(), key=lambda item: (item[0] != run.governing_key, kinds.index(item[1].kind), item[0])))


def draw_kls(run: Run, steps: Sequence[StepRecord], keep: set[StepKey], max_points: int) -> list[Curve]:
    """One curve a KL series, with a band of one standard error."""
    curves = []
    for key, series in find_series(run, steps).items():
        readings = [(one, reading) for one in steps if (reading := one.reading(key)) is not None]
        if all(reading.value is None for _, reading in readings):
            continue
        is_measured = any(reading.standard_error is not None for _, reading in readings)
        points = [to_point(one, reading, is_measured) for one, reading in readings]
        band = "± 1 standard error" if is_measured else "± 1 standard error, taken as sqrt(2 KL / batch size)"
        unit = UNIT_LABELS[series.unit]
        curves.append(
            draw_curve(
                points, key=key, label=series.label, unit=unit, max_points=max_points, estimator=series.estimator, band=band, keep=keep
            )
        )
    return curves


def to_point(step: StepRecord, reading: KLReading, is_measured: bool) -> Point:
    """A KL reading as a point of a curve."""
    error = reading.standard_error if is_measured else reading.effective_standard_error
    return Point(step.segment, step.step, reading.value, error)


def draw_metrics(steps: Sequence[StepRecord], keep: set[StepKey], max_points: int) -> list[Curve]:
    """One curve for each of `METRICS` that the run has."""
    curves = []
    for key, (label, unit) in METRICS.items():
        points = [Point(one.segment, one.step, value) for one in steps if (value := read_metric(one, key)) is not None]
        if points:
            curves.append(draw_curve(points, key=key, label=label, unit=unit, max_points=max_points, keep=keep))
    return curves


def read_metric(step: StepRecord, key: str) -> float | None:
    """A metric of a step, its own fields included."""
    if key in {"beta", "score"}:
        return step.beta if key == "beta" else step.score
    return step.metrics.get(key)


def place_markers(run: Run, steps: Sequence[StepRecord], findings: Sequence[Finding]) -> tuple[Marker, ...]:
    """Put findings where they were detected, at the height of the governing KL or, without one, of the primary KL."""
    by_key = {(one.segment, one.step): one for one in steps}
    markers = []
    for finding in sorted(findings, key=lambda one: (one.segment, one.detected_step, one.code, one.id)):
        step = by_key.get((finding.segment, finding.detected_step))
        reading = None if step is None else step.reading(run.governing_key or PRIMARY)
        markers.append(
            Marker(
                finding_id=finding.id,
                step=finding.detected_step,
                first_step=finding.first_step,
                last_step=finding.last_step,
                segment=finding.segment,
                severity=finding.severity.value,
                code=finding.code,
                rule=finding.rule,
                series=finding.series,
                message=finding.message,
                remedy=finding.remedy,
                value=reading.value if reading is not None and reading.is_finite else None,
            )
        )
    return tuple(markers)


def count_measured(run: Run, steps: Sequence[StepRecord]) -> int:
    """Steps whose governing (else primary) KL is a finite number."""
    readings = (one.reading(run.governing_key or PRIMARY) for one in steps)
    return sum(one is not None and one.is_finite for one in readings)


def state_coverage(run: Run, *, n_measured: int, n_steps: int) -> str:
    """Say which KL governs, and on how many of the recorded steps it is a finite number."""
    if not n_steps:
        return "no step was recorded"
    share = f"measured on {n_measured:,} of {format_count(n_steps, 'recorded step')} ({format_percent(100 * n_measured / n_steps)})"
    if run.governing_key is None:
        return f"no reference KL of known estimator and unit: nothing is compared with a budget; the logged KL was {share}"
    return f"{run.series[run.governing_key].label} {share}"


def list_figures(run: Run, last: StepRecord, uses: Sequence[BudgetUse], *, n_measured: int, n_steps: int) -> tuple[Figure, ...]:
    """The headline numbers: last step, budget and coverage."""
    share = 100 * n_measured / n_steps
    note = f"{format_percent(share)} of {format_count(n_steps, 'step')}"
    coverage = Figure("coverage", "KL measured", share, "% of recorded steps", note)
    scores = (figure_metric(last, key, label) for key, label in (("beta", "beta"), ("score", "score"), ("heldout_score", "held-out score")))
    return (*figure_kl(last.reading(run.governing_key or PRIMARY), last.step), *scores, figure_budget(uses), coverage)


def figure_kl(reading: KLReading | None, step: int) -> tuple[Figure, Figure]:
    """Last KL, and d = sqrt(KL per sequence) (Gao et al. 2022, arXiv:2210.10760)."""
    label = "KL" if reading is None else reading.series.label
    unit = "" if reading is None else UNIT_LABELS[reading.series.unit]
    value, error = (None, None) if reading is None else (reading.value, reading.standard_error)
    kl = Figure("kl", label, value, unit, format_reading(reading), f"at step {step}", error)
    per_sequence = None if reading is None else reading.to_unit("nats_per_sequence")
    squared = None if per_sequence is None or per_sequence.series.unit == "unknown" else per_sequence.value
    name, root_unit = "d = sqrt(KL per sequence)", "sqrt(nats)"
    if reading is None or squared is None or not squared >= 0:
        return kl, Figure("d", name, None, root_unit, "not measured", "needs a KL per sequence that is not negative")
    root = math.sqrt(squared)
    return kl, Figure(
        "d", name, root, root_unit, f"{format_number(root)} {root_unit}", f"{reading.series.estimator} estimator, at step {step}"
    )


def figure_metric(step: StepRecord, key: str, label: str) -> Figure:
    """Value of a metric at the last step."""
    value, unit = read_metric(step, key), METRICS[key][1]
    text = "not logged" if value is None else f"{format_number(value)} {unit}"
    return Figure(key, label, value, unit, text, "" if value is None else f"at step {step.step}")


def figure_budget(uses: Sequence[BudgetUse]) -> Figure:
    """Share of the budget that is used most."""
    most = find_most_used(uses)
    if most is None or most.used_percent is None:
        note = uses[0].statement if uses else "no budget is set"
        return Figure("budget_used", "budget used", None, "%", "not compared" if uses else "no budget", note)
    return Figure("budget_used", "budget used", most.used_percent, "%", format_percent(most.used_percent), most.statement)
