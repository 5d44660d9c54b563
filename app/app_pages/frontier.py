"""Score and held-out score against d, for one run or a sweep of beta: where the held-out score peaks, and which beta ends there."""

import pandas as pd
import streamlit as st

import data
from frontier_charts import describe_frontier, draw_frontier
from klaudit.report.views import Figure, RunRow, RunsView, format_number
from klaudit.report.views.frontier import FrontierView
from plain_text import plain
from run_choice import find_chosen

CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
BOX = "frontier_runs"
MOST_RUNS = 10
"""Symbols that the chart has for runs."""


def choose_runs(runs: RunsView, chosen: RunRow) -> tuple[str, ...]:
    """The runs that the address names, changed by the box."""
    known = {one.name for one in runs.rows}
    named = [one for one in dict.fromkeys(st.query_params.get_all("run")) if one in known][:MOST_RUNS] or [chosen.name]
    st.session_state[BOX] = named
    st.multiselect(
        "Runs",
        [one.name for one in runs.rows],
        key=BOX,
        on_change=open_chosen,
        max_selections=MOST_RUNS,
        help="Several runs that differ in beta are taken as one sweep.",
    )
    return tuple(named)


def open_chosen() -> None:
    """Put what was chosen in the box into the address; an empty box changes nothing."""
    if st.session_state[BOX]:
        st.query_params["run"] = st.session_state[BOX]


def show_headline(view: FrontierView) -> None:
    """The four numbers, each with its interval and unit, or that it is not known."""
    with st.grid(4, min_column_width=230):
        for figure in view.headline:
            show_figure(figure)


def show_figure(figure: Figure) -> None:
    """One number."""
    known = figure.value is not None
    value = figure.text.removesuffix(figure.unit).strip() if known else figure.text
    chip = figure.unit if known else None
    st.metric(
        plain(figure.label), plain(value), chip, delta_color="off", delta_arrow="off", border=True, height="stretch", help=figure.note
    )


def show_chart(view: FrontierView) -> None:
    """Points, curves and peak."""
    with st.container(border=True):
        st.plotly_chart(draw_frontier(view), key="frontier-" + "-".join(view.names), config=CHART, alt=describe_frontier(view))
        st.caption("Shaded around a curve: its 95% interval, which allows for points that depend on their neighbours. " + say_points(view))


def say_points(view: FrontierView) -> str:
    """How many points are drawn."""
    drawn, n_points = sum(len(one.d) for one in view.series), sum(one.n_points for one in view.series)
    return f"Showing {'all ' if drawn == n_points else f'{drawn:,} of '}{n_points:,} points."


def show_words(view: FrontierView) -> None:
    """What can be said, advice on beta, and the budget that the data propose."""
    left, right = st.columns(2)
    with left.container(border=True, height="stretch"):
        st.subheader("What the points say", anchor=False)
        for sentence in view.sentences:
            st.markdown(plain(sentence))
        for curve in view.curves:
            if curve.is_better:
                st.caption(plain(f"{curve.label}: {curve.formula}"))
    with right.container(border=True, height="stretch"):
        st.subheader("Advice on beta", anchor=False)
        for sentence in view.advice or ("None: it needs a peak of the held-out score that was seen.",):
            st.markdown(plain(sentence))
        if view.command:
            st.markdown("The peak as a KL budget:")
            st.code(view.command, language="bash", wrap_lines=True)


def show_sweep(view: FrontierView) -> None:
    """Where each run of a sweep ended."""
    rows = [
        {
            "Run": plain(one.run),
            "Beta, reward/nat": plain(format_number(one.beta)),
            "Final d, sqrt(nats)": plain(format_number(one.final_d)),
            "Final KL, nats/sequence": plain(format_number(one.final_d**2)),
        }
        for one in view.swept
    ]
    st.subheader("Where each run ended", anchor=False)
    st.table(pd.DataFrame(rows), border="horizontal", hide_index=True, alt="Final d of each run of the sweep")


def show_caveats(view: FrontierView) -> None:
    """What none of it shows."""
    with st.container(border=True):
        st.subheader("What this cannot say", anchor=False)
        for sentence in view.caveats:
            st.markdown(f"- {plain(sentence)}")


st.title("Reward against drift", anchor=False)
runs = data.show_runs(data.read_store_url())
chosen = find_chosen(runs)
if chosen is not None:
    names = choose_runs(runs, chosen)
    pages = data.open_store()
    states = tuple(pages.read_state(data.find_run(name).id) for name in names)
    frontier = data.show_frontier(data.read_store_url(), states)
    if frontier.series:
        show_headline(frontier)
        show_chart(frontier)
        show_words(frontier)
        if frontier.swept:
            show_sweep(frontier)
        show_caveats(frontier)
    else:
        st.info("No step of this run has both a KL in nats per sequence and a score.", icon=":material/visibility_off:")
