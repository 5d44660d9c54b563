"""Measured drift of the checkpoints, beside the KL that the trainer logged."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from klaudit.records import PRIMARY, UNIT_LABELS, DriftMeasurement, KLBudget, KLSeries, RollUp, Run, StepRecord
from klaudit.records.series import GOVERNING_ORDER
from klaudit.report.views.curve import Curve, Point, draw_curve
from klaudit.report.views.figure import format_estimate, format_reading

SHIFT = (
    "The KL logged at step t belongs to the policy before update t, and checkpoint t holds the policy after it: "
    "checkpoint t stands beside the KL logged at step t + 1. The trainer sampled its training prompts, the measurement a fixed set."
)


DIRECTIONS: Mapping[str, str] = {"reverse": "KL(policy ‖ reference)", "forward": "KL(reference ‖ policy)"}
"""Each direction in the notation of the field, the governed one first."""


@dataclass(frozen=True, slots=True)
class LoggedKL:
    """What the trainer logged of the policy that a checkpoint holds."""

    logged_step: int
    """One later than the checkpoint's."""
    value: float | None
    """In `unit`; None: not measured."""
    standard_error: float | None
    estimator: str
    label: str
    """Estimator and unit."""
    unit: str
    """For people."""
    text: str
    """Value, standard error and unit, or why it cannot be had in that unit."""


@dataclass(frozen=True, slots=True)
class DriftPoint:
    """One measurement of one checkpoint."""

    checkpoint: str
    step: int | None
    """Updates done; None for a checkpoint of no run."""
    slice: str | None
    """None for all prompts."""
    estimator: str
    label: str
    """What was measured, with estimator and unit."""
    unit: str
    """For people."""
    value: float
    low: float
    """Lower end of the 95% interval, in `unit`."""
    high: float
    n_sequences: int
    mean_length: float
    """Tokens a sequence."""
    text: str
    """Value, interval and unit."""
    logged: LoggedKL | None
    """In the same unit; None where no KL was logged one step later, and for the direction that trainers do not log."""
    direction: str = "reverse"
    """reverse: KL(policy || reference), from the policy's samples; forward: KL(reference || policy), from the reference's."""


@dataclass(frozen=True, slots=True)
class DriftView:
    """What the page Drift shows of one run."""

    run_id: str
    reference: str
    """Name of the reference model; several names where they differ."""
    reference_digest: str | None
    """None where it was not computed, or where measurements differ in it."""
    statement: str
    points: tuple[DriftPoint, ...]
    """In order of step, direction (reverse first), slice (all prompts first) and estimator (full, k3, k1)."""
    logged: Curve | None
    """The governing KL that the trainer logged, drawn one step earlier than it was logged; None without one."""
    interval: str
    budgets: tuple[tuple[str, float, str], ...]
    """Label, limit and unit of the budgets on checkpoints."""
    settings: Mapping[str, object]
    """Of the first measurement: what is needed to measure again."""

    def select(self, estimator: str, *, slice: str | None = None, direction: str = "reverse") -> tuple[DriftPoint, ...]:
        """Points of one estimator, slice and direction."""
        wanted = (estimator, slice, direction)
        return tuple(one for one in self.points if (one.estimator, one.slice, one.direction) == wanted)


def view_drift(
    run: Run,
    *,
    measurements: Sequence[DriftMeasurement],
    steps: Sequence[StepRecord],
    budgets: Sequence[KLBudget] = (),
    logged: Sequence[RollUp] | None = None,
    max_points: int = 2000,
) -> DriftView:
    """Put checkpoints beside the log, shifted by the one step that the log lags.

    Args:
        run: as it is known.
        measurements: of its checkpoints; where one was measured again, the newest counts.
        steps: where a step was logged in several segments, the last segment counts; of a long run those that come after a checkpoint.
        budgets: those on the checkpoints of this run are shown.
        logged: of a long run, the buckets of its governing KL.
        max_points: points that the curve of the logged KL keeps.
    """
    by_step = {one.step: one for one in sorted(steps, key=lambda one: (one.segment, one.step))}
    ordered = sorted(keep_newest(measurements), key=rank_measurement)
    names = sorted({one.reference.name for one in ordered}) or ([run.reference.name] if run.reference else ["not declared"])
    digests = {one.reference.digest for one in ordered} or {run.reference.digest if run.reference else None}
    limits = (one for one in budgets if one.scope == "checkpoint" and one.covers(run.id, run.name))
    return DriftView(
        run_id=run.id,
        reference=", ".join(names),
        reference_digest=digests.pop() if len(digests) == 1 else None,
        statement=SHIFT,
        points=tuple(to_drift_point(one, run, by_step) for one in ordered),
        logged=draw_logged(run, list_logged(run, by_step), max_points) if logged is None else draw_long_logged(run, logged, max_points),
        interval="95% interval over prompts",
        budgets=tuple((one.label, one.limit, UNIT_LABELS[one.unit]) for one in limits),
        settings=dict(ordered[0].settings) if ordered else {},
    )


