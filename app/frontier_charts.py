"""Figures of reward against d = sqrt(KL per sequence): points, fitted curves with their bands, the peak."""

import html
import math
from collections.abc import Sequence

import plotly.graph_objects as go

from charts import AMBER, BLUE, GREEN, finite, open_figure
from klaudit.report.views.frontier import FittedCurve, FrontierSeries, FrontierView, PeakMark

COLORS = {"score": BLUE, "heldout_score": AMBER}
BANDS = {"score": "rgba(47, 127, 181, 0.20)", "heldout_score": "rgba(217, 150, 26, 0.22)"}
PEAK_BAND = "rgba(29, 154, 120, 0.16)"
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "pentagon", "hexagram", "triangle-down", "x")
"""Of the runs, in turn."""

NAMES = {"score": "Score, trained on", "heldout_score": "Held-out score"}


def draw_frontier(view: FrontierView) -> go.Figure:
    """Score and held-out score against d, the better curve of each with its band, and d* where it was seen."""
    figure = open_figure(height=520)
    figure.update_layout(margin={"t": 36 + 20 * (len(view.series) // 3)})
    is_sweep = len(view.series) > 1
    for curve in view.curves:
        figure.add_traces(trace_fit(curve))
    for at, series in enumerate(view.series):
        symbol = SYMBOLS[at % len(SYMBOLS)]
        figure.add_traces(trace_points(series, symbol=symbol, is_sweep=is_sweep))
    if view.peak is not None:
        mark_peak(figure, view.peak, reach=max((d for one in view.series for d in one.d), default=0.0))
    figure.update_xaxes(title_text="d = sqrt(KL to reference per sequence), sqrt(nats)", rangemode="tozero")
    figure.update_yaxes(title_text="score, reward")
    return figure


def trace_points(series: FrontierSeries, *, symbol: str, is_sweep: bool) -> list[go.Scatter]:
    """The points of one run; of a sweep its symbol tells it, and the legend names it once."""
    traces = []
    for of, values in (("score", series.score), ("heldout_score", series.heldout)):
        kept = [(step, d, value) for step, d, value in zip(series.steps, series.d, values, strict=True) if value is not None]
        if not kept:
            continue
        has_heldout = any(one is not None for one in series.heldout)
        is_named = not is_sweep or of == ("heldout_score" if has_heldout else "score")
        traces.append(
            go.Scatter(
                x=[d for _, d, _ in kept],
                y=[value for _, _, value in kept],
                text=[f"step {step}<br>KL {d * d:.3g} nats/sequence" for step, d, _ in kept],
                name=html.escape(series.label) if is_sweep else NAMES[of],
                legendgroup=series.run if is_sweep else of,
                showlegend=is_named,
                mode="markers",
                marker={"symbol": symbol, "size": 8 if of == "heldout_score" else 6, "color": COLORS[of], "opacity": 0.85},
                hovertemplate=f"{html.escape(series.run)}, %{{text}}<br>{NAMES[of]} <b>%{{y:.3g}}</b> reward at d %{{x:.3g}} sqrt(nats)<extra></extra>",
            )
        )
    return traces


def trace_fit(curve: FittedCurve) -> list[go.Scatter]:
    """A fitted curve with its 95% band; the form that fits less well waits in the legend."""
    color = COLORS[curve.of]
    form = "RL form" if curve.form == "rl" else "best-of-n form"
    line = go.Scatter(
        x=curve.d,
        y=curve.value,
        name=f"{NAMES[curve.of]}: {form}, 95% band" if curve.is_better else f"{NAMES[curve.of]}: {form}",
        legendgroup=f"{curve.of}-{curve.form}",
        legendrank=900,
        mode="lines",
        line={"color": color, "width": 2.4, "dash": "solid" if curve.is_better else "dot"},
        visible=True if curve.is_better else "legendonly",
        hovertemplate=f"{form}<br>d %{{x:.3g}} sqrt(nats): <b>%{{y:.3g}}</b> reward<extra></extra>",
    )
    if not curve.is_better:
        return [line]
    band = go.Scatter(
        x=[*curve.d, *reversed(curve.d)],
        y=[*curve.high, *reversed(curve.low)],
        name="95% band",
        legendgroup=f"{curve.of}-{curve.form}",
        showlegend=False,
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=BANDS[curve.of],
        hoverinfo="skip",
    )
    return [band, line]


def mark_peak(figure: go.Figure, peak: PeakMark, *, reach: float) -> None:
    """A line at d* and its interval shaded, as far as the axis goes."""
    low, high = max(peak.low, 0.0), min(peak.high, max(reach, peak.d))
    figure.add_shape(
        type="rect", name="interval of d*", yref="paper", x0=low, x1=high, y0=0, y1=1, fillcolor=PEAK_BAND, line_width=0, layer="below"
    )
    figure.add_shape(
        type="line", name="d*", yref="paper", x0=peak.d, x1=peak.d, y0=0, y1=1, line={"color": GREEN, "width": 2, "dash": "dash"}
    )
    figure.add_annotation(
        text=peak.text,
        yref="paper",
        x=high,
        y=0.02,
        xanchor="left",
        xshift=6,
        yanchor="bottom",
        showarrow=False,
        font={"color": GREEN, "size": 13},
    )


def describe_frontier(view: FrontierView) -> str:
    """The figure in words, for those who cannot see it."""
    spans = [describe_series(one) for one in view.series]
    return "Score and held-out score against d. " + " ".join([*spans, *view.sentences])


def describe_series(series: FrontierSeries) -> str:
    """One run of the figure in words."""
    scores = [span_of("score", series.score), span_of("held-out score", series.heldout)]
    return f"{series.run}: d up to {max(series.d):.3g} sqrt(nats){''.join(scores)}."


def span_of(name: str, values: Sequence[float | None]) -> str:
    """Where a score began and ended."""
    known = finite([math.nan if one is None else one for one in values])
    return f", {name} from {known[0]:.3g} to {known[-1]:.3g} reward" if known else ""
