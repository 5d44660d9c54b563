"""Checkpoints measured against the reference: how far, since when, and where."""

import shlex

import pandas as pd
import streamlit as st

import data
import drift_charts as charts
from drift_location import show_location
from drift_profile import show_layers, show_matrix, show_ratio, show_retention, show_slices
from klaudit.records import Run
from klaudit.report.views import DriftPoint, DriftView, RunRow, RunsView, format_significant
from klaudit.report.views.drift import DIRECTIONS
from klaudit.report.views.drift_profile import CheckpointProfile, list_drift_figures, name_checkpoint
from plain_text import plain
from run_choice import find_chosen, show_box

CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
BOX = "checkpoint_box"
MOST_BUTTONS = 10
"""Checkpoints that stand side by side; of more, a slider chooses."""

ALARMS = ("wrong", "beyond noise")
"""Words of a number that is more than a number."""

Place = tuple[int | None, str]
"""Step and path of a checkpoint."""


def show_header(runs: RunsView, chosen: RunRow) -> Run:
    """Title, and choice of the run."""
    title, box = st.columns((3, 1.2), vertical_alignment="bottom")
    title.title("Drift of checkpoints", anchor=False)
    with box:
        show_box(runs, chosen)
    return data.find_run(chosen.id)


def name_commands(run: Run) -> tuple[str, str]:
    """What measures checkpoints, and what measures the distances between them."""
    reference = run.reference.name if run.reference else "REFERENCE"
    measure = f"klaudit drift measure --run {shlex.quote(run.name)} --reference {shlex.quote(reference)}"
    return measure, f"{measure} --matrix"


def show_not_measured(run: Run, view: DriftView) -> None:
    """How to measure."""
    with st.container(border=True, width=760):
        st.subheader("Not measured yet", anchor=False)
        st.markdown(f"No checkpoint of **{plain(run.name)}** has been measured against its reference, {plain(view.reference)}.")
        st.code(name_commands(run)[0], language="bash")


def show_reference(run: Run, view: DriftView) -> None:
    """What is compared with what."""
    with st.container(horizontal=True, vertical_alignment="center"):
        digest = "digest not computed, or not the same for all" if view.reference_digest is None else view.reference_digest[:19]
        st.caption(f"Measured against **{plain(view.reference)}**, weights {plain(digest)}")
        st.page_link("app_pages/run.py", label=f"Run {plain(run.name)}", icon=":material/show_chart:", query_params={"run": run.name})


def choose_checkpoint(view: DriftView) -> Place:
    """The checkpoint that the page looks into: the one that the address names, else the last."""
    places = list(dict.fromkeys((one.step, one.checkpoint) for one in view.points))
    names: dict[str, Place] = {}
    for one in places:
        name = name_place(one)
        names[name if name not in names else f"{name}, {one[1]}"] = one
    wanted = st.query_params.get("checkpoint", "")
    if len(names) == 1:
        return places[0]
    st.session_state[BOX] = wanted if wanted in names else [*names][-1]
    options = [*names]
    if len(options) <= MOST_BUTTONS:
        chosen = st.segmented_control("Checkpoint", options, key=BOX, on_change=open_checkpoint, required=True)
    else:
        chosen = st.select_slider("Checkpoint", options, key=BOX, on_change=open_checkpoint)
    return names[chosen or options[-1]]


def name_place(place: Place) -> str:
    """A checkpoint as it is chosen."""
    return name_checkpoint(*place)


def open_checkpoint() -> None:
    """Put what was chosen into the address."""
    st.query_params["checkpoint"] = st.session_state[BOX]


def choose_series(view: DriftView) -> tuple[str, str, str | None]:
    """Direction, estimator and slice."""
    directions = [one for one in DIRECTIONS if any(point.direction == one for point in view.points)]
    with st.container(horizontal=True):
        direction = directions[0]
        if len(directions) > 1:
            direction = st.segmented_control(
                "Direction", directions, format_func=lambda one: DIRECTIONS[one], default=direction, required=True, key="direction"
            )
        points = [one for one in view.points if one.direction == direction]
        estimators = list(dict.fromkeys(one.estimator for one in points))
        estimator = st.segmented_control("Estimator", estimators, default=estimators[0], required=True, key="estimator")
        slices = list(dict.fromkeys(one.slice for one in points))
        if len(slices) > 1:
            return (
                direction,
                estimator,
                st.selectbox("Prompts", slices, format_func=lambda one: one or "all prompts", key="slice", width=260),
            )
    return direction, estimator, slices[0]


