import contextlib
import sqlite3
from importlib.metadata import version
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from klaudit.errors import StoreError
from klaudit.store import Store, upgrade_store
from klaudit.store.engine import Database
from klaudit.store.migration import make_alembic_config
from klaudit.store.tables import SCHEMA_REVISION, metadata


def read_schema(path: Path) -> list[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()


def test_the_migrations_make_the_tables_of_the_code(store: Store) -> None:
    with store._database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_code_names_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(make_alembic_config()).get_heads() == [SCHEMA_REVISION]


def test_a_store_can_go_down_and_up_again(store_file: Path, store_url: str) -> None:
    before = read_schema(store_file)
    database = Database(store_url, "migrate")
    with database.writing() as connection:
        command.downgrade(make_alembic_config(connection), "base")
    assert [name for name, _ in read_schema(store_file) if not name.startswith("sqlite_")] == ["alembic_version"]
    database.close()
    assert upgrade_store(store_url) == (None, SCHEMA_REVISION)
    assert read_schema(store_file) == before


def test_an_upgrade_tells_from_where_to_where_and_does_nothing_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/klaudit.db"
    assert upgrade_store(url) == (None, SCHEMA_REVISION)
    assert upgrade_store(url) == (SCHEMA_REVISION, SCHEMA_REVISION)


def test_a_store_remembers_who_made_it_and_who_upgraded_it(store_file: Path, store_url: str) -> None:
    with contextlib.closing(sqlite3.connect(store_file)) as connection, connection:
        connection.execute("UPDATE klaudit_meta SET value = '0.0.1'")
    upgrade_store(store_url)
    with contextlib.closing(sqlite3.connect(store_file)) as connection:
        assert dict(connection.execute("SELECT name, value FROM klaudit_meta")) == {
            "created_by": "0.0.1",
            "upgraded_by": version("klaudit"),
        }


def test_an_upgrade_that_would_leave_rows_without_their_run_changes_nothing(store_file: Path, store_url: str) -> None:
    with contextlib.closing(sqlite3.connect(store_file)) as connection, connection:
        connection.execute("INSERT INTO segments (run_id, segment, started_at) VALUES ('gone', 0, '')")
        connection.execute("UPDATE klaudit_meta SET value = '0.0.1'")
    with pytest.raises(StoreError, match="one of segments; nothing was changed"):
        upgrade_store(store_url)
    with contextlib.closing(sqlite3.connect(store_file)) as connection:
        assert set(connection.execute("SELECT value FROM klaudit_meta")) == {("0.0.1",)}


def test_a_migration_that_breaks_off_leaves_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(connection: object) -> None:
        raise StoreError("power cut")

    monkeypatch.setattr("klaudit.store.migration._sign", break_off)
    with pytest.raises(StoreError, match="power cut"):
        upgrade_store(f"sqlite:///{tmp_path}/klaudit.db")
    assert read_schema(tmp_path / "klaudit.db") == []
