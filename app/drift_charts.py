"""Figures of measured drift: over checkpoints, between them, and within one."""

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from charts import AMBER, BLUE, GREEN, GREY, PURPLE, REACH, VERMILION, draw_limit, finite, open_figure, trace_band, trace_curve
from klaudit.records import Interval
from klaudit.report.views import DriftPoint, DriftView, format_significant
from klaudit.report.views.drift_matrix import MatrixView
from klaudit.report.views.drift_profile import CheckpointProfile, RetentionView, tell_interval
from sampled_text import reveal

HEAT = [[0.0, "rgba(217,120,20,0.05)"], [0.35, "rgba(217,120,20,0.40)"], [1.0, "rgba(212,60,30,0.74)"]]
"""The warm ramp of the token shades: it darkens a light page and lights up a dark one."""

INKS = ("#1d2b33", "#e3eaed")
"""Of numbers in the cells, on a light and on a dark page."""

SHADE = "rgba(138, 151, 158, 0.20)"

SLICES = (GREEN, PURPLE, AMBER, GREY)
"""Colours of the slices of a chart, in turn."""

MOST_LINES = 8
"""Slices that are drawn; more wait in the box of prompts."""

MOST_NUMBERS = 16
"""Rows of a matrix with a number in each cell; those of a larger one are told where the mouse points."""

LABEL = 34
"""Characters of a prompt that stand beside its bar."""


def draw_drift(
    view: DriftView, *, estimator: str, slice: str | None = None, direction: str = "reverse", at_step: int | None = None
) -> go.Figure:
    """Measured drift of the checkpoints with 95% intervals, beside the KL logged one step later; the slices as thin lines.

    Args:
        view: of the run.
        estimator: whose points.
        slice: of the prompts; None: all, with each slice as a line.
        direction: reverse or forward; only the former is logged by trainers and limited by budgets.
        at_step: the checkpoint that the page looks into.
    """
    figure = open_figure(height=430)
    points = [one for one in view.select(estimator, slice=slice, direction=direction) if one.step is not None]
    figure.add_traces([*trace_log(view, points, estimator=estimator), *trace_slices(view, estimator, slice, direction)])
    figure.add_trace(trace_intervals(points, view.interval))
    logged = view.logged if direction == "reverse" else None
    top = max([one.high for one in points if math.isfinite(one.high)] + finite(logged.values if logged else ()), default=0.0)
    for label, limit, unit in view.budgets if direction == "reverse" else ():
        if points and points[0].unit == unit:
            draw_limit(figure, limit, f"budget: {label}", top=top * REACH)
    if at_step is not None:
        line = {"color": GREY, "width": 1, "dash": "dot"}
        figure.add_shape(type="line", name="chosen", yref="paper", x0=at_step, x1=at_step, y0=0, y1=1, line=line, layer="below")
    figure.update_xaxes(title_text="updates done (checkpoint step)")
    figure.update_yaxes(title_text=points[0].label if points else "", rangemode="tozero")
    return figure


def trace_log(view: DriftView, points: Sequence[DriftPoint], *, estimator: str) -> list[go.Scatter]:
    """What the trainer logged of the same policies: as a curve where it is the same number, else where a checkpoint is."""
    logged = view.logged
    if logged is not None and points and (logged.estimator, logged.unit, points[0].direction) == (estimator, points[0].unit, "reverse"):
        return [*trace_band(logged), *trace_curve(logged, BLUE, "solid")]
    pairs = [(one.step, one.logged) for one in points if one.logged is not None]
    if not pairs:
        return []
    return [
        go.Scatter(
            x=[step for step, _ in pairs],
            y=[math.nan if one.value is None else one.value for _, one in pairs],
            text=[f"logged at step {one.logged_step}: {one.text}" for _, one in pairs],
            name=f"logged {pairs[0][1].label}",
            mode="lines+markers",
            line={"color": BLUE},
            marker={"symbol": "circle-open", "size": 9},
            hovertemplate="%{text}<extra></extra>",
        )
    ]


