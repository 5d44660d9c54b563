"""Figures of views: SVG traces, colours that read on a light and on a dark page, every axis with its unit.

Two colours never mean the same thing and colour never means it alone: lines differ in dash, findings in symbol
(colours after Okabe and Ito 2008, "Color Universal Design").
"""

import html
import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import plotly.graph_objects as go

from klaudit.records import PRIMARY
from klaudit.report.views import NOT_MEASURED, Curve, Gap, Marker, RunView, format_number

BLUE, VERMILION, GREEN, AMBER, PURPLE, GREY = "#2f7fb5", "#d4542a", "#1d9a78", "#d9961a", "#9a6fb0", "#8a979e"
BAND = "rgba(47, 127, 181, 0.20)"
LINES = ((BLUE, "solid"), (AMBER, "solid"), (GREEN, "dash"), (PURPLE, "dot"), (GREY, "dashdot"))
"""Colour and dash of the curves of one chart, in turn."""

SEVERITIES = {"critical": (VERMILION, "x"), "warning": (AMBER, "triangle-up"), "info": (GREY, "circle")}
"""Colour and symbol of a finding, the worst first."""

REACH = 4.0
"""A limit more than this many times above the highest point is named in the margin, so that it does not flatten the curve."""

PIN = 0.05
"""How far above the curve a finding is pinned, in parts of the axis."""

PROBE = "kl_probe"
"""How the keys of what the live probe measures begin."""

NEAR = 100
"""Steps to both sides of a step that a link names."""

N_SHADED = 50
"""Gaps that are shaded; the rest is told in words."""


def draw_kl(view: RunView, *, at_step: int | None = None) -> go.Figure:
    """The governing KL with its band, the budgets that limit its level, findings, checkpoints and gaps; the neighbourhood of one step."""
    figure = open_figure(height=460)
    curve = view.governing
    if curve is None:
        return figure
    limits = [one for one in view.budgets if one.is_line]
    low, high = find_range(curve, [one.limit for one in limits])
    figure.add_traces([*trace_band(curve), *trace_curve(curve, BLUE, "solid", width=2.4, name=to_sentence(name_kl(curve)))])
    for other, (color, dash) in zip(list_same_kls(view), LINES[1:], strict=False):
        is_trainers = other.key == PRIMARY and curve.is_sparse
        figure.add_traces(trace_curve(other, color, dash, visible=True if is_trainers else "legendonly", name=name_estimator(other)))
    for budget in limits:
        draw_limit(figure, budget.limit, f"budget: {budget.label}", top=high)
    shade_gaps(figure, curve)
    mark_resumes(figure, curve)
    figure.add_traces([*trace_checkpoints(view.checkpoint_steps, low), *trace_findings(view.markers, low, high)])
    figure.update_yaxes(title_text=title_of(curve), range=[low, high])
    if at_step is not None and curve.steps and min(curve.steps) <= at_step <= max(curve.steps):
        show_step(figure, at_step, least=min(curve.steps), most=max(curve.steps))
        return label_steps(figure, f"{view.run_id} {at_step}")
    return label_steps(figure, view.run_id)


def show_step(figure: go.Figure, step: int, *, least: int, most: int) -> None:
    """Name one step, and show no more than its neighbourhood of a long run."""
    figure.add_shape(
        type="line", name="linked", yref="paper", x0=step, x1=step, y0=0, y1=1, line={"color": GREY, "width": 1.5}, layer="below"
    )
    font = {"color": GREY, "size": 12}
    text = f"step {step:,}"
    figure.add_annotation(text=text, yref="paper", x=step, y=0, xanchor="left", xshift=4, yanchor="bottom", showarrow=False, font=font)
    if most - least > 2 * NEAR:
        figure.update_xaxes(range=[max(least, step - NEAR), min(most, step + NEAR)])


