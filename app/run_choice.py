"""Which run a page is about: the one that the address names, else the one that was open before, else the latest."""

import streamlit as st

from klaudit.report.views import RunRow, RunsView
from plain_text import plain

BOX, OPEN = "run_box", "open_run"


def find_chosen(runs: RunsView) -> RunRow | None:
    """The run that the page is about, named in the address from now on; None where the store holds no run."""
    if not runs.rows:
        show_empty_store()
        return None
    wanted = st.query_params.get("run", st.session_state.get(OPEN, runs.rows[0].name))
    row = next((one for one in runs.rows if wanted in (one.name, one.id)), None)
    if row is None:
        st.warning(f"No run is called {plain(wanted)}. Here is the latest one.", icon=":material/search_off:")
    row = row or runs.rows[0]
    st.session_state[OPEN] = row.name
    if st.query_params.get("run") != row.name:
        st.query_params["run"] = row.name
    return row


def show_box(runs: RunsView, chosen: RunRow) -> None:
    """The box to choose another run in; the address is in force, and the box follows it."""
    st.session_state[BOX] = chosen.name
    st.selectbox("Run", [one.name for one in runs.rows], key=BOX, on_change=open_chosen, label_visibility="collapsed")


def open_chosen() -> None:
    """Put what was chosen in the box into the address; a step of the run before leaves it."""
    st.query_params.from_dict({"run": st.session_state[BOX]})


def show_empty_store() -> None:
    """What to do with a store that holds no run."""
    with st.container(border=True, width=760):
        st.subheader("No run yet", anchor=False)
        st.markdown("Attach klaudit to a trainer, and its first step shows up here. To look around first, load the recorded sample runs.")
        st.code("klaudit demo --replay", language="bash")
        st.code('klaudit.attach(trainer, run="my-run", budget=klaudit.KLBudget(10.0, unit="nats_per_sequence"))', language="python")