def trace_slices(view: DriftView, estimator: str, slice: str | None, direction: str) -> list[go.Scatter]:
    """Each slice of the prompts as a thin line; nothing where one slice is drawn alone."""
    names = list(dict.fromkeys(one.slice for one in view.points if one.slice is not None)) if slice is None else []
    found = [(name, [one for one in view.select(estimator, slice=name, direction=direction) if one.step is not None]) for name in names]
    furthest = sorted((one for one in found if one[1]), key=lambda one: -one[1][-1].value)[:MOST_LINES]
    dashes = ("dot", "dash")
    return [
        go.Scatter(
            x=[one.step for one in points],
            y=[one.value for one in points],
            text=[f"<b>slice {escape(name)}</b><br>{one.text}" for one in points],
            name=f"slice {escape(name)}",
            mode="lines+markers",
            line={"color": SLICES[at % len(SLICES)], "width": 1.4, "dash": dashes[at // len(SLICES) % len(dashes)]},
            marker={"size": 5},
            hovertemplate="%{text}<extra></extra>",
        )
        for at, (name, points) in enumerate(furthest)
    ]


def trace_intervals(points: Sequence[DriftPoint], interval: str) -> go.Scatter:
    """Measured drift with its error bars."""
    return go.Scatter(
        x=[one.step for one in points],
        y=[one.value for one in points],
        error_y=span([Interval(one.value, one.low, one.high) for one in points], VERMILION) | {"width": 7},
        text=[f"<b>{escape(one.checkpoint)}</b><br>{one.text}<br>{one.n_sequences:,} sequences" for one in points],
        name=f"Measured, {interval}",
        mode="markers",
        marker={"symbol": "diamond", "size": 11, "color": VERMILION},
        hovertemplate="%{text}<extra></extra>",
    )


def draw_matrix(view: MatrixView, *, is_dark: bool = False) -> go.Figure:
    """KL(row ‖ column) between every two checkpoints, with its number in each cell, in an ink that reads on the page's theme."""
    n = len(view.names)
    names = [escape(one) for one in view.names]
    texts = [
        ["" if math.isnan(one) else "0" if i == j else format_significant(one) for j, one in enumerate(row)]
        for i, row in enumerate(view.values)
    ]
    hovers = [
        [f"{names[i]} ‖ {names[j]}<br><b>{escape(text)}</b> ({view.estimator})" for j, text in enumerate(row)]
        for i, row in enumerate(view.texts)
    ]
    figure = open_figure(height=max(300, 44 * n + 130), has_legend=False)
    figure.add_trace(
        go.Heatmap(
            {
                "x": names,
                "y": names,
                "z": view.values,
                "hovertext": hovers,
                "hovertemplate": "%{hovertext}<extra></extra>",
                "colorscale": HEAT,
                "zmin": 0,
                "xgap": 2,
                "ygap": 2,
                "colorbar": {"title": {"text": view.unit, "side": "right"}, "thickness": 12, "outlinewidth": 0},
            }
        )
    )
    if n <= MOST_NUMBERS:
        # A heat map chooses the ink of its own numbers as if its half-transparent cells lay on white.
        places = [(names[j], names[i], texts[i][j]) for i in range(n) for j in range(n)]
        x, y, text = ([place[at] for place in places] for at in range(3))
        figure.add_trace(
            go.Scatter(
                {"x": x, "y": y, "text": text, "mode": "text", "textfont": {"size": 13, "color": INKS[is_dark]}, "hoverinfo": "skip"}
            )
        )
    # A category each, or Plotly takes steps for places on a scale.
    figure.update_yaxes(title_text="written by checkpoint", type="category", autorange="reversed", showgrid=False)
    figure.update_xaxes(title_text="compared with checkpoint", type="category", showgrid=False)
    return figure


def draw_retention(profiles: Sequence[CheckpointProfile]) -> go.Figure:
    """Perplexity of the checkpoints and of the reference; below it the rise, whose interval is of the same passages and so far narrower."""
    kept = [(one, one.retention) for one in profiles if one.retention is not None]
    names, views = [name_on_axis(one) for one, _ in kept], [one for _, one in kept]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.56, 0.44], vertical_spacing=0.06)
    figure.update_layout(open_figure(height=420).to_dict()["layout"])
    figure.add_traces([*trace_reference(names, views), trace_perplexity(names, views)], rows=[1, 1, 1], cols=[1, 1, 1])
    figure.add_trace(trace_rise(names, views), row=2, col=1)
    figure.add_hline(y=0, line={"color": GREY, "width": 1.2, "dash": "dot"}, row=2, col=1)
    figure.update_yaxes(title_text="perplexity", row=1, col=1)
    figure.update_yaxes(title_text="rise, %", row=2, col=1)
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=names)
    figure.update_xaxes(title_text="updates done (checkpoint step)", row=2, col=1)
    return figure


