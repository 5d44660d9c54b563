"""The only cache: the opened store, and views that last as long as the run stands still.

A view is kept under the run's state (steps, time of the last one, status). What may change without a new step, such as a finding
of a later audit or a drift measurement, is seen after `TTL`.
"""

from datetime import timedelta

import streamlit as st

from klaudit.config import read_settings
from klaudit.records import Run
from klaudit.records.drift_shard import Sampler
from klaudit.report.views import CaptureView, DriftView, RunLedger, RunsView, RunView, SampleView, WaitingSteps
from klaudit.report.views.drift_completion import CompletionPair
from klaudit.report.views.drift_location import LocationView
from klaudit.report.views.drift_matrix import MatrixView
from klaudit.report.views.drift_profile import CheckpointProfile
from klaudit.report.views.finding import FindingsView, JudgedView
from klaudit.report.views.frontier import FrontierView
from klaudit.workflows.pages import Pages, RunState, open_pages

TTL = timedelta(seconds=10)
N_VIEWS = 64
"""Views that are kept at most, of each kind."""


def read_store_url() -> str:
    """Where the store lies, from the environment or klaudit.toml."""
    return read_settings().store


@st.cache_resource(max_entries=4, show_spinner=False)
def connect(url: str) -> Pages:
    """The opened store, shared by all sessions."""
    return open_pages(url, journals=read_settings().journals)


def open_store() -> Pages:
    """The store of this app.

    Raises:
        StoreError: there is none, or it cannot be read.
        InvalidConfig: klaudit.toml cannot be read.
    """
    return connect(read_store_url())


@st.cache_data(ttl=timedelta(seconds=2), max_entries=4, show_spinner=False)
def show_runs(url: str) -> RunsView:
    """The list of runs."""
    return connect(url).show_runs()


@st.cache_data(ttl=TTL, max_entries=4, show_spinner=False)
def list_waiting(url: str) -> tuple[WaitingSteps, ...]:
    """Steps that wait in journals, which are read whole for it."""
    return connect(url).list_waiting()


@st.cache_data(ttl=TTL, max_entries=N_VIEWS, show_spinner=False)
def show_run(url: str, state: RunState) -> RunView:
    """One run: curves, budgets, findings."""
    return connect(url).show_run(state.run_id)


@st.cache_resource(ttl=timedelta(minutes=10), max_entries=4, show_spinner=False)
def hold_ledgers(url: str) -> dict[str, RunLedger]:
    """What was read of each run's ledger, so that of a long one only the newest entries are read again."""
    return {}


@st.cache_data(ttl=TTL, max_entries=N_VIEWS, show_spinner=False)
def show_capture(url: str, state: RunState) -> CaptureView:
    """What was recorded of one run: its KLs, segments, identity and ledger."""
    ledgers = hold_ledgers(url)
    ledger = ledgers[state.run_id] = connect(url).read_ledger(state.run_id, after=ledgers.get(state.run_id, RunLedger()))
    return connect(url).show_capture(state.run_id, ledger=ledger)


@st.cache_data(ttl=TTL, max_entries=N_VIEWS, show_spinner=False)
def show_drift(url: str, state: RunState) -> DriftView:
    """The measured drift of one run's checkpoints."""
    return connect(url).show_drift(state.run_id)


@st.cache_data(ttl=TTL, max_entries=N_VIEWS, show_spinner=False)
def show_profiles(url: str, state: RunState) -> tuple[CheckpointProfile, ...]:
    """What is measured of one run's checkpoints beside their KL."""
    return connect(url).show_profiles(state.run_id)


@st.cache_data(ttl=TTL, max_entries=N_VIEWS, show_spinner=False)
def show_matrix(url: str, state: RunState) -> MatrixView | None:
    """KL between every two checkpoints of one run."""
    return connect(url).show_matrix(state.run_id)


@st.cache_data(ttl=timedelta(hours=1), max_entries=16, show_spinner="Reading the completions")
def show_location(url: str, keys: tuple[str, ...], sampler: Sampler) -> LocationView | None:
    """Where the drift of one checkpoint is; a shard never changes under its key."""
    return connect(url).show_location(keys, sampler=sampler)


@st.cache_data(ttl=timedelta(hours=1), max_entries=N_VIEWS, show_spinner=False)
def show_completions(url: str, keys: tuple[str, ...], prompt_index: int) -> tuple[CompletionPair, ...]:
    """What both models wrote on one prompt."""
    return connect(url).show_completions(keys, prompt_index=prompt_index)


@st.cache_data(ttl=TTL, max_entries=N_VIEWS, show_spinner=False)
def show_frontier(url: str, states: tuple[RunState, ...]) -> FrontierView:
    """Reward against drift of one run, or of several as a sweep."""
    return connect(url).show_frontier([one.run_id for one in states])


@st.cache_data(ttl=TTL, max_entries=4, show_spinner=False)
def list_findings(url: str) -> FindingsView:
    """The findings of all runs."""
    return connect(url).list_findings()


@st.cache_data(ttl=TTL, max_entries=N_VIEWS, show_spinner=False)
def show_findings(url: str, state: RunState) -> FindingsView:
    """The findings of one run."""
    return connect(url).show_findings(state.run_id)


@st.cache_data(ttl=timedelta(minutes=10), max_entries=N_VIEWS, show_spinner=False)
def show_judged(url: str, state: RunState) -> JudgedView | None:
    """What was judged of one run, by an audit of its steps."""
    return connect(url).show_judged(state.run_id)


@st.cache_data(ttl=TTL, max_entries=N_VIEWS, show_spinner=False)
def show_samples(url: str, state: RunState, step: int) -> tuple[SampleView, ...]:
    """The sampled texts of one step."""
    return connect(url).show_samples(state.run_id, step=step)


def find_run(name: str) -> Run:
    """One run by its name, read afresh."""
    return open_store().find_run(name)
