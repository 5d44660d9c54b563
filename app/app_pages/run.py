"""One run, step by step: headline numbers, KL with its budgets and findings, what moved with it, sampled text."""

import math
from datetime import UTC, datetime
from typing import Literal

import streamlit as st

import charts
import data
from capture import show_capture
from klaudit.records import Run
from klaudit.report.views import BudgetUse, Curve, Figure, Marker, RunRow, RunsView, RunView, format_count, format_number, format_percent
from klaudit.report.views.capture import is_stalled
from klaudit.report.views.finding import name_plainly
from klaudit.workflows.pages import RunState
from plain_text import plain, say_age
from problems import explain_problems
from run_choice import find_chosen, show_box
from run_status import show_status, show_waiting
from sampled_text import draw_legend, draw_sample

REFRESH_S = 3
CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
Color = Literal["red", "orange", "blue"]
SEVERITY: dict[str, tuple[str, Color]] = {
    "critical": (":material/error:", "red"),
    "warning": (":material/warning:", "orange"),
    "info": (":material/info:", "blue"),
}
REWARD = ("score", "heldout_score", "rlhf_reward", "kl_penalty")
SMALL = ("response_length", "eos_fraction", "distinct_2", "clip_fraction", "ratio", "grad_norm", "learning_rate")
BETA = ("beta", "implied_beta")


def follow(run: Run, drawn: RunState, statement: str) -> None:
    """Say how old the last step is; draw the page again once the run has moved on."""
    with explain_problems():
        state = data.open_store().read_state(run.id)
        if state != drawn:
            st.rerun()
        now = datetime.now(UTC)
        age = say_age(state.last_logged_at, now=now)
        st.caption(f"{format_count(state.n_steps, 'step')}, last one {age} · {plain(statement)}")
        if state.silence is not None:
            st.warning(
                plain(
                    f"The run says that it is running, and there is {state.silence}. Its writer is dead, or cannot be reached: "
                    "what it recorded is here, and a trainer that resumes goes on with it."
                ),
                icon=":material/heart_broken:",
            )
        elif run.status == "running" and is_stalled(
            started_at=run.started_at, last_logged_at=state.last_logged_at, n_steps=state.n_steps, now=now
        ):
            st.warning(f"Stalled? Its writer lives, and its last step was logged {age}.", icon=":material/hourglass_disabled:")
        show_waiting(data.list_waiting(data.read_store_url()), run_id=run.id)


def show_headline(view: RunView) -> None:
    """The headline numbers, each with its unit, a KL with its estimator too."""
    grid = st.grid(8, min_column_width=140)
    for figure in view.headline:
        with grid.cell(column_span=2 if figure.key == "kl" else 1):
            show_figure(figure)


def show_figure(figure: Figure) -> None:
    """One number."""
    name, _, what = figure.label.partition(" (")
    label = "d = √KL" if figure.key == "d" else charts.to_sentence(name)
    unit = what.removesuffix(")") if figure.key == "kl" else figure.unit
    if figure.value is None:
        value = figure.text
    elif figure.unit.startswith("%"):
        value = format_percent(figure.value)
    else:
        value = figure.text.removesuffix(figure.unit).strip()
    chip = None if figure.value is None else unit.removeprefix("% ") if unit != "%" else "of its limit"
    st.metric(
        plain(label), value, chip, delta_color="off", delta_arrow="off", border=True, height="stretch", help=plain(figure.note) or None
    )


def show_kl(view: RunView) -> None:
    """The governing KL, beside the findings; its budgets below."""
    chart, words = st.columns((2.3, 1))
    with chart, st.container(border=True, height=575):
        curve = view.governing
        st.subheader("KL to the reference" if curve is None or view.governing_key else charts.read_name(curve), anchor=False)
        if curve is None:
            st.info("No KL was measured in this run.", icon=":material/visibility_off:")
        else:
            st.plotly_chart(
                charts.draw_kl(view, at_step=read_step()), key=f"kl-{view.run_id}", config=CHART, alt=charts.describe_curve(curve)
            )
            st.caption(f"{plain(curve.statement)}{say_resumes(curve)}{say_gaps(curve)}")
    with words, st.container(border=True, height=575):
        show_findings(view.markers, run_name=view.name)
    show_budgets(view.budgets)