def trace_reference(names: Sequence[str], kept: Sequence[RetentionView]) -> list[go.Scatter]:
    """The reference's perplexity as a level with its interval."""
    lows, highs = [one.reference.low for one in kept], [one.reference.high for one in kept]
    band = go.Scatter(
        x=[*names, *reversed(names)],
        y=[*highs, *reversed(lows)],
        name="its 95% interval",
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=SHADE,
        hoverinfo="skip",
    )
    line = go.Scatter(
        x=names,
        y=[one.reference.value for one in kept],
        name="Reference",
        mode="lines+markers",
        line={"color": GREY, "width": 1.6, "dash": "dot"},
        marker={"symbol": "circle-open", "size": 8},
        hovertemplate="reference: <b>%{y:.3g}</b><extra></extra>",
    )
    return [line, band]


def trace_perplexity(names: Sequence[str], kept: Sequence[RetentionView]) -> go.Scatter:
    """The checkpoints' perplexity with its interval."""
    return go.Scatter(
        x=names,
        y=[one.policy.value for one in kept],
        error_y=span([one.policy for one in kept], VERMILION),
        text=[escape(one.statement).replace(": ", ":<br>", 1) for one in kept],
        name="Checkpoint",
        mode="lines+markers",
        line={"color": VERMILION, "width": 1.6},
        marker={"symbol": "diamond", "size": 10},
        hovertemplate="%{text}<extra></extra>",
    )


def trace_rise(names: Sequence[str], kept: Sequence[RetentionView]) -> go.Scatter:
    """How much higher the checkpoints' perplexity is on the same passages, percent, with its interval."""
    return go.Scatter(
        x=names,
        y=[one.rise_percent.value for one in kept],
        error_y=span([one.rise_percent for one in kept], PURPLE),
        text=[f"rise <b>{tell_interval(one.rise_percent)}%</b>, paired by passage" for one in kept],
        name="Rise over the reference, paired by passage",
        mode="lines+markers",
        line={"color": PURPLE, "width": 1.6},
        marker={"symbol": "square", "size": 8},
        hovertemplate="%{text}<extra></extra>",
    )


def draw_layers(profile: CheckpointProfile) -> go.Figure:
    """How far the weights of each layer of one checkpoint moved, in the order of the forward pass."""
    layers = profile.layers
    figure = open_figure(height=find_layer_height(len(layers)), has_legend=False)
    figure.add_trace(
        go.Bar(
            {
                "x": [100 * one.relative_l2 for one in layers],
                "y": [escape(one.layer) for one in layers],
                "orientation": "h",
                "marker": {"color": BLUE, "line": {"width": 0}},
                "customdata": [f"{one.n_parameters:,}" for one in layers],
                "hovertemplate": "%{y}: <b>%{x:.3g}%</b> of the reference's norm<br>%{customdata} parameters<extra></extra>",
            }
        )
    )
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False)
    figure.update_xaxes(title_text="relative L2 distance, %", rangemode="tozero")
    return figure


