"""The page Drift without a browser: of a run measured with all there is, and of one measured before there were completions."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from klaudit.store import open_store
from tests.app.test_pages import open_app, read_tables, read_text
from tests.browser.planted_drift import write_profiles

RUN = "near-beta-zero"
MEASURE = f"klaudit drift measure --run {RUN} --reference SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
def measured_store(planted_store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of a store in which one run is measured with completions, slices, retention, layers and distances."""
    path = tmp_path_factory.mktemp("measured") / "klaudit.db"
    shutil.copy(planted_store.removeprefix("sqlite:///"), path)
    with open_store(f"sqlite:///{path}") as store:
        write_profiles(store, RUN)
    return f"sqlite:///{path}"


def open_drift(monkeypatch: pytest.MonkeyPatch, url: str, **query: str) -> AppTest:
    """The page of the measured run, as a link to it opens."""
    return open_app(monkeypatch, url, page="drift", run=RUN, **query)


def list_html(app: AppTest) -> list[str]:
    """Everything that stands on the page as HTML of our own."""
    return [str(one.proto.body) for one in app.get("html")]


def test_the_last_checkpoint_has_four_numbers_with_their_units_and_its_slices(measured_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_drift(monkeypatch, measured_store)

    assert not app.exception
    drift, furthest, retention, ratio = app.metric
    assert drift.label == "Drift \\(full\\)"
    assert str(drift.delta).startswith("nats/sequence, ")
    assert (str(furthest.value), str(furthest.delta)) == ("6\\.40", "times the rest, beyond noise")
    assert str(retention.value) == "\\+27\\.1\\%"
    assert (str(ratio.value), str(ratio.delta)) == ("0\\.710", "cannot tell: below 1")
    assert "this mean says nothing, and k1 and k3 little: look at full" in read_text(app)
    assert 'trigger <b>phrase</b> :red-badge[beyond noise],"6.40 [5.00, 8.10]",< 0.0001,10' in read_tables(app)


def test_tokens_and_prompts_are_text_whichever_prompt_and_direction_are_chosen(
    measured_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_drift(monkeypatch, measured_store)
    assert "KL(policy ‖ reference) on 90 completions by the policy" in read_text(app)
    first = [one for one in list_html(app) if "Review" in one]

    next(one for one in app.selectbox if one.label.startswith("Prompt, ")).select_index(3).run()
    second = [one for one in list_html(app) if "Review" in one]
    assert (len(first), len(second), first == second) == (1, 1, False)

    app.session_state["direction"] = "forward"
    app.run()
    assert not app.exception
    assert "KL(reference ‖ policy) on 90 completions by the reference" in read_text(app)
    html = list_html(app)
    assert any("klaudit-completion" in one for one in html)
    assert not [one for one in html if "<img" in one or "<i>" in one]
    assert "&lt;img src" in "".join(html)


def test_the_address_names_the_checkpoint(measured_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_drift(monkeypatch, measured_store, checkpoint="after update 24")

    assert not app.exception
    assert "Where the drift is, after update 24" in read_text(app)
    assert str(app.metric[3].delta) == "right: must be 1"


def test_what_was_measured_before_there_were_completions_gets_the_commands(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_drift(monkeypatch, planted_store)

    assert not app.exception
    assert [one.value for one in app.code] == [MEASURE, f"{MEASURE} --matrix"]
    assert [str(one.value) for one in app.metric][1:] == ["not measured"] * 3


def test_a_shard_that_is_gone_leaves_the_rest(measured_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "partly.db"
    shutil.copy(measured_store.removeprefix("sqlite:///"), path)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM drift_shards")
    connection.close()
    app = open_drift(monkeypatch, f"sqlite:///{path}")

    assert not app.exception
    assert "No completion of after update 60 was kept" in read_text(app)
