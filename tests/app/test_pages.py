"""The pages without a browser: what they say of a store that is there, empty, missing, strange or too new."""

import sqlite3
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from klaudit.store import open_store
from tests.browser.planted_store import HOSTILE_NAME

APP = Path(__file__).resolve().parents[2] / "app" / "streamlit_app.py"


def open_app(monkeypatch: pytest.MonkeyPatch, url: str, *, page: str | None = None, **query: str) -> AppTest:
    """The app after its first run."""
    monkeypatch.setenv("KLAUDIT_STORE", url)
    app = AppTest.from_file(str(APP), default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    return app if page is None else app.switch_page(f"app_pages/{page}.py").run()


def read_text(app: AppTest) -> str:
    """Everything that stands on the page as text."""
    elements = [*app.markdown, *app.caption, *app.subheader, *app.title, *app.code, *app.info, *app.warning]
    return "\n".join(str(one.value) for one in elements).replace("\\", "")


@pytest.mark.parametrize("page", [None, "run", "drift"])
def test_every_page_of_a_store_with_runs_shows_without_an_exception(
    page: str | None, planted_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_app(monkeypatch, planted_store, page=page)

    assert not app.exception
    assert app.title


def test_the_list_has_kl_with_unit_and_estimator_and_findings_in_words(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = read_text(open_app(monkeypatch, planted_store))

    assert "nats/sequence" in text
    assert "KL to reference (full)" in text
    assert "1 critical" in text
    assert "not measured" in text


def test_the_list_counts_what_is_in_it(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, planted_store)

    assert {one.label: str(one.value) for one in app.metric} == {
        "Runs": "5",
        "Running now": "2",
        "Critical findings": "1",
        "Highest budget use": "216.9%",
    }


@pytest.mark.parametrize("wanted", ["near-beta-zero", HOSTILE_NAME, "just-started"])
def test_the_address_names_the_run(wanted: str, planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, planted_store)
    app.query_params["run"] = wanted
    app.switch_page("app_pages/run.py").run()

    assert not app.exception
    assert app.title[0].value.replace("\\", "") == wanted


def test_an_unknown_run_is_said_and_the_latest_one_shown(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, planted_store)
    app.query_params["run"] = "nope"
    app.switch_page("app_pages/run.py").run()

    assert "No run is called nope" in app.warning[0].value
    assert app.title[0].value.replace("\\", "") == "just-started"


def test_a_finding_says_what_happened_where_and_what_to_do(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, planted_store)
    app.query_params["run"] = "near-beta-zero"
    text = read_text(app.switch_page("app_pages/run.py").run())

    assert "is over its budget of 8 nats/sequence" in text
    assert "steps 36 to 60, detected at step 38" in text
    assert "Stop the run or raise beta" in text


def test_the_gap_of_a_nan_is_said(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, planted_store)
    app.query_params["run"] = "lr-burst-nan"

    assert "1 gap: NaN at step 31 to 33" in read_text(app.switch_page("app_pages/run.py").run())


def test_a_run_whose_drift_was_not_measured_gets_the_command(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, planted_store)
    app.query_params["run"] = "lr-burst-nan"
    app.switch_page("app_pages/drift.py").run()

    assert app.code[0].value == "klaudit drift measure --run lr-burst-nan --reference SmolLM2-135M-Instruct"


@pytest.mark.parametrize("page", [None, "run", "drift"])
def test_an_empty_store_says_how_to_fill_it(page: str | None, own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{own_directory / 'empty.db'}"
    open_store(url, create=True).close()
    app = open_app(monkeypatch, url, page=page)

    assert not app.exception
    assert "No run yet" in read_text(app)
    assert "klaudit demo --replay" in read_text(app)


@pytest.mark.parametrize("page", [None, "run", "drift"])
def test_a_missing_store_says_what_to_do_and_leaves_no_file(page: str | None, own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, f"sqlite:///{own_directory / 'missing.db'}", page=page)

    assert not app.exception
    assert "There is no store here" in read_text(app)
    assert [*own_directory.glob("missing.db*")] == []


def test_a_store_of_a_newer_klaudit_says_to_update(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = own_directory / "newer.db"
    open_store(f"sqlite:///{path}", create=True).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    app = open_app(monkeypatch, f"sqlite:///{path}")

    assert not app.exception
    assert "made by a newer klaudit" in read_text(app)


def test_a_file_that_is_no_store_is_said_to_be_none(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = own_directory / "notes.db"
    path.write_text("shopping list: milk, eggs, a great many words that no database holds at its head\n" * 40, encoding="utf-8")
    app = open_app(monkeypatch, f"sqlite:///{path}")

    assert not app.exception
    assert "This is not a klaudit store" in read_text(app)


def test_settings_that_cannot_be_read_are_named(own_directory: Path, planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_directory / "klaudit.toml").write_text('stoer = "sqlite:///x.db"\n', encoding="utf-8")
    app = open_app(monkeypatch, planted_store)

    assert not app.exception
    assert "unknown key 'stoer'" in read_text(app)
