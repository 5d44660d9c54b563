import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from klaudit.errors import InvalidConfig, NotAStore, SchemaTooNew, SchemaTooOld, StoreError, StoreUnreachable
from klaudit.store import check_store, open_store, upgrade_store
from klaudit.store.tables import SCHEMA_REVISION
from tests.store.examples import make_run, make_step

VERBS: dict[str, Callable[[str], object]] = {
    "open": open_store,
    "open read-only": lambda url: open_store(url, read_only=True),
    "create": lambda url: open_store(url, create=True),
    "upgrade": upgrade_store,
    "check": check_store,
}
READING_VERBS = {name: VERBS[name] for name in ("open", "open read-only", "check")}


def write_foreign_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE runs (id TEXT); INSERT INTO runs VALUES ('theirs')")


def set_revision(path: Path, revision: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))


def read_pragma(url: str, name: str) -> object:
    with open_store(url) as store, store._database.reading() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


@pytest.mark.parametrize("verb", READING_VERBS)
def test_a_missing_store_is_named_with_the_way_to_make_one_and_no_file_is_left(verb: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/none.db"
    with pytest.raises(StoreUnreachable, match=f"no store at {url}: expected .* klaudit db upgrade --store {url}; or give --store URL"):
        READING_VERBS[verb](url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
@pytest.mark.parametrize("verb", [*READING_VERBS, "upgrade"])
def test_a_store_in_memory_is_not_there_and_no_upgrade_would_make_it(verb: str, url: str) -> None:
    with pytest.raises(InvalidConfig, match=r"such as sqlite:///klaudit\.db; got sqlite://.*, a store in memory") as caught:
        VERBS[verb](url)
    assert "upgrade" not in str(caught.value)


def test_a_missing_file_that_is_given_as_uri_is_not_made_either(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreachable, match="unable to open database file"):
        open_store(f"sqlite:///file:{tmp_path}/none.db?uri=true")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["create", "upgrade"])
def test_a_store_is_not_made_in_a_folder_that_is_not_there(verb: str, tmp_path: Path) -> None:
    with pytest.raises(StoreUnreachable, match="unable to open database file"):
        VERBS[verb](f"sqlite:///{tmp_path}/folder/new.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_that_is_no_database_is_refused_and_untouched(verb: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(b"dear diary, " * 1000)
    with pytest.raises(NotAStore, match="the file there is no database"):
        VERBS[verb](f"sqlite:///{path}")
    assert path.read_bytes() == b"dear diary, " * 1000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("verb", VERBS)
def test_a_database_of_somebody_else_is_refused_and_untouched(verb: str, tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    write_foreign_database(path)
    before = path.read_bytes()
    with pytest.raises(NotAStore, match="belongs to something else, and was left as it is"):
        VERBS[verb](f"sqlite:///{path}")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("verb", READING_VERBS)
def test_an_empty_database_is_no_store_yet(verb: str, tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(NotAStore, match=f"is empty. Make it one with: klaudit db upgrade --store sqlite:///{path}"):
        READING_VERBS[verb](f"sqlite:///{path}")
    assert path.read_bytes() == b""


def test_a_store_of_a_newer_klaudit_says_who_made_it_and_what_to_upgrade(store_file: Path, store_url: str) -> None:
    set_revision(store_file, "9999")
    with contextlib.closing(sqlite3.connect(store_file)) as connection, connection:
        connection.execute("UPDATE klaudit_meta SET value = '7.5' WHERE name = 'upgraded_by'")
    for verb in ("open", "open read-only", "create", "upgrade"):
        with pytest.raises(SchemaTooNew, match=r"klaudit 7\.5 made it \(schema 9999\).*pip install -U klaudit"):
            VERBS[verb](store_url)
    status = check_store(store_url)
    assert (status.revision, status.is_current, status.made_by, status.integrity) == ("9999", False, "7.5", "ok")


def test_a_store_of_an_older_klaudit_says_which_command_upgrades_it(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klaudit.store.migration.SCHEMA_REVISION", "9999")
    with pytest.raises(
        SchemaTooOld, match=rf"\(schema {SCHEMA_REVISION}\); this is klaudit .* \(schema 9999\).*klaudit db upgrade --store {store_url}$"
    ):
        open_store(store_url)
    assert not check_store(store_url).is_current


def test_a_store_that_is_there_is_opened_by_create_as_it_is(store_url: str) -> None:
    with open_store(store_url, create=True) as store:
        store.runs.add(make_run())
    with open_store(store_url, create=True) as store:
        assert store.runs.get("id-1") == make_run()


def test_a_sound_store_checks_as_sound(store_url: str) -> None:
    status = check_store(store_url)
    assert (status.url, status.revision, status.head, status.is_current, status.integrity) == (
        store_url,
        SCHEMA_REVISION,
        SCHEMA_REVISION,
        True,
        "ok",
    )


def test_a_damaged_store_checks_as_damaged(store_file: Path, store_url: str) -> None:
    with contextlib.closing(sqlite3.connect(store_file)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET rootpage = 2 WHERE name = 'steps'")
    assert check_store(store_url).integrity not in ("ok", "")


def test_passwords_are_in_no_message() -> None:
    with pytest.raises(InvalidConfig) as caught:
        open_store("mysterydb://ada:s3cret@host/db?password=s3cret")
    assert "s3cret" not in str(caught.value)
    assert "mysterydb://ada:***@host/db" in str(caught.value)
    with pytest.raises(InvalidConfig) as caught:
        open_store("ada:s3cret@host")
    assert "s3cret" not in str(caught.value)


def test_a_path_is_not_taken_for_a_url() -> None:
    with pytest.raises(InvalidConfig, match=r"such as sqlite:///klaudit\.db or postgresql://.*; got 'klaudit\.db'"):
        open_store("klaudit.db")


def test_a_store_opened_to_read_refuses_to_write(store_url: str) -> None:
    with open_store(store_url, read_only=True) as store:
        with pytest.raises(StoreError, match="readonly"):
            store.runs.add(make_run())
        assert store.runs.list() == []


@pytest.mark.parametrize(("name", "value"), [("journal_mode", "wal"), ("busy_timeout", 30_000), ("foreign_keys", 1), ("synchronous", 1)])
def test_the_settings_of_sqlite_are_really_set(store_url: str, name: str, value: object) -> None:
    assert read_pragma(store_url, name) == value


def test_readers_see_the_last_commit_while_a_writer_writes(store_url: str) -> None:
    with open_store(store_url) as writer, open_store(store_url, busy_timeout_s=0) as reader:
        writer.runs.add(make_run())
        with writer._database.writing() as connection:
            connection.exec_driver_sql("UPDATE runs SET policy = 'half done'")
            assert reader.runs.get("id-1") == make_run()
            assert reader.runs.list()[0].run == make_run()


def test_a_second_writer_that_waits_in_vain_says_so(store_url: str) -> None:
    first, second = open_store(store_url), open_store(store_url, busy_timeout_s=0.05)
    with first, second, first._database.writing(), pytest.raises(StoreUnreachable, match="database is locked"):
        second.runs.add(make_run())


def test_threads_write_and_read_one_store_together(store_url: str) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            run = make_run(number)
            store.runs.add(run)
            for step in range(20):
                store.steps.add(run.id, make_step(step))
                assert store.steps.count(run.id) == step + 1
        except BaseException as exc:
            errors.append(exc)

    with open_store(store_url) as store:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert [summary.n_steps for summary in store.runs.list()] == [20, 20, 20, 20]


def test_processes_that_make_the_same_store_at_once_all_get_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/klaudit.db"
    program = f"from klaudit.store import open_store; open_store({url!r}, create=True).close()"
    processes = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in processes] == [""] * 3
    assert check_store(url).is_current


def test_a_path_with_signs_that_mean_something_in_a_url_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "50% of #runs.db"
    with open_store(f"sqlite:///{path}", create=True) as store:
        store.runs.add(make_run())
    assert list(tmp_path.iterdir()) == [path]