def read_step() -> int | None:
    """The step that a link to this page names."""
    named = st.query_params.get("step", "")
    return int(named) if named.isdecimal() and len(named) < 12 else None


def say_gaps(curve: Curve) -> str:
    """The stretches without a finite value, in words; what a probe does not measure by plan is none."""
    gaps = charts.find_gaps_to_tell(curve)
    sparse = f" · {charts.say_sparse(curve)}" if curve.is_sparse else ""
    if not gaps:
        return sparse
    shown = ", ".join(f"{one.kind} at step {one.first_step}" + (f" to {one.last_step}" if one.n_steps > 1 else "") for one in gaps[:5])
    return f"{sparse} · {format_count(len(gaps), 'gap')}: {shown}{' and more' if len(gaps) > 5 else ''}"


def say_resumes(curve: Curve) -> str:
    """Where a resume began a new segment, in words."""
    if not curve.resumes:
        return ""
    shown = ", ".join(f"{one:,}" for one in curve.resumes[:5])
    more = f" and {len(curve.resumes) - 5:,} more" if len(curve.resumes) > 5 else ""
    return f" · {format_count(len(curve.resumes), 'resume')}, at step {shown}{more}"


def show_budgets(budgets: tuple[BudgetUse, ...]) -> None:
    """Each budget with how much of it is used."""
    if not budgets:
        st.caption("No budget is set: `klaudit budget set --limit X --unit nats_per_sequence --scope per_step`")
        return
    st.subheader("Budgets", anchor=False)
    with st.grid(3, min_column_width=300):
        for use in budgets:
            with st.container(border=True, height="stretch", gap="xsmall"):
                show_budget(use)


def show_budget(use: BudgetUse) -> None:
    """One budget."""
    st.markdown(f"**{plain(use.label)}**")
    if use.used_percent is not None:
        percent = format_percent(use.used_percent)
        text = f"{percent} used" if use.used_percent <= 100 else f":red[:material/error: **{percent} used, over budget**]"
        st.progress(min(1.0, max(0.0, use.used_percent / 100)) if math.isfinite(use.used_percent) else 1.0, text=text)
    st.caption(plain(use.statement))
    owner = f" · owner: {use.owner}" if use.owner else ""
    reason = f" · reason: {use.reason}" if use.reason else ""
    st.caption(plain(f"on breach: {use.action.replace('_', ' ')}{owner}{reason}"))


def show_findings(markers: tuple[Marker, ...], *, run_name: str) -> None:
    """What was found, where, and what to do; the worst first."""
    st.subheader("Findings", anchor=False)
    if not markers:
        st.markdown(":material/check: none so far")
    for marker in sorted(markers, key=lambda one: [*SEVERITY].index(one.severity)):
        with st.container(border=True, gap="xsmall"):
            show_finding(marker, run_name=run_name)


def show_finding(marker: Marker, *, run_name: str) -> None:
    """One finding."""
    icon, color = SEVERITY[marker.severity]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.badge(marker.severity, icon=icon, color=color)
        st.markdown(f"**{plain(marker.code)}** {plain(name_plainly(marker.rule))}")
    steps = f"step {marker.first_step}" if marker.first_step == marker.last_step else f"steps {marker.first_step} to {marker.last_step}"
    st.markdown(plain(marker.message))
    st.markdown(f":material/build: {plain(marker.remedy)}")
    st.caption(f"{steps}, detected at step {marker.step}")
    st.page_link(
        "app_pages/findings.py",
        label="Evidence, and why it matters",
        icon=":material/troubleshoot:",
        query_params={"run": run_name, "finding": marker.finding_id},
    )


def show_optimisation(run: Run, view: RunView) -> None:
    """What moves with the KL: beta, reward, entropy, the policy update."""
    update = next((key for key, series in run.series.items() if series.kind == "update"), "")
    update_label = run.series[update].label if update else ""
    groups = (("Reward", REWARD), ("Beta", BETA), (update_label, (update,)), ("Entropy", ("entropy",)))
    with st.grid(2, min_column_width=380):
        for other in charts.list_other_kls(view):
            if other.key != update:
                show_curves(charts.name_kl(other), [other], run_id=view.run_id)
        for title, keys in groups:
            show_curves(title, [curve for key in keys if (curve := view.curve(key)) is not None], run_id=view.run_id)


