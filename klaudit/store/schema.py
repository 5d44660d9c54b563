"""`db/schema.sql`: the tables as the migrations make them on SQLite, with the comments of `klaudit.store.tables`.

Run `python -m klaudit.store.schema --write` after a change of the tables; `--check` says whether that was forgotten.
"""

import re
import sys
import textwrap
from collections.abc import Iterator

from sqlalchemy import text

from klaudit.assets import locate_asset
from klaudit.store.engine import Database
from klaudit.store.migration import migrate
from klaudit.store.tables import SCHEMA_REVISION, metadata

COMMAND = "python -m klaudit.store.schema"

HEADER = f"""\
-- The schema of a klaudit store, revision {SCHEMA_REVISION}, as SQLite has it.
-- Generated: change klaudit/store/tables.py and add a migration, then run `{COMMAND} --write`.
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


def main(arguments: list[str]) -> int:
    """Write or check `db/schema.sql`; 0 when all is well, 1 when the file is not what the migrations make, 2 for wrong arguments."""
    path = locate_asset("db") / "schema.sql"
    match arguments:
        case ["--write"]:
            path.write_text(render_schema(), encoding="utf-8")
            return 0
        case ["--check"]:
            if path.is_file() and path.read_text(encoding="utf-8") == render_schema():
                return 0
            sys.stderr.write(f"{path} is not what the migrations make: run `{COMMAND} --write`\n")
            return 1
    sys.stderr.write(f"expected `{COMMAND} --write` or `--check`; got {' '.join(arguments) or 'nothing'}\n")
    return 2


def _annotate(name: str, sql: str) -> Iterator[str]:
    table = metadata.tables.get(name)
    if table is not None and table.comment:
        yield f"-- {table.comment}."
    for line in sql.splitlines():
        definition = line.strip()
        found = re.match(r'"?(\w+)"? ', definition)
        column = None if table is None or found is None else table.columns.get(found[1])
        if column is not None and column.comment:
            yield from textwrap.wrap(column.comment, width=120, initial_indent="    -- ", subsequent_indent="    -- ")
        yield definition + ";" if definition == ")" else f"    {definition}" if line.startswith("\t") else line.rstrip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