def draw_layers_over_checkpoints(profiles: Sequence[CheckpointProfile], points: Sequence[DriftPoint]) -> go.Figure:
    """Weights by layer and checkpoint, below the drift of the same checkpoints."""
    kept = [one for one in profiles if one.layers]
    names = [name_on_axis(one) for one in kept]
    layers = list(dict.fromkeys(layer.layer for one in sorted(kept, key=lambda one: -len(one.layers)) for layer in one.layers))
    moved = [{layer.layer: 100 * layer.relative_l2 for layer in one.layers} for one in kept]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.24, 0.76], vertical_spacing=0.04)
    figure.update_layout(open_figure(height=find_layer_height(len(layers)), has_legend=False).to_dict()["layout"])
    drift = {(one.step, one.checkpoint): one for one in points}
    found = [(name, drift[one.step, one.checkpoint]) for name, one in zip(names, kept, strict=True) if (one.step, one.checkpoint) in drift]
    figure.add_trace(
        go.Scatter(
            x=[name for name, _ in found],
            y=[one.value for _, one in found],
            error_y=span([Interval(one.value, one.low, one.high) for _, one in found], VERMILION),
            text=[one.text for _, one in found],
            mode="lines+markers",
            line={"color": VERMILION, "width": 1.4},
            marker={"symbol": "diamond", "size": 9},
            hovertemplate="update %{x}: %{text}<extra></extra>",
        ),
        row=1,
        col=1,
    )
    figure.add_trace(
        go.Heatmap(
            {
                "x": names,
                "y": [escape(one) for one in layers],
                "z": [[one.get(layer, math.nan) for one in moved] for layer in layers],
                "colorscale": HEAT,
                "zmin": 0,
                "xgap": 1,
                "ygap": 1,
                "colorbar": {"title": {"text": "%", "side": "right"}, "thickness": 12, "len": 0.72, "y": 0.36, "outlinewidth": 0},
                "hovertemplate": "%{y} after update %{x}: <b>%{z:.3g}%</b><extra></extra>",
            }
        ),
        row=2,
        col=1,
    )
    figure.update_yaxes(title_text=found[0][1].unit if found else "", rangemode="tozero", nticks=4, row=1, col=1)
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False, row=2, col=1)
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=names)
    figure.update_xaxes(title_text="updates done (checkpoint step)", showgrid=False, row=2, col=1)
    return figure


def find_layer_height(n: int) -> int:
    """Pixels of a chart with a row for each layer."""
    return max(340, 17 * n + 180)


def name_on_axis(profile: CheckpointProfile) -> str:
    """A checkpoint's step, or its name where it is of no run."""
    return escape(shorten(profile.name)) if profile.step is None else f"{profile.step:,}"


def span(values: Sequence[Interval], color: str) -> dict[str, Any]:
    """Error bars of intervals."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [one.high - one.value for one in values],
        "arrayminus": [one.value - one.low for one in values],
        "thickness": 2,
        "width": 5,
        "color": color,
    }


def escape(text: str) -> str:
    """Text for Plotly, which reads a little HTML."""
    return html.escape(text)


def shorten(text: str) -> str:
    """One line of at most `LABEL` characters, of which the middle is left out: prompts differ at either end."""
    line = reveal(text).replace("\n", " ")
    return line if len(line) <= LABEL else f"{line[: LABEL // 2]}…{line[-LABEL // 2 + 1 :]}"


def describe_drift(points: Sequence[DriftPoint]) -> str:
    """Measurements in words, for those who cannot see them."""
    return "Drift of checkpoints. " + "; ".join(f"step {one.step}: {one.text}" for one in points)


def describe_matrix(view: MatrixView) -> str:
    """The matrix in words."""
    row, column, text = view.furthest
    return f"KL between {len(view.names)} models in {view.unit}; the largest is {row} against {column}: {text}."


def describe_layers(profile: CheckpointProfile) -> str:
    """The layers in words."""
    return "Weights by layer. " + "; ".join(f"{one.layer}: {format_significant(100 * one.relative_l2)}%" for one in profile.layers)


def describe_retention(profiles: Sequence[CheckpointProfile]) -> str:
    """Perplexities in words."""
    return "Perplexity. " + "; ".join(f"{one.label}: {one.retention.statement}" for one in profiles if one.retention is not None)