def show_small(view: RunView) -> None:
    """The rest, in a compact grid."""
    curves = [curve for key in SMALL if (curve := view.curve(key)) is not None]
    if curves:
        st.subheader("Behaviour and optimisation", anchor=False)
        with st.grid(4, min_column_width=260):
            for curve in curves:
                show_curves(charts.to_sentence(curve.label), [curve], run_id=view.run_id, height=190)


def show_curves(title: str, curves: list[Curve], *, run_id: str, height: int = 260) -> None:
    """One card with curves of one unit."""
    if not curves:
        return
    with st.container(border=True, height="stretch"):
        st.markdown(f"**{plain(charts.to_sentence(title))}**")
        alt = " ".join(charts.describe_curve(one) for one in curves)
        st.plotly_chart(charts.draw_curves(curves, height=height), key=f"chart-{run_id}-{curves[0].key}", config=CHART, alt=alt)
        if curves[0].is_sparse:
            st.caption(charts.say_sparse(curves[0]))
        if any(one.n_shown < one.n_points for one in curves):
            st.caption(plain(curves[0].statement))


def show_samples(url: str, state: RunState) -> None:
    """Completions of one step, their tokens shaded by KL."""
    st.subheader("Sampled text", anchor=False)
    steps = data.open_store().list_sample_steps(state.run_id)
    if not steps:
        st.caption("No text was kept of this run.")
        return
    step = st.select_slider("Step", steps, value=steps[-1], key=f"sample-step-{state.run_id}") if len(steps) > 1 else steps[0]
    samples = data.show_samples(url, state, step)
    st.html(draw_legend(samples[0].estimator if samples else "full"))
    with st.grid(2, min_column_width=380):
        for sample in samples:
            with st.container(border=True, height="stretch"):
                score = "" if sample.score is None else f" · score {format_number(sample.score)}"
                st.caption(plain(sample.label + score))
                st.html(draw_sample(sample))


def show_header(runs: RunsView, chosen: RunRow) -> Run:
    """The run's name, and the choice of another."""
    title, box = st.columns((3, 1.2), vertical_alignment="bottom")
    title.title(plain(chosen.name), anchor=False)
    with box:
        show_box(runs, chosen)
    return data.find_run(chosen.id)


def show_declaration(run: Run, chosen: RunRow) -> bool:
    """What trains what, and whether the page is to follow it."""
    reference = "not declared" if run.reference is None else run.reference.name
    with st.container(horizontal=True, vertical_alignment="center"):
        show_status(run.status, silence=chosen.silence, imported_from=chosen.imported_from)
        st.caption(plain(f"{chosen.trainer}: policy {run.policy or 'not declared'}, reference {reference}"))
        st.page_link(
            "app_pages/drift.py", label="Drift of its checkpoints", icon=":material/social_distance:", query_params={"run": run.name}
        )
        return run.status == "running" and st.toggle(
            "Follow live", value=True, key="live", help=f"Reads the store every {REFRESH_S} seconds."
        )


def show_view(run: Run, view: RunView, state: RunState) -> None:
    """Numbers, charts, text."""
    show_headline(view)
    show_kl(view)
    show_optimisation(run, view)
    show_small(view)
    show_capture(data.show_capture(data.read_store_url(), state))
    st.fragment(show_samples)(data.read_store_url(), state)


runs = data.show_runs(data.read_store_url())
chosen = find_chosen(runs)
if chosen is not None:
    run = show_header(runs, chosen)
    is_live = show_declaration(run, chosen)
    state = data.open_store().read_state(run.id)
    view = data.show_run(data.read_store_url(), state)
    st.fragment(follow, run_every=REFRESH_S if is_live else None)(run, state, view.statement)
    if view.n_steps:
        show_view(run, view, state)
    else:
        st.info("No step was logged yet. The first one shows up here by itself.", icon=":material/hourglass_empty:")
        show_capture(data.show_capture(data.read_store_url(), state))
