"""What was found in one run, or in all: what happened, why it matters, what shows it, what to do."""

from collections.abc import Sequence
from typing import Literal

import pandas as pd
import streamlit as st

import data
from finding_charts import describe_evidence, draw_evidence, is_shaded
from klaudit.report.views import RunRow, RunsView, format_count
from klaudit.report.views.evidence import EvidenceChart
from klaudit.report.views.fact import Fact
from klaudit.report.views.finding import SEVERITIES, FindingsView, FindingView, JudgedView, name_family
from plain_text import plain, plain_with_code
from run_choice import OPEN, show_empty_store

CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
BOX, LIST = "findings_run", "findings_list"
PAGE_SIZE = 25
Color = Literal["red", "orange", "blue"]
LOOKS: dict[str, tuple[str, Color]] = {
    "critical": (":material/error:", "red"),
    "warning": (":material/warning:", "orange"),
    "info": (":material/info:", "blue"),
}
STATUSES = {"open": ":material/radio_button_checked:", "ended": ":material/check_circle:"}


def find_chosen(runs: RunsView) -> RunRow | None:
    """The run that the address names, else the one that was open before; None for all runs, which an empty name in the address stands for."""
    wanted = st.query_params.get("run", st.session_state.get(OPEN, ""))
    row = next((one for one in runs.rows if wanted and wanted in (one.name, one.id)), None)
    if wanted and row is None:
        st.warning(f"No run is called {plain(wanted)}. Here are all of them.", icon=":material/search_off:")
    if row is not None:
        st.session_state[OPEN] = row.name
    return row


def show_header(runs: RunsView, chosen: RunRow | None) -> None:
    """Title, and the choice of the run; the address is in force, and the box follows it."""
    title, box = st.columns((3, 1.2), vertical_alignment="bottom")
    title.title("Findings", anchor=False)
    st.session_state[BOX] = "" if chosen is None else chosen.name
    box.selectbox(
        "Run",
        ["", *(one.name for one in runs.rows)],
        format_func=lambda name: name or "All runs, the newest first",
        key=BOX,
        on_change=open_run,
        label_visibility="collapsed",
    )


def open_run() -> None:
    """Put the chosen run into the address; another run's finding leaves it."""
    st.query_params.from_dict({"run": st.session_state[BOX]})


def open_finding() -> None:
    """Put the chosen finding into the address."""
    st.query_params["finding"] = st.session_state[LIST]


def choose_kinds(view: FindingsView) -> FindingsView:
    """The filters, which count what they let through."""
    severities, statuses, families = view.count("severity"), view.count("status"), view.count("family")
    with st.container(horizontal=True, vertical_alignment="top", gap="medium"):
        severity = st.pills(
            "Severity",
            [one for one in SEVERITIES if severities[one]],
            selection_mode="multi",
            format_func=lambda one: f":{LOOKS[one][1]}[{LOOKS[one][0]} {severities[one]:,} {one}]",
            width="content",
            key="findings_severity",
        )
        status = st.pills(
            "Status",
            [one for one in STATUSES if statuses[one]],
            selection_mode="multi",
            format_func=lambda one: f"{STATUSES[one]} {statuses[one]:,} {one}",
            width="content",
            key="findings_status",
        )
        family = st.multiselect(
            "Family of rules",
            sorted(families),
            format_func=lambda one: f"{one}xx {name_family(one)}, {families[one]:,}",
            placeholder="all",
            width=340,
            key="findings_family",
        )
    return view.select(severities=severity, statuses=status, families=family)


