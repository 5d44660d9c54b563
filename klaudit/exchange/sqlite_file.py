"""SQLite files of other tools, read and never written to."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from klaudit.errors import InvalidImportFile
from klaudit.exchange.reader import FileHead, ReadOptions, refuse, shorten

MAGIC = b"SQLite format 3\0"
FORMAT_VERSION = slice(18, 20)
"""Bytes of the header that say whether changes go to a write-ahead log first."""
WRITE_AHEAD = b"\2\2"
LONGEST_VALUE = 10 << 20
"""Bytes; nothing that a trainer logs is longer."""

ROWS_BETWEEN_REPORTS = 5_000

Columns = Mapping[str, frozenset[str]]
"""Tables by name, each with the names of its columns."""


@contextmanager
def open_to_read(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write; what SQLite raises while it is used is said of the file.

    What a live or a killed writer has left in a write-ahead log is read too. SQLite keeps an index to that log beside it (`-shm`), the
    only file that may change; without a log the file is opened as one that cannot change, and nothing appears beside it.

    Raises:
        InvalidImportFile: no SQLite file, or one that is damaged.
    """
    try:
        with closing(sqlite3.connect(_locate(path), uri=True, isolation_level=None)) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
            # A file from elsewhere may define views and triggers that call functions.
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA query_only = ON")
            yield connection
    # Names in a damaged schema are decoded outside of what SQLite's own errors cover.
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
        raise refuse(path, f"expected an SQLite database that can be read; {error}") from error


class RowCount:
    """Tells a progress bar how much of a table was read, as a share of the file's bytes."""

    def __init__(self, path: Path, connection: sqlite3.Connection, table: str, options: ReadOptions) -> None:
        (self._n_rows,) = connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()
        self._n_bytes = path.stat().st_size
        self._n_done = 0
        self._on_progress = options.on_progress

    def add_row(self) -> None:
        """Another row was read."""
        self._n_done += 1
        if self._n_done % ROWS_BETWEEN_REPORTS == 0:
            self._on_progress(self._n_bytes * self._n_done // self._n_rows, self._n_bytes)


def find_columns(connection: sqlite3.Connection) -> Columns:
    """The tables of a database and their columns; views are none."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        name: frozenset(column for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (name,))) for name in tables
    }


def has_columns(head: FileHead, expected: Columns) -> bool:
    """Whether a file is an SQLite database with these tables and columns. Never raises."""
    if not head.start.startswith(MAGIC) or head.is_compressed:
        return False
    try:
        with open_to_read(head.path) as connection:
            found = find_columns(connection)
    except InvalidImportFile:
        return False
    return all(columns <= found.get(table, frozenset()) for table, columns in expected.items())


def require_columns(connection: sqlite3.Connection, expected: Columns, *, path: Path, tool: str) -> Columns:
    """The tables of a database that has at least these.

    Raises:
        InvalidImportFile: a table or a column is missing; the message names it.
    """
    found = find_columns(connection)
    for table, columns in expected.items():
        if table not in found:
            raise refuse(path, f"expected {tool}'s table {table!r}; there are {shorten(', '.join(sorted(found)) or 'none', 200)}")
        if missing := columns - found[table]:
            raise refuse(path, f"expected {tool}'s columns {', '.join(sorted(missing))} in table {table!r}; they are missing")
    return found


def _locate(path: Path) -> str:
    with path.open("rb") as file:
        is_write_ahead = file.read(FORMAT_VERSION.stop)[FORMAT_VERSION] == WRITE_AHEAD
    log = path.with_name(path.name + "-wal")
    is_quiet = is_write_ahead and not (log.exists() and log.stat().st_size)
    return f"file:{quote(str(path.resolve()))}?mode=ro{'&immutable=1' if is_quiet else ''}"
