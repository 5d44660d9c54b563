"""The readings that a finding was judged on, as charts: drawn from the finding alone, so that they outlive the run's steps."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from klaudit.records import UNIT_LABELS, Finding
from klaudit.records.non_finite import decode_float
from klaudit.records.series import KIND_LABELS
from klaudit.report.views.curve import Curve, Point, draw_curve, to_finite
from klaudit.report.views.figure import format_count, format_number, format_percent
from klaudit.report.views.run import METRICS

NO_UNIT = "unit not declared"
MOST_POINTS = 2000
"""Points that one chart draws of a finding's readings; a rule keeps no more than 1,000."""
MOST_FLAT = 20
"""Readings of a frozen KL that are drawn behind those before it."""

SAID_BY_RULE = ("clip_fraction", "grad_norm")
"""Metrics whose unit the rule says more exactly than a chart of the run does."""

Axis = Literal["step", "reading, in order"]


@dataclass(frozen=True, slots=True)
class EvidenceChart:
    """Readings of one unit, with what they were held against."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    """The readings; the first with its band, where it has one."""
    expected: Curve | None
    """What was expected, with what noise explains around it as the band."""
    levels: tuple[tuple[str, float], ...]
    """Label and height of thresholds."""
    marks: tuple[tuple[str, int], ...]
    """Label and place of what happened when."""
    episode: tuple[int, int] | None
    """First and last place of the episode, as far as the chart reaches; None where it reaches none of it."""
    judged: tuple[int, float] | None
    """Place and height of the reading that the finding tells of."""
    x_label: Axis
    statement: str
    """Which readings are shown."""


class Readings(NamedTuple):
    """Columns of numbers over steps, or over readings whose steps are not kept."""

    axis: Axis
    places: tuple[int, ...]
    columns: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True, slots=True)
class Column:
    """One line of a chart before it is drawn."""

    key: str
    label: str
    unit: str
    values: tuple[float | None, ...]
    low: tuple[float | None, ...] | None = None
    high: tuple[float | None, ...] | None = None
    band: str = ""


def draw_evidence(finding: Finding) -> tuple[EvidenceChart, ...]:
    """One chart for each unit that the finding kept a series in; none where it kept none, or none that can be read."""
    readings = find_readings(finding.evidence)
    if readings is None:
        return ()
    readings = add_judged(finding, readings)
    by_unit: dict[str, list[Column]] = {}
    for column in list_columns(finding, readings.columns):
        by_unit.setdefault(column.unit, []).append(column)
    return tuple(assemble(finding, readings, columns) for columns in by_unit.values())


def read_number(value: Any) -> float | None:
    """A number out of evidence; None for anything else."""
    try:
        return decode_float(value)
    except (TypeError, OverflowError):
        return None


def read_numbers(values: Any) -> tuple[float | None, ...]:
    """The numbers of a list; empty where it is no list."""
    return tuple(read_number(one) for one in values) if isinstance(values, Sequence) and not isinstance(values, str) else ()


def find_readings(evidence: Mapping[str, Any]) -> Readings | None:
    """The series in a finding's evidence, in whichever of the shapes that rules keep them in."""
    for table in (evidence.get("window"), evidence.get("blocks")):
        if isinstance(table, Mapping):
            return tabulate(table)
    rows = evidence.get("measurements") or evidence.get("window")
    if isinstance(rows, Sequence) and rows and all(isinstance(one, Mapping) for one in rows):
        names = [name for name in rows[0] if name != "checkpoint"]
        return tabulate({"steps" if name == "step" else name: [one.get(name) for one in rows] for name in names})
    values = list_values(evidence)
    return Readings("reading, in order", tuple(range(1, len(values) + 1)), {"values": values}) if values else None


def tabulate(table: Mapping[str, Any]) -> Readings | None:
    """Columns of one length over their steps; None where there are no steps, or no column fits them."""
    steps = read_numbers(table.get("steps"))
    columns = {name: values for name, one in table.items() if name != "steps" and len(values := read_numbers(one)) == len(steps)}
    places = tuple(int(one) for one in steps if one is not None and math.isfinite(one))
    return Readings("step", places, columns) if places and columns and len(places) == len(steps) else None