def choose_finding(view: FindingsView, shown: FindingsView, *, has_runs: bool) -> FindingView:
    """The list; the finding that the address names is chosen, else the first."""
    wanted = st.query_params.get("finding", "")
    chosen = shown.find(wanted)
    if wanted and view.find(wanted) is None:
        st.warning(f"No finding {plain(wanted)} here; it may be of another run, or was withdrawn.", icon=":material/search_off:")
    rows = list(shown.findings)
    n_pages = -(-len(rows) // PAGE_SIZE)
    if n_pages > 1:
        default = 1 if chosen is None else rows.index(chosen) // PAGE_SIZE + 1
        start = (st.pagination(n_pages, default=default, key=f"findings_page-{wanted}") - 1) * PAGE_SIZE
        rows = rows[start : start + PAGE_SIZE]
    by_id = {one.id: one for one in rows}
    numbers = {one.id: at for at, one in enumerate(shown.findings, 1)}
    chosen = by_id.get(wanted, rows[0])
    st.session_state[LIST] = chosen.id
    st.radio(
        "Findings",
        list(by_id),
        # The number keeps two labels apart: the box knows its options by their labels alone.
        format_func=lambda one: f":gray[{numbers[one]}] {name_finding(by_id[one])}",
        captions=[caption_finding(one, has_run=has_runs) for one in rows],
        key=LIST,
        on_change=open_finding,
        label_visibility="collapsed",
    )
    return chosen


def name_finding(one: FindingView) -> str:
    """One line of the list: severity by colour and word, code and rule."""
    icon, color = LOOKS[one.severity]
    return f":{color}-badge[{icon} {one.severity}] **{plain(one.rule)}** {plain(one.code)}"


def caption_finding(one: FindingView, *, has_run: bool) -> str:
    """Where it is, below that line."""
    return plain(f"{one.run_name} · {one.span} · {one.status}" if has_run else f"{one.span} · {one.status}")


def show_finding(one: FindingView) -> None:
    """One finding, whole."""
    with st.container(border=True):
        show_head(one)
        st.subheader(plain(one.message), anchor=False)
        st.caption(plain(f"{one.moments[:1].upper()}{one.moments[1:]}"))
        evidence, words = st.columns((1.55, 1), gap="medium")
        with evidence:
            show_evidence(one)
        with words:
            show_words(one)
        show_rule(one)


def show_head(one: FindingView) -> None:
    """Severity, rule and the way to the run."""
    icon, color = LOOKS[one.severity]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.badge(one.severity, icon=icon, color=color)
        st.markdown(f"**{plain(one.rule)}** · {plain(one.code)} · {plain(one.family_name)} · {one.status}", width="stretch")
        st.page_link(
            "app_pages/run.py",
            label=f"Run {plain(one.run_name)} at step {one.detected_step:,}",
            icon=":material/show_chart:",
            query_params={"run": one.run_name, "step": str(one.detected_step)},
        )


def show_evidence(one: FindingView) -> None:
    """What was judged, against what: in numbers, as a chart, in facts."""
    judged, threshold, episode = st.columns(3)
    show_number(judged, "Judged", one.value)
    show_number(threshold, "Threshold", one.threshold)
    first, last = f"{one.first_step:,}", f"{one.last_step:,}"
    episode.metric(
        "Episode",
        first if first == last else f"{first} to {last}",
        "step" if first == last else "steps",
        delta_color="off",
        delta_arrow="off",
        border=True,
        height="stretch",
    )
    for at, chart in enumerate(one.charts):
        show_chart(one, chart, at)
    if one.facts:
        st.markdown("**Evidence in facts**" if one.charts else "**Evidence**")
        show_facts(one.facts, alt="What the finding's evidence says")


def show_number(place: st.delta_generator.DeltaGenerator, label: str, told: str) -> None:
    """A number with its unit below it."""
    value, _, unit = told.partition(" ")
    if told == "no number":
        value, unit = "–", told
    place.metric(label, plain(value.rstrip(",")), plain(unit), delta_color="off", delta_arrow="off", border=True, height="stretch")


def show_chart(one: FindingView, chart: EvidenceChart, at: int) -> None:
    """One chart of the evidence."""
    st.markdown(f"**{plain(chart.title)}**")
    figure = draw_evidence(chart, severity=one.severity, height=350 if at == 0 else 250)
    st.plotly_chart(figure, key=f"evidence-{one.id}-{at}", config=CHART, alt=describe_evidence(chart))
    if at == len(one.charts) - 1:
        st.caption(plain(f"{chart.statement}.{' Shaded: the episode.' if is_shaded(chart) else ''}"))


def show_facts(facts: Sequence[Fact], *, alt: str) -> None:
    """A table of two columns."""
    rows = [{"what": plain(fact.label), "value": plain(fact.text)} for fact in facts]
    st.table(pd.DataFrame(rows), border="horizontal", hide_index=True, hide_header=True, alt=alt)


def show_words(one: FindingView) -> None:
    """What to do, and why it matters."""
    with st.container(border=True, gap="small"):
        st.markdown("**:material/build: What to do**")
        st.markdown(f"**{plain_with_code(one.remedy)}**")
        if one.todo:
            st.markdown(plain_with_code(one.todo))
    with st.container(border=True, gap="small"):
        st.markdown("**:material/help: Why it matters**")
        st.markdown(plain_with_code(one.why) if one.why else "This klaudit does not know the rule; a newer one wrote this finding.")


def show_rule(one: FindingView) -> None:
    """Which rule judged, with which settings: what is needed to judge again."""
    with st.expander(f"The rule {plain(one.code)}, version {one.rule_version}, and its settings"):
        st.markdown(plain_with_code(one.summary))
        series = f" · series {one.series}" if one.series else ""
        st.caption(plain(f"finding {one.id} · segment {one.segment}{series}"))
        st.caption(f"All of it: `klaudit rules show {plain(one.code)}`")
        if one.settings:
            show_facts(one.settings, alt="Settings of the rule")


def show_judged(view: JudgedView | None, chosen: RunRow, *, is_empty: bool) -> None:
    """How far the judgement reaches: where nothing was found, it is all that can be said."""
    if is_empty:
        st.subheader(f":material/check: No finding in {plain(chosen.name)}", anchor=False)
        st.markdown("No rule that could judge has fired. How far that reaches:")
    else:
        st.subheader("What was judged", anchor=False)
    if view is None:
        st.markdown(f"{format_count(chosen.n_steps, 'step')}: too many to audit for a page. This says which rules did not judge:")
        st.code("klaudit audit RUN --json", language="bash")
        return
    st.markdown(plain(f"{view.statement}."))
    if view.silent:
        with st.expander(f"{format_count(len(view.silent), 'rule')}, or parts of them, could not judge", expanded=is_empty):
            rows = [{"Rule": plain(f"{code} {rule}"), "Why it could not judge": plain(why)} for code, rule, why in view.silent]
            st.table(pd.DataFrame(rows), border="horizontal", hide_index=True, alt="Rules that could not judge")


def show_findings(view: FindingsView, *, has_runs: bool) -> None:
    """Filters, list and the chosen finding."""
    shown = choose_kinds(view)
    if not shown.findings:
        st.info("No finding of this kind. Take a filter away.", icon=":material/filter_alt_off:")
        return
    left, right = st.columns((1, 3.1), gap="medium")
    with left:
        one = choose_finding(view, shown, has_runs=has_runs)
        if view.n_left_out:
            st.caption(f"{format_count(view.n_left_out, 'finding')} of older runs left out: choose a run to see its findings.")
    with right:
        show_finding(one)


runs = data.show_runs(data.read_store_url())
if runs.rows:
    chosen = find_chosen(runs)
    show_header(runs, chosen)
    if chosen is None:
        found = data.list_findings(data.read_store_url())
        if found.findings:
            show_findings(found, has_runs=True)
        else:
            st.info(
                f"No finding in {format_count(len(runs.rows), 'run')}. Choose one to see what was judged of it.", icon=":material/check:"
            )
    else:
        state = data.open_store().read_state(chosen.id)
        found = data.show_findings(data.read_store_url(), state)
        if found.findings:
            show_findings(found, has_runs=False)
        with st.container(border=True):
            show_judged(data.show_judged(data.read_store_url(), state), chosen, is_empty=not found.findings)
else:
    st.title("Findings", anchor=False)
    show_empty_store()
