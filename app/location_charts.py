"""Figures of where the drift of one checkpoint is: by place in the completion, by prompt, by slice of the prompts."""

import math
import textwrap
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from charts import BAND, BLUE, GREY, VERMILION, open_figure
from drift_charts import escape, shorten, span
from klaudit.records import Interval
from klaudit.report.views import format_number
from klaudit.report.views.drift_location import Positions, PromptDrift
from klaudit.report.views.drift_profile import SliceView
from sampled_text import reveal

ROW = 26
"""Pixels of a row of a chart with a name on each."""


def draw_positions(positions: Positions, *, direction: str) -> go.Figure:
    """Mean KL of each place in the completion with its interval, and how many completions reach it."""
    places = list(range(1, len(positions.mean) + 1))
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.76, 0.24], vertical_spacing=0.06)
    figure.update_layout(open_figure(height=340, has_legend=False).to_dict()["layout"])
    known = [at for at, one in enumerate(positions.high) if math.isfinite(one)]
    band = go.Scatter(
        x=[places[at] for at in (*known, *reversed(known))],
        y=[*(positions.high[at] for at in known), *(positions.low[at] for at in reversed(known))],
        name="95% interval over prompts",
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=BAND,
        hoverinfo="skip",
    )
    spans = [f"95% interval {format_number(low)} to {format_number(high)}" for low, high in zip(positions.low, positions.high, strict=True)]
    line = go.Scatter(
        x=places,
        y=positions.mean,
        text=spans,
        name=f"mean {direction}",
        mode="lines+markers" if len(places) <= 64 else "lines",
        line={"color": BLUE, "width": 2.2},
        marker={"size": 5},
        hovertemplate="token %{x}: <b>%{y:.3g}</b> nats/token<br>%{text}<extra></extra>",
    )
    alive = go.Bar(
        {
            "x": places,
            "y": positions.n_sequences,
            "name": "completions that reach it",
            "marker": {"color": GREY, "line": {"width": 0}},
            "hovertemplate": "token %{x}: %{y:,} completions<extra></extra>",
        }
    )
    for trace, row in ((band, 1), (line, 1), (alive, 2)):
        figure.add_trace(trace, row=row, col=1)
    figure.update_layout(bargap=0.1)
    figure.update_yaxes(title_text="nats/token", range=find_reach(positions), row=1, col=1)
    figure.update_yaxes(title_text="completions", rangemode="tozero", nticks=3, row=2, col=1)
    figure.update_xaxes(title_text="place in the completion, tokens", row=2, col=1)
    return figure


def find_reach(positions: Positions) -> tuple[float, float] | None:
    """Zero to a little above the highest mean: the interval of the last few completions is wide, and would flatten the rest."""
    means = [one for one in positions.mean if math.isfinite(one)]
    top = max((one for one in positions.high if math.isfinite(one)), default=0.0)
    return (0.0, min(1.05 * top, 1.8 * max(means)) or 1.0) if means and top > 0 else None


def draw_prompts(prompts: Sequence[PromptDrift], *, reach: float) -> go.Figure:
    """A bar for each prompt, with a line from its lowest to its highest completion.

    Args:
        prompts: of one page, most drifted first.
        reach: of the axis, nats per sequence: of all pages, so that bars of two pages compare.
    """
    figure = open_figure(height=ROW * len(prompts) + 64, has_legend=False)
    places = list(range(len(prompts)))
    figure.add_trace(
        go.Bar(
            {
                "x": [one.mean for one in prompts],
                "y": places,
                "orientation": "h",
                "marker": {"color": VERMILION, "opacity": 0.75, "line": {"width": 0}},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [one.highest - one.mean for one in prompts],
                    "arrayminus": [one.mean - one.lowest for one in prompts],
                    "color": GREY,
                    "thickness": 1.5,
                    "width": 4,
                },
                "text": [describe_prompt(one) for one in prompts],
                "textposition": "none",
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    )
    names = [escape(shorten(one.prompt)) for one in prompts]
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, tickvals=places, ticktext=names)
    figure.update_xaxes(
        title_text="nats/sequence", rangemode="tozero", range=[0, 1.04 * reach] if math.isfinite(reach) and reach > 0 else None
    )
    return figure


def describe_prompt(one: PromptDrift) -> str:
    """Hover text of a prompt."""
    lines = textwrap.wrap(reveal(one.prompt), 60)[:6]
    numbers = f"<b>{format_number(one.mean)}</b> nats/sequence, {one.n_sequences} completions from {format_number(one.lowest)} to {format_number(one.highest)}"
    slice = "" if one.slice is None else f"<br>slice {escape(one.slice)}"
    return f"{'<br>'.join(escape(line) for line in lines)}<br>{numbers}{slice}"


def draw_slices(slices: Sequence[SliceView]) -> go.Figure:
    """Each slice beside the rest of the prompts; those that are told of stand out by colour and symbol."""
    figure = open_figure(height=38 * len(slices) + 110)
    names = [f"{'<b>▲ ' if one.is_told else ''}{escape(shorten(one.slice))}{'</b>' if one.is_told else ''}" for one in slices]
    figure.add_trace(trace_forest([one.rest for one in slices], names, slices, name="All other prompts", color=GREY, symbol="circle-open"))
    for is_told, name, color, symbol in ((False, "Slice", BLUE, "square"), (True, "Slice beyond noise", VERMILION, "diamond")):
        kept = [at for at, one in enumerate(slices) if one.is_told is is_told]
        if kept:
            some = [slices[at] for at in kept]
            figure.add_trace(
                trace_forest([one.value for one in some], [names[at] for at in kept], some, name=name, color=color, symbol=symbol)
            )
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], automargin=True)
    figure.update_xaxes(title_text="KL, nats/token", rangemode="tozero")
    return figure


def trace_forest(
    values: Sequence[Interval], names: Sequence[str], slices: Sequence[SliceView], *, name: str, color: str, symbol: str
) -> go.Scatter:
    """Points with their intervals, one a row."""
    return go.Scatter(
        {
            "x": [one.value for one in values],
            "y": names,
            "error_x": span(values, color),
            "text": [
                f"<b>{escape(one.slice)}</b>, {one.n_prompts} prompts<br>{escape(one.ratio_text)}, {escape(one.p_text)} corrected"
                for one in slices
            ],
            "name": name,
            "mode": "markers",
            "marker": {"symbol": symbol, "size": 10, "color": color},
            "hovertemplate": "%{text}<br>%{x:.3g} nats/token<extra></extra>",
        }
    )


def describe_positions(positions: Positions) -> str:
    """The positions in words."""
    first, last = positions.mean[0], positions.mean[-1]
    return f"KL by place: {format_number(first)} nats/token at token 1, {format_number(last)} at token {len(positions.mean)}."


def describe_prompts(prompts: Sequence[PromptDrift]) -> str:
    """The prompts in words."""
    return "Drift by prompt. " + "; ".join(f"{one.prompt}: {format_number(one.mean)} nats/sequence" for one in prompts)


def describe_slices(slices: Sequence[SliceView]) -> str:
    """The slices in words."""
    return "Drift by slice. " + "; ".join(f"{one.slice}: {one.ratio_text}, {one.p_text}" for one in slices)