def list_values(evidence: Mapping[str, Any]) -> tuple[float | None, ...]:
    """Readings of which no step is kept: those before a fall and after it, those under a ceiling, those before a freeze and the frozen ones."""
    low = evidence.get("low")
    if isinstance(low, Mapping):
        return (*read_numbers(evidence.get("window")), *read_numbers(low.get("kl")))
    before = read_numbers(evidence.get("before"))
    if before:
        n_frozen = min(int(read_number(evidence.get("n_steps")) or 1), MOST_FLAT)
        return (*before, *(read_number(evidence.get("kl")),) * n_frozen)
    return read_numbers(evidence.get("readings"))


def add_judged(finding: Finding, readings: Readings) -> Readings:
    """With the judged reading at their end, where the rule kept only those before it and it is known at which step it came."""
    place = find_judged_step(finding, readings)
    names = [name for name in readings.columns if finding.evidence.get(name) is not None]
    if place is None or not names:
        return readings
    columns = {name: (*values, read_number(finding.evidence[name]) if name in names else None) for name, values in readings.columns.items()}
    return readings._replace(places=(*readings.places, place), columns=columns)


def find_judged_step(finding: Finding, readings: Readings) -> int | None:
    """The step behind the window that was judged; None where it lies in the window, or cannot be told."""
    if readings.axis != "step":
        return None
    kept = read_number(finding.evidence.get("step"))
    place = finding.detected_step if kept is None or not math.isfinite(kept) else int(kept)
    return place if place > readings.places[-1] else None


def list_columns(finding: Finding, columns: Mapping[str, tuple[float | None, ...]]) -> Iterator[Column]:
    """The lines that are drawn of a table of readings."""
    if "value" in columns:
        yield from list_budget_columns(finding, columns)
        return
    errors = columns.get("standard_error")
    for name, kept in columns.items():
        if name == "standard_error":
            continue
        label, unit = name_column(finding, name)
        values = restore(finding, name, kept)
        low, high = (shift(values, errors, -1), shift(values, errors, 1)) if errors else (None, None)
        yield Column(name, label, unit, values, low, high, "± 1 standard error" if errors else "")


def restore(finding: Finding, name: str, kept: tuple[float | None, ...]) -> tuple[float | None, ...]:
    """Readings in the unit of the finding, where the rule kept their square roots, or their distance from what was expected."""
    if finding.evidence.get("is_square_root") is True:
        return tuple(None if one is None else one * one for one in kept)
    expected = read_number(finding.evidence.get("expected"))
    return tuple(None if one is None else one + expected for one in kept) if name == "excess" and expected is not None else kept


def list_budget_columns(finding: Finding, columns: Mapping[str, tuple[float | None, ...]]) -> Iterator[Column]:
    """What is compared with a budget, down to its lower bound; for a window the readings behind it too."""
    unit, values = find_kl_unit(finding), columns["value"]
    budget = find_budget(finding.evidence)
    label = name_kl(finding)
    if "low" in columns and "high" in columns:
        yield Column("drift", "Measured drift of the checkpoints", unit, values, columns["low"], columns["high"], "95% interval")
        return
    bounds = columns.get("lower_bound", ())
    has_band = any(one is not None for one in bounds)
    scope = {"window": f"EWMA over {budget.get('window_steps')} steps", "path": f"Sum of {label}"}.get(str(budget.get("scope")), label)
    band = "down to its one-sided 95% lower bound"
    yield Column("value", scope, unit, values, bounds if has_band else None, values if has_band else None, band if has_band else "")
    if budget.get("scope") == "window" and "kl" in columns:
        yield Column("kl", label, unit, columns["kl"])


def name_column(finding: Finding, name: str) -> tuple[str, str]:
    """Label and unit of a column of readings."""
    own_unit = name_unit(finding.unit)
    if name in ("kl", "nats_per_token"):
        return name_kl(finding), UNIT_LABELS["nats_per_token"] if name == "nats_per_token" else find_kl_unit(finding)
    if name in METRICS:
        label, unit = METRICS[name]
        return label, own_unit if name in SAID_BY_RULE else unit
    if name == "d":
        return "d = sqrt(KL per sequence)", "sqrt(nats)"
    return name_judged(finding), own_unit if finding.unit != "steps" else find_kl_unit(finding)


def name_judged(finding: Finding) -> str:
    """What a column is whose name says only that it holds values."""
    evidence = finding.evidence
    check = evidence.get("check")
    if isinstance(check, str):
        return check.replace("_", " ")
    told = evidence.get("number") or evidence.get("metric")
    if isinstance(told, str) and told != finding.series and not evidence.get("is_square_root"):
        return told
    return METRICS[finding.series][0] if finding.series and finding.series in METRICS else name_kl(finding)


