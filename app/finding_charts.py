"""Figures of a finding's evidence: its readings, what was expected of them, the threshold, and when it began and was detected."""

import html
import math
from typing import Any, Literal

import plotly.graph_objects as go

from charts import GREY, LINES, REACH, SEVERITIES, describe_curve, draw_limit, finite, open_figure, trace_band, trace_curve
from klaudit.report.views.evidence import EvidenceChart

EXPECTED_BAND = "rgba(138, 151, 158, 0.22)"
ROW = 17
"""Pixels of a row of labels above the chart."""
LEGEND_Y = -0.27
"""Below the axis of steps, so that labels have the room above the chart."""


def draw_evidence(chart: EvidenceChart, *, severity: str, height: int = 330) -> go.Figure:
    """One chart of a finding's readings."""
    color, symbol = SEVERITIES[severity]
    traces = [*trace_expected(chart), *trace_readings(chart), *trace_judged(chart, color=color, symbol=symbol)]
    figure = open_figure(height=height, has_legend=len(traces) > 1)
    figure.update_layout(margin={"t": 10 + ROW * len(chart.marks)}, legend={"yref": "paper", "yanchor": "top", "y": LEGEND_Y})
    low, high = find_reach(chart)
    shade_episode(figure, chart, color)
    figure.add_traces(traces)
    for label, level in chart.levels:
        draw_limit(figure, level, label, top=high, side=choose_side(chart, level))
    mark_moments(figure, chart, color)
    figure.update_yaxes(title_text=html.escape(chart.unit), range=[low, high], exponentformat="e")
    figure.update_xaxes(title_text=chart.x_label, range=find_width(chart))
    if chart.unit.startswith("share"):
        figure.update_yaxes(tickformat=".0%")
    return figure


def describe_evidence(chart: EvidenceChart) -> str:
    """The chart in words, for those who cannot see it."""
    expected = [] if chart.expected is None else [chart.expected.label]
    told = [*expected, *(label for label, _ in chart.levels), *(label for label, _ in chart.marks)]
    return " ".join([*(describe_curve(one) for one in chart.curves), f"{'; '.join(told)}." if told else ""]).strip()


def choose_side(chart: EvidenceChart, level: float) -> Literal["left", "right"]:
    """The end of a level's line at which its name stands: the left one, unless it would cover the readings there."""
    values = [one for one in chart.curves[0].values if math.isfinite(one)]
    third = max(1, len(values) // 3)
    near, far = (min((abs(one - level) for one in part), default=0.0) for part in (values[:third], values[-third:]))
    return "right" if far > 2 * near else "left"


def find_reach(chart: EvidenceChart) -> tuple[float, float]:
    """Lower and upper end of the axis: readings, what was expected, and the thresholds within reach."""
    curves = [*chart.curves, *([] if chart.expected is None else [chart.expected])]
    values = finite([value for one in curves for value in (*one.values, *(one.low or ()), *(one.high or ()))]) or [0.0]
    reach = REACH * max(values)
    values += [level for _, level in chart.levels if level <= max(reach, 0.0)]
    low, high = min(values), max(values)
    low = 0.0 if 0 <= low < 0.6 * high else low
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def find_width(chart: EvidenceChart) -> tuple[float, float]:
    """The readings' places, with a little room."""
    places = [place for one in chart.curves for place in one.steps]
    room = max(0.5, 0.03 * (max(places) - min(places)))
    return min(places) - room, max(places) + room


def trace_readings(chart: EvidenceChart) -> list[go.Scatter]:
    """The readings, each as a point on its line: they are few."""
    traces: list[go.Scatter] = []
    for at, (curve, (color, dash)) in enumerate(zip(chart.curves, LINES, strict=False)):
        line, *_ = trace_curve(curve, color, dash, width=2.2, name=html.escape(curve.label))
        line.update(mode="lines+markers", marker={"size": 5, "color": color}, hovertemplate=say_reading(chart, at))
        traces += [*(trace_band(curve) if at == 0 else ()), line]
    return traces


def say_reading(chart: EvidenceChart, at: int) -> str:
    """Hover text of a reading."""
    where = "step" if chart.x_label == "step" else "reading"
    return f"{html.escape(chart.curves[at].label)}<br>{where} %{{x}}: <b>%{{y:.4g}}</b> {html.escape(chart.unit)}<extra></extra>"


def trace_expected(chart: EvidenceChart) -> list[go.Scatter]:
    """What was expected, with its band."""
    if chart.expected is None:
        return []
    band = trace_band(chart.expected)
    for one in band:
        one.update(fillcolor=EXPECTED_BAND)
    line, *_ = trace_curve(chart.expected, GREY, "dash", name=html.escape(chart.expected.label))
    line.update(hoverinfo="skip", hovertemplate=None)
    return [*band, line]


def trace_judged(chart: EvidenceChart, *, color: str, symbol: str) -> list[go.Scatter]:
    """The reading that the finding tells of."""
    if chart.judged is None:
        return []
    place, value = chart.judged
    marker: dict[str, Any] = {"symbol": symbol, "size": 13, "color": color, "line": {"width": 1.5, "color": "white"}}
    return [
        go.Scatter(x=[place], y=[value], name="judged", mode="markers", marker=marker, hoverinfo="skip", cliponaxis=False),
    ]


def is_shaded(chart: EvidenceChart) -> bool:
    """Whether the episode is a part of what is drawn; shading all of it would tell nothing."""
    places = chart.curves[0].steps
    return chart.episode is not None and chart.episode != (min(places), max(places))


def shade_episode(figure: go.Figure, chart: EvidenceChart, color: str) -> None:
    """The steps of the episode."""
    if chart.episode is not None and is_shaded(chart):
        first, last = chart.episode
        span: dict[str, Any] = {"x0": first - 0.5, "x1": last + 0.5, "y0": 0, "y1": 1}
        figure.add_shape(
            type="rect", name="episode", xref="x", yref="paper", fillcolor=color, opacity=0.10, line_width=0, layer="below", **span
        )


def mark_moments(figure: go.Figure, chart: EvidenceChart, color: str) -> None:
    """When it began and when it was detected: lines, with their names in rows above the chart."""
    low, high = find_width(chart)
    for row, (label, place) in enumerate(chart.marks):
        is_last = row == len(chart.marks) - 1
        line = {"color": color if is_last else GREY, "width": 1.6, "dash": "solid" if is_last else "dot"}
        figure.add_shape(type="line", name=label, xref="x", yref="paper", x0=place, x1=place, y0=0, y1=1, line=line)
        figure.add_annotation(
            text=html.escape(label),
            x=place,
            xanchor="right" if place > (low + high) / 2 else "left",
            y=1,
            yref="paper",
            yanchor="bottom",
            yshift=ROW * (len(chart.marks) - 1 - row) - 2,
            showarrow=False,
            font={"color": color if is_last else GREY, "size": 12},
        )