def draw_curves(curves: Sequence[Curve], *, height: int = 260) -> go.Figure:
    """Curves of one unit in one chart."""
    figure = open_figure(height=height, has_legend=len(curves) > 1)
    for curve, (color, dash) in zip(curves, LINES, strict=False):
        figure.add_traces([*(trace_band(curve) if len(curves) == 1 else ()), *trace_curve(curve, color, dash)])
    if len(curves) == 1:
        shade_gaps(figure, curves[0])
    mark_resumes(figure, max(curves, key=lambda one: len(one.resumes)), has_names=False)
    figure.update_yaxes(title_text=curves[0].unit, range=find_constant_range(curves))
    return label_steps(figure, " ".join(one.key for one in curves))


def list_same_kls(view: RunView) -> list[Curve]:
    """KLs that are drawn beside the governing one: of the same two models and in the same unit, by other estimators or on other samples."""
    main = view.governing
    if main is None:
        return []
    alike = [one for one in view.curves if one.estimator and one.unit == main.unit and read_name(one) == read_name(main)]
    return [one for one in alike if one.key != main.key][: len(LINES) - 1]


def list_other_kls(view: RunView) -> list[Curve]:
    """KLs that are not in the chart of the governing one."""
    drawn = {one.key for one in list_same_kls(view)} | {"" if view.governing is None else view.governing.key}
    return [one for one in view.curves if one.estimator and one.key not in drawn]


def read_name(curve: Curve) -> str:
    """Which KL, without estimator and unit."""
    return curve.label.partition(" (")[0]


def name_estimator(curve: Curve) -> str:
    """What tells a KL from others of the same two models and unit."""
    return f"{curve.estimator} estimator{', live probe' if curve.key.startswith(PROBE) else ''}"


def name_kl(curve: Curve) -> str:
    """Label of a KL, and whether the live probe measured it."""
    return f"{curve.label}{', live probe' if curve.key.startswith(PROBE) else ''}"


def find_gaps_to_tell(curve: Curve) -> list[Gap]:
    """Gaps that are worth a word: of a curve that is measured now and then, only those where the number itself is broken."""
    return [one for one in curve.gaps if not (curve.is_sparse and one.kind == NOT_MEASURED)]


def say_sparse(curve: Curve) -> str:
    """How often a curve is measured that is not measured at most steps."""
    return (
        f"measured at {curve.n_points - sum(one.n_steps for one in curve.gaps):,} of {curve.n_points:,} steps; nothing is known in between"
    )


def describe_curve(curve: Curve) -> str:
    """A curve in words, for those who cannot see it."""
    values = finite(curve.values)
    if not values or curve.last is None:
        return f"{curve.label}: no finite value."
    step, last = curve.last
    lowest, highest = format_number(min(values)), format_number(max(values))
    return f"{curve.label}: from {lowest} to {highest} {curve.unit}, {format_number(last)} at step {step}. {curve.statement}."


def open_figure(*, height: int, has_legend: bool = True) -> go.Figure:
    """An empty figure in the house's layout."""
    figure = go.Figure()
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 36 if has_legend else 8, "b": 8},
        hovermode="closest",
        legend={"orientation": "h", "yref": "container", "yanchor": "top", "y": 1, "xanchor": "left", "x": 0},
        hoverlabel={"align": "left"},
        showlegend=has_legend,
    )
    return figure


def label_steps(figure: go.Figure, revision: str) -> go.Figure:
    """Name the axis of steps; a zoom stays while `revision` stays."""
    figure.update_xaxes(title_text="step")
    figure.update_yaxes(exponentformat="e")
    figure.update_layout(uirevision=revision)
    return figure


def title_of(curve: Curve) -> str:
    """Axis title: what and in which unit."""
    return curve.label if curve.unit in curve.label else f"{curve.label}, {curve.unit}"


def to_sentence(label: str) -> str:
    """With a capital at its head, and abbreviations as they are."""
    return label[:1].upper() + label[1:]


def finite(values: Sequence[float]) -> list[float]:
    """Those that are finite."""
    return [one for one in values if math.isfinite(one)]