def tell_number(value: float, unit: str) -> str:
    """`1 step`, `36% of tokens`, `1.3 times`, `2 nats/sequence`."""
    if unit.startswith("share"):
        return f"{format_percent(100 * value)}{unit.removeprefix('share')}"
    number = format_number(value)
    if unit in ("", NO_UNIT):
        return f"{number}, {NO_UNIT}"
    if unit == "ratio":
        return f"{number} times"
    return f"{number} {unit.removesuffix('s') if value == 1 and ' ' not in unit and '/' not in unit else unit}"


def name_unit(unit: Any) -> str:
    """For people."""
    return UNIT_LABELS.get(unit, unit) if isinstance(unit, str) and unit else NO_UNIT


def find_budget(evidence: Mapping[str, Any]) -> Mapping[str, Any]:
    """The budget that was compared, or the one that was loosened."""
    return next((one for one in (evidence.get("budget"), evidence.get("before")) if isinstance(one, Mapping)), {})


def find_kl_unit(finding: Finding) -> str:
    """In which unit the KLs of a finding's evidence are."""
    evidence = finding.evidence
    series = evidence.get("series")
    kept = series.get("unit") if isinstance(series, Mapping) else None
    return name_unit(find_budget(evidence).get("unit") or kept or evidence.get("unit") or finding.unit)


def name_kl(finding: Finding) -> str:
    """Which KL a finding's evidence is about, with its estimator where that is kept."""
    series = finding.evidence.get("series")
    kept: Mapping[str, Any] = series if isinstance(series, Mapping) else {}
    kind = {"KLA5": "update", "KLA7": "mismatch"}.get(finding.code[:4], "reference")
    label = KIND_LABELS.get(str(kept.get("kind")), KIND_LABELS[kind])
    return f"{label} ({kept['estimator']})" if kept.get("estimator") else label


def assemble(finding: Finding, readings: Readings, columns: Sequence[Column]) -> EvidenceChart:
    """The chart of the columns of one unit."""
    unit = columns[0].unit
    curves = tuple(draw_column(column, readings.places) for column in columns)
    marks, episode = mark_episode(finding, readings)
    judged = find_judged(finding, curves[0])
    return EvidenceChart(
        title=join_titles(columns),
        unit=unit,
        curves=curves,
        expected=draw_expected(finding, unit, curves[0]),
        levels=tuple(list_levels(finding, unit, judged=judged)),
        marks=marks,
        episode=episode,
        judged=judged,
        x_label=readings.axis,
        statement=state_readings(finding, readings),
    )


def join_titles(columns: Sequence[Column]) -> str:
    """What is drawn, with its unit; a metric's key and the symbol d keep their small letter."""
    title = " and ".join(one.label for one in columns[:2])
    head = title[:1] if title.startswith("d =") or "/" in title or "_" in title else title[:1].upper()
    return f"{head}{title[1:]}, {columns[0].unit}"


def draw_column(column: Column, places: Sequence[int]) -> Curve:
    """A column as a curve."""
    points = [Point(0, place, value) for place, value in zip(places, column.values, strict=True)]
    curve = draw_curve(points, key=column.key, label=column.label, unit=column.unit, max_points=MOST_POINTS)
    if column.low is None or column.high is None or not curve.is_whole:
        return curve
    low, high = (tuple(to_finite(one) for one in edge) for edge in (column.low, column.high))
    return replace(curve, low=low, high=high, band=column.band)


def shift(values: Sequence[float | None], errors: Sequence[float | None], sign: int) -> tuple[float | None, ...]:
    """Each value moved by its error."""
    pairs = zip(values, errors, strict=True)
    return tuple(None if value is None or error is None else value + sign * error for value, error in pairs)


def draw_expected(finding: Finding, unit: str, curve: Curve) -> Curve | None:
    """What was expected as a level line over the chart; None where the finding does not say, or says it in another unit."""
    found = find_expected(finding, unit, curve)
    if found is None or not curve.steps:
        return None
    label, value, low, high, band = found
    places = (min(curve.steps), max(curve.steps))
    drawn = draw_curve([Point(0, one, value) for one in places], key="expected", label=label, unit=unit, max_points=MOST_POINTS)
    return drawn if not band else replace(drawn, low=(low, low), high=(high, high), band=band)


