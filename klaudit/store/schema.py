"""`db/schema.sql`: the tables as the migrations make them on SQLite, with the comments of `klaudit.store.tables`."""

import re
import textwrap
from collections.abc import Iterator

from sqlalchemy import text

from klaudit.store.engine import Database
from klaudit.store.migration import migrate
from klaudit.store.tables import SCHEMA_REVISION, metadata

HEADER = f"""\
-- The schema of a klaudit store, revision {SCHEMA_REVISION}, as SQLite has it.
-- Generated: change klaudit/store/tables.py and add a migration, then run `python docs/build.py`.
--
-- A float that may be NaN or infinite has two columns: `x` (NULL unless finite) and `x_kind` (finite, nan, inf, -inf; NULL: no value).
-- Times are ISO 8601 text in UTC. Inside JSON, non-finite numbers are the strings "NaN", "Infinity" and "-Infinity".
"""


def render_schema() -> str:
    """Text of `db/schema.sql`, made by running the migrations on an empty SQLite database."""
    database = Database("sqlite://", "migrate")
    try:
        migrate(database)
        query = text("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC, rowid")
        with database.reading() as connection:
            created = connection.execute(query).all()
    finally:
        database.close()
    parts = ["\n".join(_annotate(name, sql)) if kind == "table" else f"{sql};" for kind, name, sql in created]
    tables = [part for part, (kind, _, _) in zip(parts, created, strict=True) if kind == "table"]
    return "\n\n".join([HEADER.rstrip(), *tables, "\n".join(parts[len(tables) :])]) + "\n"


def _annotate(name: str, sql: str) -> Iterator[str]:
    table = metadata.tables.get(name)
    if table is not None and table.comment:
        yield f"-- {table.comment}."
    # SQLite keeps a table's options on a line of their own, and columns that came later behind the last one.
    sql = re.sub(r"\)\s*WITHOUT ROWID\s*$", ") WITHOUT ROWID", sql)
    sql = re.sub(r", (?=\w+ (?:VARCHAR|TEXT|BIGINT|INTEGER|DOUBLE))", ",\n\t", sql)
    for line in sql.splitlines():
        definition = line.strip()
        found = re.match(r'"?(\w+)"? ', definition)
        column = None if table is None or found is None else table.columns.get(found[1])
        if column is not None and column.comment:
            yield from textwrap.wrap(column.comment, width=120, initial_indent="    -- ", subsequent_indent="    -- ")
        yield definition + ";" if definition.startswith(")") else f"    {definition}" if line.startswith("\t") else line.rstrip()