def show_headline(points: tuple[DriftPoint, ...], profile: CheckpointProfile | None) -> None:
    """The numbers of the chosen checkpoint, each with its unit, or that it is not known."""
    with st.grid(4, min_column_width=260):
        for figure in list_drift_figures(points, profile):
            known = figure.value is not None
            value = figure.text.removesuffix(figure.unit).strip() if known else figure.text
            chip = figure.unit if known else None
            st.metric(
                plain(figure.label),
                plain(value),
                chip,
                delta_color="red" if chip is not None and any(one in chip for one in ALARMS) else "off",
                delta_arrow="off",
                border=True,
                height="stretch",
                help=plain(figure.note),
            )


def show_drift(view: DriftView, place: Place) -> tuple[str, tuple[DriftPoint, ...]]:
    """Intervals beside the log; returns the direction and the points that are shown."""
    with st.container(border=True):
        direction, estimator, slice = choose_series(view)
        points = view.select(estimator, slice=slice, direction=direction)
        figure = charts.draw_drift(view, estimator=estimator, slice=slice, direction=direction, at_step=place[0])
        st.plotly_chart(figure, key=f"drift-{view.run_id}-{direction}-{estimator}", config=CHART, alt=charts.describe_drift(points))
        unit = points[0].unit if points else ""
        text = view.statement if direction == "reverse" else "On completions of the reference. The trainer logs the other direction only."
        st.caption(plain(f"{DIRECTIONS[direction]}, {unit}, 95% intervals over prompts. {text}"))
    return direction, points


def show_numbers(view: DriftView, points: tuple[DriftPoint, ...]) -> None:
    """The same in numbers, and what is needed to measure again."""
    rows = [
        {
            "Checkpoint": plain(one.checkpoint),
            "Step": "–" if one.step is None else f"{one.step:,}",
            "Drift, 95% interval": plain(one.text),
            "Logged one step later": "not logged" if one.logged is None else plain(one.logged.text),
            "Logged as": "–" if one.logged is None else plain(one.logged.label),
            "Sequences": f"{one.n_sequences:,}",
            "Mean length": f"{format_significant(one.mean_length)} tokens",
        }
        for one in points
    ]
    st.table(pd.DataFrame(rows), border="horizontal", hide_index=True, alt=charts.describe_drift(points))
    if view.settings:
        st.markdown("**How it was measured**")
        rows = [{"Setting": plain(name.replace("_", " ")), "Value": plain(str(value))} for name, value in view.settings.items()]
        st.table(pd.DataFrame(rows), border="horizontal", hide_index=True, alt="Settings of the measurement")


def show_profiles(
    run: Run, profiles: tuple[CheckpointProfile, ...], chosen: CheckpointProfile | None, points: tuple[DriftPoint, ...], direction: str
) -> None:
    """Where the drift of the chosen checkpoint is, and what all of them have kept and moved."""
    measure, between = name_commands(run)
    st.subheader(f"Where the drift is, {plain(chosen.label)}" if chosen else "Where the drift is", anchor=False)
    if chosen is None:
        with st.container(border=True):
            st.markdown("This checkpoint was measured without its completions. Measured again, it says where its drift is:")
            st.code(measure, language="bash", wrap_lines=True)
    else:
        show_ratio(chosen)
        with st.container(border=True):
            show_slices(chosen, command=measure)
        show_location(chosen, direction=direction, command=measure)
        st.subheader("What moved, and what was kept", anchor=False)
        show_layers(profiles, chosen, points, command=measure)
    with st.grid(2, min_column_width=380):
        if chosen is not None:
            with st.container(border=True, height="stretch"):
                show_retention(profiles, chosen, command=measure)
        with st.container(border=True, height="stretch"):
            show_matrix(data.show_matrix(data.read_store_url(), data.open_store().read_state(run.id)), command=between)


def show_measurements(run: Run, view: DriftView) -> None:
    """Headline, chart, and what lies behind."""
    profiles = data.show_profiles(data.read_store_url(), data.open_store().read_state(run.id))
    show_reference(run, view)
    place = choose_checkpoint(view)
    chosen = next((one for one in profiles if (one.step, one.checkpoint) == place), None)
    own = tuple(one for one in view.points if (one.step, one.checkpoint, one.slice, one.direction) == (*place, None, "reverse"))
    show_headline(own, chosen)
    direction, points = show_drift(view, place)
    show_profiles(run, profiles, chosen, points, direction)
    with st.expander("All numbers, and how they were measured"):
        show_numbers(view, points)


runs = data.show_runs(data.read_store_url())
chosen = find_chosen(runs)
if chosen is not None:
    run = show_header(runs, chosen)
    drift = data.show_drift(data.read_store_url(), data.open_store().read_state(run.id))
    if drift.points:
        show_measurements(run, drift)
    else:
        show_not_measured(run, drift)