def find_expected(finding: Finding, unit: str, curve: Curve) -> tuple[str, float, float, float, str] | None:
    """Label, height, lower and upper end of the band and what the band is."""
    evidence = finding.evidence
    if curve.key == "d":
        peak = read_numbers(evidence.get("peak_d"))
        low, value, high = peak if len(peak) == 3 else (None, None, None)
        if low is None or value is None or high is None:
            return None
        return f"peak d*: {tell_number(value, unit)}", value, low, high, "its 95% interval"
    names = {"expected": "expected", "usual": "usual in this run", "began_with": "where it began"}
    if "level" in evidence:
        names = {"level": "level before"} if finding.code == "KLA401" else {"before": "expected before"}
    name = next((one for one in names if read_number(evidence.get(one)) is not None), None)
    value = None if name is None else read_number(evidence.get(name))
    if name is None or value is None or not math.isfinite(value) or unit not in (find_kl_unit(finding), name_unit(finding.unit)):
        return None
    label = f"{names[name]}: {tell_number(value, unit)}"
    sd = read_number(evidence.get("sd"))
    if sd is None or not math.isfinite(sd):
        return label, value, value, value, ""
    return label, value, value - sd, value + sd, "± 1 standard deviation of a reading"


def list_levels(finding: Finding, unit: str, *, judged: tuple[int, float] | None) -> Iterator[tuple[str, float]]:
    """Thresholds in the chart's unit; of a loosened limit the new one too; the judged value where its step is not known."""
    evidence = finding.evidence
    is_own_unit = name_unit(finding.unit) == unit
    if finding.threshold is not None and math.isfinite(finding.threshold) and is_own_unit and "peak_d" not in evidence:
        word = "limit" if find_budget(evidence) else "threshold"
        yield f"{word} {tell_number(finding.threshold, unit)}", finding.threshold
    after = evidence.get("after")
    limit = read_number(after.get("limit")) if isinstance(after, Mapping) and name_unit(after.get("unit")) == unit else None
    if limit is not None:
        yield f"new limit {tell_number(limit, unit)}", limit
    kl = read_number(evidence.get("kl"))
    if judged is None and "expected" in evidence and kl is not None and math.isfinite(kl):
        yield f"judged: {tell_number(kl, unit)}", kl


def find_judged(finding: Finding, curve: Curve) -> tuple[int, float] | None:
    """The last point of the curve that has the judged value; none of a rule that judges the level of several readings."""
    if "level" in finding.evidence:
        return None
    is_own_unit = name_unit(finding.unit) == curve.unit
    wanted = finding.value if is_own_unit else read_number(finding.evidence.get(curve.key))
    if wanted is None:
        return None
    points = zip(reversed(curve.steps), reversed(curve.values), strict=True)
    return next(((place, value) for place, value in points if math.isclose(value, wanted, rel_tol=1e-9)), None)


def mark_episode(finding: Finding, readings: Readings) -> tuple[tuple[tuple[str, int], ...], tuple[int, int] | None]:
    """Where it began, where it was detected, and the stretch, as far as the chart reaches."""
    if readings.axis != "step":
        return mark_reading(finding, readings)
    low, high = min(readings.places), max(readings.places)
    begin, end = max(finding.first_step, low), min(finding.last_step, high)
    told = {finding.first_step: f"began, step {finding.first_step:,}"} | {
        finding.detected_step: f"detected, step {finding.detected_step:,}"
    }
    marks = tuple((label, step) for step, label in told.items() if low <= step <= high)
    return marks, (begin, end) if begin <= end else None


def mark_reading(finding: Finding, readings: Readings) -> tuple[tuple[tuple[str, int], ...], tuple[int, int] | None]:
    """The same where the readings behind the chart's head are those of the episode."""
    evidence, last = finding.evidence, readings.places[-1]
    before = read_numbers(evidence.get("window" if isinstance(evidence.get("low"), Mapping) else "before"))
    if not before or len(before) >= last:
        return (), None
    begin = len(before) + 1
    return ((f"began, step {finding.first_step:,}", begin),), (begin, last)


def state_readings(finding: Finding, readings: Readings) -> str:
    """Which readings are shown, and what of the finding lies outside."""
    if readings.axis != "step":
        return f"{format_count(len(readings.places), 'reading')} kept with the finding, in order; their steps were not kept"
    low, high = min(readings.places), max(readings.places)
    told = f"{format_count(len(readings.places), 'reading')} kept with the finding, step {low:,} to {high:,}"
    outside = f"; detected at step {finding.detected_step:,}, which lies before" if finding.detected_step < low else ""
    return f"{told}{outside}"
