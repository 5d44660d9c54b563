"""Every run: how it stands, its last KL, how much of its budget is used, what was found."""

import math
from datetime import UTC, datetime
from typing import Literal

import streamlit as st

import data
from klaudit.report.views import RunRow, RunsView, format_count, format_number, format_percent
from plain_text import plain, say_age
from problems import explain_problems
from run_choice import show_empty_store
from run_status import show_status, show_waiting

WIDTHS = (2.4, 1.2, 2.2, 2.2, 1.9, 1.8, 1.3)
HEADINGS = ("Run", "Steps", "Last KL", "Budget used", "Findings", "Beta and score", "Updated")
PAGE_SIZE = 25
REFRESH_S = 5
Color = Literal["red", "orange", "blue"]
SEVERITY: tuple[tuple[str, str, Color], ...] = (
    ("critical", ":material/error:", "red"),
    ("warning", ":material/warning:", "orange"),
    ("info", ":material/info:", "blue"),
)


def follow(drawn: RunsView) -> None:
    """Read the list again; draw the page again once it differs."""
    with explain_problems():
        if data.show_runs(data.read_store_url()) != drawn:
            st.rerun()
        st.caption(f"{plain(data.open_store().store_url)} · read {datetime.now(UTC):%H:%M:%S} UTC")


def follow_waiting() -> None:
    """Say again which steps wait in journals."""
    with explain_problems():
        show_waiting(data.list_waiting(data.read_store_url()))


def show_totals(runs: RunsView) -> None:
    """The row of totals."""
    used = [one.budget_used_percent for one in runs.rows if one.budget_used_percent is not None]
    with st.grid(4, min_column_width=150):
        st.metric("Runs", len(runs.rows), border=True, icon=":material/list_alt:")
        st.metric("Running now", runs.n_running, border=True, icon=":material/play_circle:")
        st.metric("Critical findings", sum(one.n_critical for one in runs.rows), border=True, icon=":material/error:")
        st.metric("Highest budget use", format_percent(max(used)) if used else "no budget", border=True, icon=":material/speed:")


def find_rows(runs: RunsView) -> list[RunRow]:
    """The rows of the chosen page, of those whose name holds the search text."""
    rows = list(runs.rows)
    if len(rows) > PAGE_SIZE:
        wanted = st.text_input("Find a run", placeholder="Part of a name", icon=":material/search:", width=320)
        rows = [one for one in rows if wanted.lower() in one.name.lower()]
        n_pages = max(1, -(-len(rows) // PAGE_SIZE))
        start = (st.pagination(n_pages) - 1) * PAGE_SIZE if n_pages > 1 else 0
        rows = rows[start : start + PAGE_SIZE]
    return rows


def show_table(rows: list[RunRow]) -> None:
    """One line a run; its name is the link."""
    now = datetime.now(UTC)
    with st.container(gap="xsmall"):
        with st.container(border=True):
            for column, heading in zip(st.columns(WIDTHS), HEADINGS, strict=True):
                column.caption(heading)
        for row in rows:
            with st.container(border=True):
                show_row(row, now)


def show_row(row: RunRow, now: datetime) -> None:
    """One run."""
    name, steps, kl, budget, findings, beta, updated = (
        one.container(gap="xxsmall") for one in st.columns(WIDTHS, vertical_alignment="center")
    )
    name.page_link("app_pages/run.py", label=f"**{plain(row.name)}**", query_params={"run": row.name})
    with name:
        show_status(row.status, silence=row.silence, imported_from=row.imported_from)
        st.caption(plain(row.trainer))
    with steps:
        show_steps(row)
    kl.markdown(f"**{plain(row.kl_text)}**")
    kl.caption(plain(row.kl_label if row.last_kl is None else row.kl_label.replace(f", {row.kl_unit}", "")))
    with budget:
        show_budget(row)
    with findings:
        show_findings(row)
    beta.markdown("no beta" if row.last_beta is None else f"{format_number(row.last_beta)} reward/nat")
    beta.markdown("no score" if row.last_score is None else f"{format_number(row.last_score)} reward")
    updated.markdown(say_age(row.updated_at, now=now))


def show_steps(row: RunRow) -> None:
    """Steps done of those planned."""
    if row.planned_steps and row.last_step is not None:
        st.progress(min(1.0, row.last_step / row.planned_steps), text=f"{row.last_step:,} of {row.planned_steps:,}")
    else:
        st.markdown(format_count(row.n_steps, "step"))
    if row.n_lost:
        st.markdown(f":red[:material/error: {format_count(row.n_lost, 'step')} lost]")


def show_budget(row: RunRow) -> None:
    """How much of the budget the last reading uses, in a bar and in words."""
    used = row.budget_used_percent
    if used is None:
        st.caption(plain(row.budget_text))
        return
    text = format_percent(used) if used <= 100 else f":red[:material/error: **{format_percent(used)}, over budget**]"
    st.progress(min(1.0, max(0.0, used / 100)) if math.isfinite(used) else 1.0, text=text)
    st.caption(plain(row.budget_text.split(":")[0]))


def show_findings(row: RunRow) -> None:
    """How many of each severity: icon, number and word."""
    counts = {"critical": row.n_critical, "warning": row.n_warning, "info": row.n_info}
    if not any(counts.values()):
        st.markdown(":material/check: none")
    for severity, icon, color in SEVERITY:
        if counts[severity]:
            st.badge(f"{counts[severity]} {severity}", icon=icon, color=color)


st.title("Runs", anchor=False)
view = data.show_runs(data.read_store_url())
show_totals(view)
st.fragment(follow_waiting, run_every=REFRESH_S)()
if view.rows:
    show_table(find_rows(view))
else:
    show_empty_store()
st.fragment(follow, run_every=REFRESH_S)(view)
