"""The pages without a browser: what they say of a store that is there, empty, missing, strange or too new."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from klaudit.records import KLReading, LoggedStep, Segment, StepRecord
from klaudit.store import open_store, upgrade_store
from plain_text import JOINER
from tests.browser.planted_store import HOSTILE_NAME, IDENTITY, OTHER_REFERENCE, REFERENCE, describe_run, keep_alive, leave_steps_waiting
from tests.upgrade_assets.freeze import HERE as FROZEN

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
    elements = [*app.markdown, *app.caption, *app.subheader, *app.title, *app.code, *app.info, *app.warning, *app.error]
    return "\n".join(strip_escapes(str(one.value)) for one in elements)


def strip_escapes(markdown: str) -> str:
    """The text as it shows."""
    return markdown.replace("\\", "").replace(JOINER, "")


def open_run(monkeypatch: pytest.MonkeyPatch, url: str, name: str) -> AppTest:
    """The page of one run, as a link to it opens."""
    app = open_app(monkeypatch, url)
    app.query_params["run"] = name
    return app.switch_page("app_pages/run.py").run()


def read_tables(app: AppTest) -> str:
    """Everything that stands in tables."""
    return strip_escapes("\n".join(one.value.to_csv(index=False) for one in app.table))


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
        "Runs": "8",
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
    assert strip_escapes(app.title[0].value) == wanted


def test_an_unknown_run_is_said_and_the_latest_one_shown(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, planted_store)
    app.query_params["run"] = "nope"
    app.switch_page("app_pages/run.py").run()

    assert "No run is called nope" in app.warning[0].value
    assert strip_escapes(app.title[0].value) == "just-started"


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


def test_a_run_that_nobody_writes_does_not_read_as_running(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, planted_store)
    text = read_text(app)

    assert "no sign of life since" in text
    assert text.count(":blue-badge[:material/play_circle: running]") == 2
    assert "3 steps lost" in text
    assert "grpo by trl" in text


def test_the_page_of_a_run_that_nobody_writes_says_so(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_run(monkeypatch, planted_store, "killed-trainer")

    assert not app.exception
    assert "The run says that it is running, and there is no sign of life since" in strip_escapes(app.warning[0].value)
    assert app.error[0].value == "3 steps were logged and could not be kept; the segments say which and why."


@pytest.mark.parametrize(
    ("is_alive", "who"),
    [(True, "its trainer carries them over"), (False, "the next klaudit command that writes to this store carries them over")],
)
def test_steps_that_wait_in_a_journal_are_told_above_the_table(
    is_alive: bool, who: str, own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, now = f"sqlite:///{own_directory / 'klaudit.db'}", datetime.now(UTC)
    open_store(url, create=True).close()
    journal = leave_steps_waiting(url, run=describe_run(HOSTILE_NAME, started_at=now, status="running"), n_steps=120, now=now)
    if not is_alive:
        journal.leave()
    app = open_app(monkeypatch, url)
    journal.leave()

    [sentence] = [strip_escapes(one.value) for one in app.info]
    assert sentence.startswith(f"120 steps of run {HOSTILE_NAME} wait in its journal: ")
    assert sentence.endswith(who)


def test_few_steps_on_their_way_are_not_worth_a_word(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, now = f"sqlite:///{own_directory / 'klaudit.db'}", datetime.now(UTC)
    with open_store(url, create=True) as store:
        run = describe_run("busy", started_at=now, status="running")
        store.runs.add(run)
        store.runs.add_segment(keep_alive(Segment(run.id, 0, now)))
    journal = leave_steps_waiting(url, run=run, n_steps=3, now=now)
    app = open_app(monkeypatch, url)
    journal.leave()

    assert not app.info
    assert "running" in read_text(app)


def test_every_kl_is_told_with_all_that_makes_it_one(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_run(monkeypatch, planted_store, "grpo-with-probe")

    assert "kl :blue-badge[governs]" not in read_tables(app)
    lines = read_tables(app).splitlines()
    assert (
        lines[1]
        == "kl_probe :blue-badge[governs],KL to reference,full,nats/sequence,mean over sequences,KL(policy || reference),0.9,klaudit.LiveProbe"
    )
    assert "kl,KL to reference,k3,nats/token,mean over several steps,KL(policy || reference),0.9,kl" in lines
    text = read_text(app)
    assert "logging_steps is 5, so a step is the mean of 5 updates" in text
    assert "measured at 7 of 60 steps; nothing is known in between" in text
    assert "gap" not in text


def test_segments_tell_their_writer_their_losses_and_another_reference(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_run(monkeypatch, planted_store, "killed-trainer")

    tables = read_tables(app)
    assert "3 steps (between 46 and 48): neither the store nor a journal took them" in tables
    assert "resumed from step 24" in tables
    assert "a7a7a7a7a7a7 :orange-badge[changed]" in tables
    text = read_text(app)
    assert "The reference changed" in text
    assert OTHER_REFERENCE in text
    assert "1 resume, at step 25" in text


def test_identity_shows_digests_packages_and_code(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_run(monkeypatch, planted_store, "killed-trainer")

    shown = [one.value for one in app.code]
    assert REFERENCE.digest in shown
    assert IDENTITY["tokenizer"]["digest"] in shown
    assert IDENTITY["git"]["commit"] in shown
    text = read_text(app)
    assert "trl 1.16.0" in text
    assert "with uncommitted changes" in text
    assert "the tokenizer has none" in text


def test_the_ledger_is_told_and_not_vouched_for(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_run(monkeypatch, planted_store, "near-beta-zero")
    with open_store(planted_store, read_only=True) as store:
        run = store.runs.get("near-beta-zero")
        head = store.ledger.heads_by_run()[run.id]

    text = read_text(app)
    assert "The ledger covers all 60 steps." in text
    assert f"The last of its {head.run_seq} entries is number {head.seq} of the store" in text
    assert head.hash in [one.value for one in app.code]
    assert "`klaudit ledger verify` checks it" in text


def test_an_imported_run_says_so_and_its_file_name_is_text(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_run(monkeypatch, planted_store, "read-from-a-log")

    assert not app.exception
    text = read_text(app)
    assert f"Imported from {HOSTILE_NAME}.json (trainer_state) on {datetime.now(UTC):%Y-}" in text
    assert "klaudit did not see it train" in text
    assert "KL of unknown kind" in [one.value for one in app.subheader]


def test_a_long_run_says_that_it_is_drawn_from_roll_ups(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, now = f"sqlite:///{own_directory / 'klaudit.db'}", datetime.now(UTC)
    with open_store(url, create=True) as store:
        run = describe_run("long", started_at=now, status="finished")
        store.runs.add(run)
        store.runs.add_segment(Segment(run.id, 0, now, ended_at=now))
        readings = (KLReading(run.series["kl"], step % 97 / 97) for step in range(6_000))
        store.steps.add_all(run.id, [LoggedStep(StepRecord(step, one, now)) for step, one in enumerate(readings, start=1)])

    assert "of 6,000 points; lowest and highest of every 64 steps" in read_text(open_run(monkeypatch, url, "long"))


@pytest.mark.parametrize("name", ["id-1", "id-2", "id-3"])
def test_runs_of_a_store_of_the_first_schema_are_shown_with_what_they_have(
    name: str, own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own_directory / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FROZEN / "0001.sqlite.sql").read_text(encoding="utf-8"))
    upgrade_store(f"sqlite:///{path}")
    app = open_run(monkeypatch, f"sqlite:///{path}", name)

    assert not app.exception
    assert "The ledger has no entry of this run: it is older than the ledger." in read_text(app)
