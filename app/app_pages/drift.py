"""Checkpoints measured against the reference, beside the KL that the trainer logged of the same policies."""

import shlex

import pandas as pd
import streamlit as st

import charts
import data
from klaudit.records import Run
from klaudit.report.views import DriftPoint, DriftView, RunRow, RunsView, format_number
from plain_text import plain
from run_choice import find_chosen, show_box

CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}


def show_header(runs: RunsView, chosen: RunRow) -> Run:
    """Title, and choice of the run."""
    title, box = st.columns((3, 1.2), vertical_alignment="bottom")
    title.title("Drift of checkpoints", anchor=False)
    with box:
        show_box(runs, chosen)
    st.page_link("app_pages/run.py", label=f"Run {plain(chosen.name)}", icon=":material/show_chart:", query_params={"run": chosen.name})
    return data.find_run(chosen.id)


def show_not_measured(run: Run, view: DriftView) -> None:
    """How to measure."""
    reference = run.reference.name if run.reference else "REFERENCE"
    with st.container(border=True, width=760):
        st.subheader("Not measured yet", anchor=False)
        st.markdown(f"No checkpoint of **{plain(run.name)}** has been measured against its reference, {plain(view.reference)}.")
        st.code(f"klaudit drift measure --run {shlex.quote(run.name)} --reference {shlex.quote(reference)}", language="bash")


def choose_points(view: DriftView) -> tuple[str, str | None]:
    """Estimator and slice."""
    estimators = list(dict.fromkeys(one.estimator for one in view.points))
    slices = list(dict.fromkeys(one.slice for one in view.points))
    with st.container(horizontal=True):
        estimator = st.segmented_control("Estimator", estimators, default=estimators[0], required=True, key="estimator")
        if len(slices) > 1:
            chosen = st.selectbox("Prompts", slices, format_func=lambda one: one or "all prompts", key="slice", width=260)
            return estimator, chosen
    return estimator, slices[0]


def show_chart(view: DriftView, points: tuple[DriftPoint, ...], estimator: str, slice: str | None) -> None:
    """Intervals beside the log."""
    with st.container(border=True):
        figure = charts.draw_drift(view, estimator=estimator, slice=slice)
        st.plotly_chart(figure, key=f"drift-{view.run_id}-{estimator}", config=CHART, alt=charts.describe_drift(points))
        st.caption(plain(view.statement))


def show_table(points: tuple[DriftPoint, ...]) -> None:
    """The same in numbers."""
    rows = [
        {
            "Checkpoint": plain(one.checkpoint),
            "Step": "–" if one.step is None else f"{one.step:,}",
            "Drift, 95% interval": plain(one.text),
            "Logged one step later": "not logged" if one.logged is None else plain(one.logged.text),
            "Logged as": "–" if one.logged is None else plain(one.logged.label),
            "Sequences": f"{one.n_sequences:,}",
            "Mean length": f"{format_number(one.mean_length)} tokens",
        }
        for one in points
    ]
    st.table(pd.DataFrame(rows), border="horizontal", hide_index=True, alt=charts.describe_drift(points))


def show_settings(view: DriftView) -> None:
    """Reference and settings: what is needed to measure again."""
    with st.container(border=True):
        st.subheader("Measured against", anchor=False)
        st.markdown(f"**{plain(view.reference)}**")
        st.caption(f"weights {view.reference_digest or 'digest not computed, or not the same for all'}")
        if view.settings:
            rows = [{"Setting": plain(name.replace("_", " ")), "Value": plain(str(value))} for name, value in view.settings.items()]
            st.table(pd.DataFrame(rows), border="horizontal", hide_index=True, alt="Settings of the measurement")


def show_measurements(view: DriftView) -> None:
    """Chart, table and settings."""
    estimator, slice = choose_points(view)
    points = view.select(estimator, slice=slice)
    show_chart(view, points, estimator, slice)
    show_table(points)
    show_settings(view)


runs = data.show_runs(data.read_store_url())
chosen = find_chosen(runs)
if chosen is not None:
    run = show_header(runs, chosen)
    drift = data.show_drift(data.read_store_url(), data.open_store().read_state(run.id))
    if drift.points:
        show_measurements(drift)
    else:
        show_not_measured(run, drift)