def find_range(curve: Curve, limits: Sequence[float]) -> tuple[float, float]:
    """Lower and upper end of the axis: zero, curve and band, and the limits within reach."""
    values = finite([*curve.values, *(curve.low or ()), *(curve.high or ())])
    top = max(values, default=1.0)
    top = max([top, *(one for one in limits if one <= REACH * top)])
    bottom = min([0.0, *values])
    margin = 0.08 * (top - bottom) or 1.0
    return bottom - margin, top + margin


def find_constant_range(curves: Sequence[Curve]) -> tuple[float, float] | None:
    """From zero to twice the value where all are one value: left alone, Plotly would show -1 to 1 around it."""
    values = {value for curve in curves for value in finite(curve.values)}
    value = values.pop() if len(values) == 1 else 0.0
    return (min(0.0, 2 * value), max(0.0, 2 * value)) if value else None


def trace_curve(curve: Curve, color: str, dash: str, *, width: float = 2.0, visible: bool | str = True, name: str = "") -> list[go.Scatter]:
    """The line, and dots for points that stand alone between gaps, because a line cannot show them; of a sparse curve, its points alone."""
    edges = zip(curve.low or (), curve.high or (), strict=True)
    bounds = [f"<br>{curve.band}: {format_number(low)} to {format_number(high)}" for low, high in edges]
    line = go.Scatter(
        x=curve.steps,
        y=curve.values,
        text=bounds or None,
        name=name or to_sentence(curve.label),
        legendrank=1,
        mode="lines",
        line={"color": color, "dash": dash, "width": width},
        connectgaps=False,
        visible=visible,
        hovertemplate=f"{curve.label}<br>step %{{x}}: <b>%{{y:.4g}}</b> {curve.unit}{'%{text}' if bounds else ''}<extra></extra>",
    )
    if curve.is_sparse:
        line.update(mode="markers", marker={"size": 8, "color": color}, error_y=draw_errors(curve, color))
        return [line]
    alone = [(curve.steps[start], curve.values[start]) for start, stop in find_stretches(curve.values) if stop == start + 1]
    dots = go.Scatter(
        x=[step for step, _ in alone],
        y=[value for _, value in alone],
        name="Point between gaps",
        mode="markers",
        marker={"size": 6, "color": color},
        showlegend=False,
        visible=visible,
        hoverinfo="skip",
    )
    return [line, dots] if alone else [line]


def draw_errors(curve: Curve, color: str) -> dict[str, Any] | None:
    """The band as error bars."""
    if curve.high is None:
        return None
    errors = [high - value for high, value in zip(curve.high, curve.values, strict=True)]
    return {"type": "data", "array": errors, "thickness": 1.5, "width": 4, "color": color}


def trace_band(curve: Curve) -> list[go.Scatter]:
    """The band as one polygon for each stretch between gaps; nothing where the curve has none, or is points."""
    if curve.low is None or curve.high is None or curve.is_sparse:
        return []
    x: list[float] = []
    y: list[float] = []
    for start, stop in find_stretches(curve.high):
        steps = curve.steps[start:stop]
        x += [*steps, *reversed(steps), math.nan]
        y += [*curve.high[start:stop], *reversed(curve.low[start:stop]), math.nan]
    return [
        go.Scatter(x=x, y=y, name=curve.band, mode="lines", line={"width": 0}, fill="toself", fillcolor=BAND, hoverinfo="skip"),
    ]


def find_stretches(values: Sequence[float]) -> list[tuple[int, int]]:
    """Index ranges without a gap."""
    stretches: list[tuple[int, int]] = []
    for i, value in enumerate(values):
        if not math.isfinite(value):
            continue
        if stretches and stretches[-1][1] == i:
            stretches[-1] = (stretches[-1][0], i + 1)
        else:
            stretches.append((i, i + 1))
    return stretches


