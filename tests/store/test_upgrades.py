"""A store of every schema that there ever was, frozen in `tests/upgrade_assets`, is brought to today's, and nothing of it is lost."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, select, text

from klaudit.errors import SchemaTooOld
from klaudit.store import Store, check_store, open_store, upgrade_store
from klaudit.store.engine import Database
from klaudit.store.migration import make_alembic_config
from klaudit.store.rollups import LEVELS
from klaudit.store.tables import SCHEMA_REVISION, metadata
from tests.upgrade_assets.freeze import FILLS, HERE, fill_as_frozen

MAKERS: dict[str, Callable[[pytest.FixtureRequest], str]] = {
    "sqlite": lambda request: f"sqlite:///{request.getfixturevalue('tmp_path')}/frozen.db",
    "postgresql": lambda request: str(request.getfixturevalue("postgresql_database")),
}
"""URLs of databases without tables."""


@pytest.fixture(params=MAKERS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(request: pytest.FixtureRequest, backend: str) -> str:
    return MAKERS[backend](request)


def thaw(url: str, revision: str) -> None:
    """Make the store that was frozen."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.executescript((HERE / f"{revision}.sqlite.sql").read_text(encoding="utf-8"))
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute((HERE / f"{revision}.postgresql.sql").read_bytes())


@contextlib.contextmanager
def open_database(url: str) -> Iterator[Database]:
    database = Database(url, "migrate")
    try:
        yield database
    finally:
        database.close()


def read_rows(url: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, as it lies there."""
    with open_database(url) as database, database.reading() as connection:
        names = [name for name in inspect(connection).get_table_names() if name != "alembic_version"]
        rows = {name: [dict(row) for row in connection.execute(text(f'SELECT * FROM "{name}"')).mappings()] for name in names}
    return {name: sorted(found, key=repr) for name, found in rows.items()}


def read_drift(store: Store, run_id: str | None) -> list[object]:
    profiles = store.drift.list_profiles(run_id)
    shards = [store.drift.list_shards(one) for one in profiles]
    return [store.drift.list(run_id), store.drift.list_distances(run_id), profiles, shards]


def read_content(store: Store) -> dict[str | None, object]:
    """All that the store's readers give, the ledger aside."""
    summaries = metadata.tables["run_summaries"]
    content: dict[str | None, object] = {"runs": store.runs.list(), "budgets": store.budgets.list(), None: read_drift(store, None)}
    for summary in store.runs.list():
        run_id = summary.run.id
        with store._database.reading() as connection:
            keys = connection.execute(select(summaries.c.rollup_keys).where(summaries.c.run_id == run_id)).scalar_one()
        content[run_id] = [
            store.runs.segments(run_id),
            store.steps.list(run_id),
            store.samples.list(run_id),
            store.checkpoints.list(run_id),
            read_drift(store, run_id),
            store.findings.list(run_id),
            store.alerts.list(run_id),
            [store.rollups.read(run_id, key, level) for key in keys for level in LEVELS],
        ]
    return content


def test_every_schema_has_its_frozen_store() -> None:
    assert sorted(FILLS) == sorted({path.name.split(".")[0] for path in HERE.glob("*.sql")})
    assert max(FILLS) == SCHEMA_REVISION
    for revision in FILLS:
        assert {path.name for path in HERE.glob(f"{revision}.*")} == {f"{revision}.sqlite.sql", f"{revision}.postgresql.sql"}


@pytest.mark.parametrize("revision", FILLS)
def test_a_frozen_store_comes_to_todays_schema_with_every_row(url: str, revision: str) -> None:
    thaw(url, revision)
    before = read_rows(url)
    assert upgrade_store(url) == (revision, SCHEMA_REVISION)
    after = read_rows(url)
    del before["klaudit_meta"]
    for name, rows in before.items():
        kept = [{column: row[column] for column in rows[0]} for row in after[name]] if rows else []
        assert sorted(kept, key=repr) == rows, name
    with open_database(url) as database, database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


@pytest.mark.parametrize("revision", FILLS)
def test_an_upgraded_store_reads_like_one_that_was_filled_today(url: str, revision: str) -> None:
    thaw(url, revision)
    upgrade_store(url)
    with open_store("sqlite://", create=True) as fresh, open_store(url) as upgraded:
        fill_as_frozen(fresh, revision)
        assert repr(read_content(upgraded)) == repr(read_content(fresh))


def test_an_old_store_is_not_opened_before_it_is_upgraded(url: str) -> None:
    thaw(url, "0001")
    with pytest.raises(SchemaTooOld, match="klaudit db upgrade"):
        open_store(url, create=True)
    assert check_store(url).revision == "0001"


def test_a_store_can_go_down_to_every_schema_and_up_again(url: str) -> None:
    with open_store(url, create=True) as store:
        fill_as_frozen(store, "0001")
        content = read_content(store)
    for revision in sorted(FILLS)[-2::-1]:
        with open_database(url) as database, database.writing() as connection:
            command.downgrade(make_alembic_config(connection), revision)
        assert check_store(url).revision == revision
    upgrade_store(url)
    with open_store(url) as store:
        assert repr(read_content(store)) == repr(content)


KILLED = """
import os, signal, sys
import klaudit.store.rollups as rollups
from klaudit.store import upgrade_store

write, calls = rollups.write_rollups, []

def write_and_die(connection, rows):
    write(connection, rows)
    calls.append(rows)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

rollups.write_rollups = write_and_die
upgrade_store(sys.argv[1])
"""


def test_a_migration_that_is_killed_leaves_the_old_store_and_can_be_done_again(url: str) -> None:
    thaw(url, "0001")
    before = read_rows(url)
    killed = subprocess.run([sys.executable, "-c", KILLED, url], check=False, capture_output=True, text=True)
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, "")
    assert read_rows(url) == before
    assert check_store(url).revision == "0001"
    assert check_store(url).integrity in ("ok", "not checked")
    assert upgrade_store(url) == ("0001", SCHEMA_REVISION)


def test_of_several_who_upgrade_at_once_one_does(url: str) -> None:
    thaw(url, "0001")
    program = "import sys; from klaudit.store import upgrade_store; upgrade_store(sys.argv[1])"
    processes = [subprocess.Popen([sys.executable, "-c", program, url], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in processes] == [""] * 3
    with open_store("sqlite://", create=True) as fresh, open_store(url) as upgraded:
        fill_as_frozen(fresh, "0001")
        assert repr(read_content(upgraded)) == repr(read_content(fresh))


def test_frozen_stores_name_no_machine() -> None:
    for path in Path(HERE).glob("*.sql"):
        frozen = path.read_text(encoding="utf-8")
        assert os.uname().nodename not in frozen, path.name
        assert str(Path.home()) not in frozen, path.name
