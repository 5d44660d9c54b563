"""The report as one HTML file: style, charts and evidence inside, no script, no request."""

import json
from collections.abc import Sequence
from dataclasses import replace

from jinja2 import Environment, PackageLoader, StrictUndefined

from klaudit.records import UNIT_LABELS, Finding
from klaudit.report.document import Report
from klaudit.report.json import render_json, to_plain
from klaudit.report.svg import Chart, draw_chart
from klaudit.report.verdict import REASONS, name_rule
from klaudit.report.views import Curve, DriftPoint, Marker, RunView, format_number, format_percent
from klaudit.report.views.drift import DIRECTIONS
from klaudit.report.views.drift_profile import tell_interval
from klaudit.report.views.evidence import EvidenceChart, draw_evidence
from klaudit.report.views.fact import list_facts

VERDICT_WORDS = {"pass": "no rule fired above info", "warn": "warning", "fail": "critical finding"}

PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Reward", ("score", "heldout_score", "rlhf_reward")),
    ("KL penalty taken from the reward", ("kl_penalty",)),
    ("Beta, the price of KL", ("beta",)),
    ("Policy entropy", ("entropy",)),
    ("Response length", ("response_length",)),
    ("Ends of text and variety", ("eos_fraction", "distinct_2")),
    ("Clipped share of policy ratios", ("clip_fraction",)),
    ("Gradient norm", ("grad_norm",)),
)
"""Title and curves of the small charts."""


def render_html(report: Report) -> str:
    """Autoescaped; a content security policy in the page forbids script and network besides."""
    environment = Environment(
        loader=PackageLoader("klaudit.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": format_number, "percent": format_percent, "pretty": write_pretty}
    numbers = {one.id: i for i, one in enumerate(report.findings, 1)}
    markers = {one.finding_id: (numbers[one.finding_id], one) for one in report.view.markers}
    page = environment.get_template("report.html.j2").render(
        report=report,
        numbers=numbers,
        reasons=REASONS,
        directions=DIRECTIONS,
        tell=tell_interval,
        units=UNIT_LABELS,
        name_rule=name_rule,
        verdict_word=VERDICT_WORDS.get(report.verdict, report.verdict),
        kl_chart=draw_kl_chart(report, number_markers(report.view, numbers)),
        drift_chart=draw_drift_chart(report),
        drift_rows=list_drift_rows(report.drift.points),
        panels=list_panels(report, number_markers(report.view, numbers)),
        draw=draw_chart,
        readings={one.id: list_evidence(one, markers[one.id]) for one in report.findings},
        facts={one.id: list_facts(one) for one in report.findings},
        evidence=escape_script(render_json(report)),
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def write_pretty(value: object) -> str:
    """JSON for people."""
    return json.dumps(to_plain(value), indent=2, ensure_ascii=False)


def escape_script(text: str) -> str:
    """JSON that cannot end its `<script>` element, nor open a comment in it; it still reads as the same JSON."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def number_markers(view: RunView, numbers: dict[str, int]) -> tuple[tuple[int, Marker], ...]:
    """Findings under the number that they have in the table."""
    return tuple((numbers[one.finding_id], one) for one in view.markers)


def draw_kl_chart(report: Report, markers: tuple[tuple[int, Marker], ...]) -> Chart | None:
    """The governing KL, other reference KLs of its unit, and the budgets that are levels of it."""
    first = report.view.governing
    if first is None:
        return None
    series = report.run.series
    others = (one for one in report.view.curves if one.key != first.key and one.key in series and series[one.key].kind == "reference")
    levels = tuple((f"budget {one.label}", one.limit) for one in report.view.budgets if one.is_line)
    return Chart(
        title=first.label,
        unit=first.unit,
        curves=(first, *(one for one in others if one.unit == first.unit)),
        levels=levels,
        markers=markers,
    )


def draw_drift_chart(report: Report) -> Chart | None:
    """Measured KL of the checkpoints over all prompts, beside the logged KL where that has the same unit."""
    points = tuple(one for one in report.drift.points if (one.slice, one.direction) == (None, "reverse") and one.step is not None)
    if not points:
        return None
    unit = points[0].unit
    logged = report.drift.logged
    return Chart(
        title="Drift of the checkpoints from the reference",
        unit=unit,
        curves=(logged,) if logged is not None and logged.unit == unit else (),
        levels=tuple((f"budget {label}", limit) for label, limit, budget_unit in report.drift.budgets if budget_unit == unit),
        points=tuple(one for one in points if one.unit == unit),
        x_label="updates done",
    )


def list_evidence(finding: Finding, marker: tuple[int, Marker]) -> list[tuple[Chart, str]]:
    """The charts of a finding's evidence, each with what it shows."""
    return [(to_chart(one, marker), one.statement) for one in draw_evidence(finding)]


def to_chart(evidence: EvidenceChart, marker: tuple[int, Marker]) -> Chart:
    """A chart of evidence: the readings and what was expected as lines, and the finding where the chart reaches it."""
    number, found = marker
    places = evidence.curves[0].steps
    is_there = evidence.x_label == "step" and min(places) <= found.step <= max(places)
    within = replace(found, first_step=max(found.first_step, min(places)), last_step=min(found.last_step, max(places)))
    return Chart(
        title=evidence.title,
        unit=evidence.unit,
        curves=(*evidence.curves, *([] if evidence.expected is None else [evidence.expected])),
        levels=evidence.levels,
        markers=((number, within),) if is_there else (),
        x_label=evidence.x_label,
        width=560,
        height=190,
    )


def list_drift_rows(points: Sequence[DriftPoint]) -> list[dict[str, DriftPoint]]:
    """One row for each checkpoint, direction and slice: its measurements by estimator, the best first."""
    rows: dict[tuple[object, ...], dict[str, DriftPoint]] = {}
    for one in points:
        rows.setdefault((one.step, one.checkpoint, one.direction, one.slice), {}).setdefault(one.estimator, one)
    return list(rows.values())


def list_panels(report: Report, markers: tuple[tuple[int, Marker], ...]) -> list[Chart]:
    """The small charts of everything that the run logged."""
    series = report.run.series
    own = [one for one in report.view.curves if one.key in series and series[one.key].kind != "reference"]
    groups = [(title, [curve for key in keys if (curve := report.view.curve(key)) is not None]) for title, keys in PANELS]
    groups[2:2] = [(one.label[:1].upper() + one.label[1:], [one]) for one in own]
    return [to_panel(title, curves, markers) for title, curves in groups if curves]


def to_panel(title: str, curves: list[Curve], markers: tuple[tuple[int, Marker], ...]) -> Chart:
    """A small chart: it marks the findings about its own series."""
    keys = {one.key for one in curves}
    own = tuple(one for one in markers if one[1].series in keys)
    return Chart(title=title, unit=curves[0].unit, curves=tuple(curves), markers=own, width=450, height=200)