def trace_checkpoints(steps: Sequence[int], height: float) -> list[go.Scatter]:
    """Saved policies along the foot of the chart."""
    if not steps:
        return []
    marker = {"symbol": "diamond", "size": 9, "color": GREY}
    hover = "checkpoint saved after update %{x}<extra></extra>"
    return [
        go.Scatter(
            x=steps, y=[height] * len(steps), name="Checkpoint", mode="markers", marker=marker, hovertemplate=hover, cliponaxis=False
        )
    ]


def trace_findings(markers: Sequence[Marker], low: float, high: float) -> list[go.Scatter]:
    """Findings just above the curve where they were detected, so that neither hides the other; at the foot where it has no value."""
    traces, lift = [], PIN * (high - low)
    for severity, (color, symbol) in SEVERITIES.items():
        chosen = [one for one in markers if one.severity == severity]
        if chosen:
            traces.append(
                go.Scatter(
                    x=[one.step for one in chosen],
                    y=[low if one.value is None else one.value + lift for one in chosen],
                    ids=[one.finding_id for one in chosen],
                    text=[describe_marker(one) for one in chosen],
                    name=f"{severity.capitalize()} finding",
                    mode="markers",
                    marker={"symbol": symbol, "size": 13, "color": color, "line": {"width": 1.5, "color": "white"}},
                    hovertemplate="%{text}<extra></extra>",
                    cliponaxis=False,
                )
            )
    return traces


def describe_marker(marker: Marker) -> str:
    """Hover text of a finding; what comes from outside is escaped, because Plotly reads a little HTML."""
    head = f"<b>{html.escape(marker.code)} {html.escape(marker.rule)}</b>, {marker.severity}, step {marker.step}"
    return "<br>".join([head, *map(html.escape, textwrap.wrap(marker.message, 60))])


def draw_limit(figure: go.Figure, limit: float, label: str, *, top: float, side: Literal["left", "right"] = "left") -> None:
    """A limit as a dashed line with its name at one end of it, or in the margin where it lies above the chart."""
    font = {"color": VERMILION, "size": 13}
    if limit > top:
        text = f"↑ {html.escape(label)}, above this chart"
        figure.add_annotation(text=text, xref="paper", yref="paper", x=1, y=1, xanchor="right", yanchor="top", showarrow=False, font=font)
        return
    figure.add_shape(
        type="line", name=label, xref="paper", x0=0, x1=1, y0=limit, y1=limit, line={"color": VERMILION, "width": 2, "dash": "dash"}
    )
    end = 0 if side == "left" else 1
    figure.add_annotation(text=html.escape(label), xref="paper", x=end, y=limit, xanchor=side, yanchor="bottom", showarrow=False, font=font)


def shade_gaps(figure: go.Figure, curve: Curve) -> None:
    """Grey where the curve has no finite value, so that a gap does not pass for calm."""
    for gap in find_gaps_to_tell(curve)[:N_SHADED]:
        span: dict[str, Any] = {"x0": gap.first_step - 0.5, "x1": gap.last_step + 0.5}
        figure.add_shape(
            type="rect", name=gap.kind, yref="paper", y0=0, y1=1, fillcolor=GREY, opacity=0.22, line_width=0, layer="below", **span
        )
        middle = (gap.first_step + gap.last_step) / 2
        figure.add_annotation(
            text=gap.kind, yref="paper", x=middle, y=0, yanchor="bottom", showarrow=False, font={"color": GREY, "size": 12}
        )


def mark_resumes(figure: go.Figure, curve: Curve, *, has_names: bool = True) -> None:
    """A thin line where a resume began a new segment."""
    for step in curve.resumes[:N_SHADED]:
        line = {"color": GREY, "width": 1, "dash": "dot"}
        figure.add_shape(type="line", name="resumed", yref="paper", x0=step, x1=step, y0=0, y1=1, line=line, layer="below")
        if has_names:
            font = {"color": GREY, "size": 12}
            figure.add_annotation(
                text="resumed", yref="paper", x=step, y=1, xanchor="left", xshift=3, yanchor="top", showarrow=False, font=font
            )