def draw_long_logged(run: Run, buckets: Sequence[RollUp], max_points: int) -> Curve | None:
    """The logged governing KL of a long run, from its roll-ups."""
    points, n_points = list_extremes(buckets), sum(one.n for one in buckets)
    curve = draw_logged(run, points, max_points, n_points=n_points)
    if curve is None or not buckets:
        return curve
    kept = f"lowest and highest of every {buckets[0].level:,} steps kept; the band is left out of long runs"
    return replace(curve, statement=f"showing {curve.n_shown:,} of {n_points:,} points; {kept}")


def draw_logged(run: Run, points: Sequence[Point], max_points: int, *, n_points: int | None = None) -> Curve | None:
    """The logged governing KL over the updates that its policy had seen."""
    key = run.governing_key
    if key is None:
        return None
    series = run.series[key]
    label, unit = f"logged {series.label}", UNIT_LABELS[series.unit]
    band = "± 1 standard error"
    return draw_curve(
        points, key=key, label=label, unit=unit, max_points=max_points, estimator=series.estimator, band=band, n_points=n_points
    )


def list_logged(run: Run, by_step: Mapping[int, StepRecord]) -> list[Point]:
    """The governing KL of every step, at the updates that its policy had seen."""
    readings = ((step - 1, by_step[step].reading(run.governing_key or PRIMARY)) for step in sorted(by_step) if step >= 1)
    return [Point(0, updates, one.value, one.standard_error) for updates, one in readings if one is not None]


def list_extremes(buckets: Sequence[RollUp]) -> list[Point]:
    """Lowest and highest governing KL of every bucket where no later segment logged it again, at the updates that its policy had seen."""
    spans: dict[int, tuple[int, int]] = {}
    for one in buckets:
        first, last = spans.get(one.segment, (one.first_step, one.last_step))
        spans[one.segment] = (min(first, one.first_step), max(last, one.last_step))
    points: dict[int, Point] = {}
    for one in buckets:
        later = [span for segment, span in spans.items() if segment > one.segment]
        for step, value in ((one.min_step, one.min), (one.max_step, one.max)):
            if step is not None and step >= 1 and not any(first <= step <= last for first, last in later):
                points[step - 1] = Point(0, step - 1, value)
    return [points[step] for step in sorted(points)]


def keep_newest(measurements: Iterable[DriftMeasurement]) -> list[DriftMeasurement]:
    """The last measurement of each checkpoint, slice and series; two at one moment: the later in order."""
    newest: dict[tuple[object, ...], DriftMeasurement] = {}
    for one in sorted(measurements, key=lambda one: one.measured_at):
        newest[one.step, one.checkpoint, one.slice, one.series.estimator, one.series.direction, one.series.unit] = one
    return list(newest.values())


def rank_measurement(one: DriftMeasurement) -> tuple[object, ...]:
    """Order: step, checkpoint, direction with the governed one first, slice with all prompts first, estimator with the best first."""
    order = [*GOVERNING_ORDER, "k2", "unknown"]
    step = (one.step is None, one.step or 0)
    is_other_way = one.series.direction != "reverse"
    return (*step, one.checkpoint, is_other_way, one.slice is not None, one.slice or "", order.index(one.series.estimator), one.measured_at)


def to_drift_point(one: DriftMeasurement, run: Run, by_step: Mapping[int, StepRecord]) -> DriftPoint:
    """A measurement with the KL that was logged of the same policy."""
    unit = UNIT_LABELS[one.series.unit]
    is_logged = one.step is not None and one.series.direction == "reverse"
    logged = find_logged(one, run=run, step=by_step.get((one.step or 0) + 1)) if is_logged else None
    return DriftPoint(
        checkpoint=one.checkpoint,
        step=one.step,
        slice=one.slice,
        estimator=one.series.estimator,
        label=name_series(one.series),
        unit=unit,
        value=one.value,
        low=one.low,
        high=one.high,
        n_sequences=one.n_sequences,
        mean_length=one.mean_length,
        text=f"{format_estimate(one.value, one.low, one.high)} {unit}",
        logged=logged,
        direction=one.series.direction,
    )


def name_series(series: KLSeries) -> str:
    """What was measured; the direction is named where it is not the governed one."""
    if series.direction == "reverse":
        return series.label
    return f"{DIRECTIONS.get(series.direction, 'KL of unknown direction')} ({series.estimator}, {UNIT_LABELS[series.unit]})"


def find_logged(measurement: DriftMeasurement, *, run: Run, step: StepRecord | None) -> LoggedKL | None:
    """The KL logged one step after the checkpoint: of the measurement's estimator, else the governing one, in its unit."""
    if step is None:
        return None
    keys = [key for key, one in run.series.items() if one.kind == "reference" and one.estimator == measurement.series.estimator]
    readings = (step.reading(key) for key in (*keys, run.governing_key) if key is not None)
    reading = next((one for one in readings if one is not None and one.value is not None), None)
    if reading is None:
        return None
    converted = reading.to_unit(measurement.series.unit)
    return LoggedKL(
        logged_step=step.step,
        value=converted.value,
        standard_error=converted.standard_error,
        estimator=converted.series.estimator,
        label=converted.series.label,
        unit=UNIT_LABELS[converted.series.unit],
        text=format_reading(converted),
    )
