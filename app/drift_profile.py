"""What is measured of checkpoints beside their KL: slices, retention, weights by layer, distances between them."""

import pandas as pd
import streamlit as st

import drift_charts as charts
from drift_location import show_absent
from klaudit.report.views import DriftPoint
from klaudit.report.views.drift_matrix import MatrixView
from klaudit.report.views.drift_profile import CheckpointProfile, tell_interval
from location_charts import describe_slices, draw_slices
from plain_text import plain

CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}


def show_slices(profile: CheckpointProfile, *, command: str) -> None:
    """Each slice of the prompts against all others."""
    st.markdown("**By slice of the prompts**")
    if not profile.slices:
        show_absent(
            "The prompts have no slices. A JSONL file names them, one prompt a line: keys prompt, slice, weight.",
            f"{command} --prompts prompts.jsonl",
        )
        return
    told = [one for one in profile.slices if one.is_told]
    names = ", ".join(plain(one.slice) for one in told)
    say = f":red[:material/priority_high: Beyond noise: **{names}**]" if told else ":green[:material/check:] No slice stands out"
    st.caption("KL of each slice beside all other prompts, nats/token, 95% intervals; p is corrected for the number of slices.")
    st.markdown(say)
    st.plotly_chart(draw_slices(profile.slices), key="slices", config=CHART, alt=describe_slices(profile.slices))
    rows = [
        {
            "Slice": plain(one.slice) + (" :red-badge[beyond noise]" if one.is_told else ""),
            "Times the rest": plain(tell_interval(one.ratio)),
            "p, corrected": plain(one.p_text.removeprefix("p ").removeprefix("= ")),
            "Prompts": f"{one.n_prompts:,}",
        }
        for one in profile.slices
    ]
    st.table(pd.DataFrame(rows), border="horizontal", hide_index=True, alt=describe_slices(profile.slices))


def show_ratio(profile: CheckpointProfile) -> None:
    """The check of the sampling in a sentence."""
    ratio = profile.ratio
    what = f"**Ratio check: {plain(ratio.text)}** (mean of reference/policy probability, no unit)."
    if ratio.is_right:
        st.caption(f":green[:material/check_circle:] {what} {plain(ratio.sentence)}")
    else:
        st.warning(f"{what} {plain(ratio.sentence)}", icon=":material/error:")


def show_retention(profiles: tuple[CheckpointProfile, ...], chosen: CheckpointProfile, *, command: str) -> None:
    """Perplexity of checkpoints and reference."""
    st.markdown("**Retention**")
    if not any(one.retention for one in profiles):
        show_absent("How well the checkpoints still predict the reference's kind of text was not measured.", command)
        return
    st.caption(
        "Above: perplexity on text of the reference's kind, no unit, lower is better. Below: how much higher the checkpoint's is on the same "
        "passages, percent. 95% intervals over passages; that of the rise leaves out how hard the passages are, so judge by it."
    )
    st.plotly_chart(charts.draw_retention(profiles), key="retention", config=CHART, alt=charts.describe_retention(profiles))
    if chosen.retention is not None:
        st.caption(plain(f"{chosen.label[:1].upper()}{chosen.label[1:]}: {chosen.retention.statement}."))


def show_layers(
    profiles: tuple[CheckpointProfile, ...], chosen: CheckpointProfile, points: tuple[DriftPoint, ...], *, command: str
) -> None:
    """Weights of the chosen checkpoint by layer, beside those of all and their drift."""
    if not any(one.layers for one in profiles):
        show_absent("How far the weights moved was not measured, or they do not match those of the reference by name.", command)
        return
    with st.grid(2, min_column_width=380):
        with st.container(border=True, height="stretch"):
            st.markdown(f"**{plain(chosen.label[:1].upper() + chosen.label[1:])}, by layer**")
            st.caption("Distance of the weights from the reference's, relative L2: ‖policy − reference‖ / ‖reference‖, percent.")
            if chosen.layers:
                st.plotly_chart(charts.draw_layers(chosen), key="layers", config=CHART, alt=charts.describe_layers(chosen))
            else:
                show_absent(f"Not measured of {chosen.label}.", command)
        with st.container(border=True, height="stretch"):
            st.markdown("**All checkpoints, beside what they do**")
            unit = points[0].unit if points else "nats/sequence"
            st.caption(f"Above: drift, {unit}, 95% intervals. Below: the same distance of the weights, percent, by layer.")
            figure = charts.draw_layers_over_checkpoints(profiles, points)
            st.plotly_chart(figure, key="layers-all", config=CHART, alt=" ".join(charts.describe_layers(one) for one in profiles))


def show_matrix(matrix: MatrixView | None, *, command: str) -> None:
    """KL between every two checkpoints."""
    st.markdown("**Between checkpoints**")
    if matrix is None:
        show_absent("The distances between the checkpoints were not measured.", command)
        return
    st.caption(plain(f"KL(row ‖ column), {matrix.estimator}, {matrix.unit}: the row's checkpoint wrote the text."))
    st.plotly_chart(
        charts.draw_matrix(matrix, is_dark=st.context.theme.type == "dark"), key="matrix", config=CHART, alt=charts.describe_matrix(matrix)
    )
