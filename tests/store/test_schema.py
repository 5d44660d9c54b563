import contextlib
import sqlite3

from klaudit.assets import locate_asset
from klaudit.store.schema import render_schema
from klaudit.store.tables import metadata


def test_the_documented_schema_is_what_the_migrations_make() -> None:
    assert (locate_asset("db") / "schema.sql").read_text(encoding="utf-8") == render_schema()


def test_the_documented_schema_is_sql_that_makes_the_same_tables() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript((locate_asset("db") / "schema.sql").read_text(encoding="utf-8"))
        columns = {
            name: {row[1] for row in connection.execute(f"PRAGMA table_info({name})")}
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
    assert columns.pop("alembic_version") == {"version_num"}
    assert columns == {name: set(table.columns.keys()) for name, table in metadata.tables.items()}


def test_every_table_and_every_number_is_explained() -> None:
    text = render_schema()
    for table in metadata.sorted_tables:
        assert f"-- {table.comment}.\nCREATE TABLE {table.name} (" in text
        assert [column.name for column in table.columns if str(column.type) == "DOUBLE" and not column.comment] == []
