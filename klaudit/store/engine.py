"""The border to SQLAlchemy: one connection set-up, two kinds of transaction, every error of theirs turned into one of ours."""

import math
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, assert_never
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
    StatementError,
    TimeoutError,
)

from klaudit.errors import (
    InvalidConfig,
    InvalidRecord,
    KlauditError,
    MissingExtra,
    NetworkFilesystem,
    NotAStore,
    StoreError,
    StoreUnreachable,
)
from klaudit.store.filesystem import find_network_filesystem

Access = Literal["read", "write", "migrate"]
"""What a connection may do: read; read and write; make the file and change the tables."""

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for another writer of the same SQLite file, for a lock of PostgreSQL's or for its server, in seconds."""

STATEMENT_TIMEOUT_S = 60.0
"""The least that a statement may take on PostgreSQL, in seconds; ten times the busy timeout where that is more."""

DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
"""What a URL may begin with, and what it then means to SQLAlchemy."""

CONNECTION_HINTS = {
    "does not exist": "make the database with: createdb {database}; or correct the user",
    "authentication failed": "give user and password in the URL, in PGUSER and PGPASSWORD or in ~/.pgpass",
    "no password supplied": "give the password in the URL, in PGPASSWORD or in ~/.pgpass",
    "pg_hba.conf": "allow this host and user in the server's pg_hba.conf",
    "too many": "raise the server's max_connections, or use fewer writers at once",
}
"""What to do by what PostgreSQL says when it refuses a connection."""


def parse_url(url: str) -> URL:
    """The URL, taken apart; `postgresql:` means psycopg 3.

    Raises:
        InvalidConfig: not the URL of an SQLite or PostgreSQL database; a password in it is not repeated.
    """
    expected = "expected the URL of a store, such as sqlite:///klaudit.db or postgresql://user@host/klaudit"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as exc:
        came = "something else" if "@" in url else repr(url)
        raise InvalidConfig(f"{expected}; got {came}") from exc
    if parsed.drivername not in DRIVERS:
        raise InvalidConfig(f"{expected}; got {render_url(parsed)}")
    return parsed.set(drivername=DRIVERS[parsed.drivername])


def render_url(url: URL) -> str:
    """The URL for people: without password and options."""
    return url.set(query={}).render_as_string(hide_password=True)


def is_memory(url: URL) -> bool:
    """Whether the URL means an SQLite database that lives as long as its one connection."""
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def find_file(url: URL) -> Path | None:
    """The file of an SQLite database, wherever the process goes meanwhile; None for one in memory and for other databases."""
    if url.get_backend_name() != "sqlite" or is_memory(url):
        return None
    return Path((url.database or "").removeprefix("file:").partition("?")[0]).absolute()


def anchor_url(url: str) -> str:
    """The URL, a relative path to an SQLite file made absolute: a process may go to another directory."""
    parsed = parse_url(url)
    if (file := find_file(parsed)) is None or (parsed.database or "").startswith("file:"):
        return url
    return parsed.set(database=str(file)).render_as_string(hide_password=False)


def show_url(url: str) -> str:
    """The URL for people: without password and options."""
    return render_url(parse_url(url))


class Database:
    """An engine with its transactions.

    Raises:
        InvalidConfig: a URL of something else than SQLite or PostgreSQL.
        MissingExtra: PostgreSQL, and psycopg is not installed.
    """

    def __init__(self, url: str, access: Access, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        parsed = parse_url(url)
        self.url = render_url(parsed)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.is_memory = is_memory(parsed)
        self.path = find_file(parsed)
        self._name = parsed.database or "klaudit"
        self._busy_timeout_s = busy_timeout_s
        self._shared = threading.local()
        self._engine = self._make_sqlite_engine(parsed, access) if self.is_sqlite else self._make_postgresql_engine(parsed, access)
        # BEGIN IMMEDIATE takes the write lock first: a transaction that reads and then writes would otherwise fail at once,
        # without waiting for the busy timeout, when another writer came between (sqlite.org/rescode.html#busy_snapshot).
        self._writer = self._engine.execution_options(klaudit_begin="BEGIN IMMEDIATE")
        # SQLite reads one state of the file anyway; PostgreSQL by default another with every statement.
        self._reader = self._engine if self.is_sqlite else self._engine.execution_options(isolation_level="REPEATABLE READ")

    def _make_sqlite_engine(self, url: URL, access: Access) -> Engine:
        if self.is_memory:
            engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
        else:
            engine = create_engine(_to_file_uri(url, may_create=access == "migrate"))
        event.listen(engine, "connect", self._make_set_up(access))
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _make_postgresql_engine(self, url: URL, access: Access) -> Engine:
        # 0 would mean to wait for ever.
        settings: dict[str, object] = {"lock_timeout": max(1, round(self._busy_timeout_s * 1000))}
        if access != "migrate":
            settings["statement_timeout"] = round(max(STATEMENT_TIMEOUT_S, 10 * self._busy_timeout_s) * 1000)
        if access == "read":
            settings["default_transaction_read_only"] = "on"
        if access == "write":
            # A writer that is stopped in the middle must not hold up the others for longer than a statement may take.
            settings["idle_in_transaction_session_timeout"] = settings["statement_timeout"]
        given = url.query.get("options", "")
        options = [given if isinstance(given, str) else " ".join(given), *(f"-c {name}={value}" for name, value in settings.items())]
        try:
            return create_engine(
                url,
                pool_pre_ping=True,
                pool_timeout=self._busy_timeout_s,
                connect_args={
                    "connect_timeout": max(2, math.ceil(self._busy_timeout_s)),
                    "application_name": "klaudit",
                    "options": " ".join(options).strip(),
                    # A server that is cut off is noticed within half a minute.
                    "keepalives_idle": 10,
                    "keepalives_interval": 5,
                    "keepalives_count": 4,
                    "tcp_user_timeout": 30_000,
                },
            )
        except ImportError as exc:
            raise MissingExtra(f"a store at {self.url}", "postgres") from exc

    def _make_set_up(self, access: Access) -> Callable[[sqlite3.Connection, object], None]:
        # Only settings of the connection: opening somebody else's file must not change a byte of it.
        match access:
            case "read":
                settings = {"foreign_keys": 1, "query_only": 1}
            case "write":
                settings = {"foreign_keys": 1}
            case "migrate":
                # Batch migrations drop and make tables again, and a drop would cascade.
                settings = {"foreign_keys": 0}
            case _:
                assert_never(access)
        settings |= {"busy_timeout": round(self._busy_timeout_s * 1000)}

        def set_up(connection: sqlite3.Connection, _record: object) -> None:
            # The driver's own BEGIN comes too late and never for DDL (docs.sqlalchemy.org, pysqlite transactions).
            connection.isolation_level = None
            for name, value in settings.items():
                connection.execute(f"PRAGMA {name} = {value}")
            connection.execute("PRAGMA synchronous = NORMAL")

        return set_up

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that reads one state of the store."""
        with self._translating():
            if (shared := self._find_shared()) is not None:
                yield shared
                return
            with self._reader.connect() as connection:
                yield connection

    @contextmanager
    def writing(self, conflict: Callable[[], KlauditError | None] = lambda: None) -> Iterator[Connection]:
        """A transaction that is committed at the end, and undone by any exception.

        Args:
            conflict: says, after the undoing, what a broken constraint meant.
        """
        with self._translating():
            try:
                if (shared := self._find_shared()) is not None:
                    # What is undone here leaves the rest of the shared transaction usable, on PostgreSQL too.
                    with shared.begin_nested():
                        yield shared
                    return
                with self._writer.begin() as connection:
                    yield connection
            except IntegrityError as exc:
                meaning = conflict()
                if meaning is None:
                    raise
                raise meaning from exc

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction for all that this thread reads and writes inside: committed at the end, and undone by any exception."""
        if self._find_shared() is not None:
            yield
            return
        with self.writing() as connection:
            self._shared.connection = connection
            try:
                yield
            finally:
                self._shared.connection = None

    def _find_shared(self) -> Connection | None:
        return getattr(self._shared, "connection", None)

    def set_journal_mode(self) -> str | None:
        """Turn on SQLite's write-ahead log, which stays with the file: readers and the writer then do not wait for each other.

        Returns:
            On a network file system, where its shared memory does not work (sqlite.org/wal.html) and a rollback journal is used,
            a line that says so; else None.

        Raises:
            NetworkFilesystem: such a file has a write-ahead log, and somebody else has it open.
        """
        if self.path is None:
            return None
        kind = find_network_filesystem(self.path)
        with self._translating(), self._engine.connect().execution_options(klaudit_begin=None) as connection:
            if kind is None:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                return None
            advice = f"{self.path} lies on a network file system ({kind}), where SQLite cannot keep a write-ahead log"
            try:
                if connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal":
                    connection.exec_driver_sql("PRAGMA journal_mode = DELETE")
            except OperationalError as exc:
                raise NetworkFilesystem(
                    f"{advice}, and the one that it has cannot be folded in: {exc.orig}. End whatever else has the file open, "
                    "move it to a local disk, or use PostgreSQL (postgresql://user@host/klaudit)"
                ) from exc
        return (
            f"{advice}: readers and writers wait for each other, and one host at a time may write. "
            "Keep the store on a local disk, or use PostgreSQL (postgresql://user@host/klaudit)"
        )

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError, TimeoutError, sqlite3.OperationalError) as exc:
            raise StoreUnreachable(self._describe_unreachable(exc)) from exc
        except IntegrityError as exc:
            raise InvalidRecord(f"the store at {self.url} refused a row, and nothing was written: {exc.orig}") from exc
        except DataError as exc:
            raise InvalidRecord(_describe_unfit(exc.orig)) from exc
        except DBAPIError as exc:
            if isinstance(exc, DatabaseError) and "not a database" in str(exc.orig):
                raise NotAStore(f"expected a klaudit store at {self.url}; the file there is no database") from exc
            raise StoreError(f"the store at {self.url} failed: {exc.orig}") from exc
        except StatementError as exc:
            raise exc.orig if isinstance(exc.orig, KlauditError) else StoreError(f"the store at {self.url}: {exc.orig}") from exc
        except SQLAlchemyError as exc:
            raise StoreError(f"the store at {self.url} failed: {exc}") from exc
        except (UnicodeEncodeError, OverflowError) as exc:
            raise InvalidRecord(_describe_unfit(exc)) from exc

    def _describe_unreachable(self, exc: Exception) -> str:
        said = " ".join(str(getattr(exc, "orig", exc)).split())
        line = f"expected to reach the store at {self.url}, or its lock; the database says: {said}"
        if self.is_sqlite or not isinstance(exc, OperationalError) or exc.statement is not None:
            return line
        hint = next(
            (hint for words, hint in CONNECTION_HINTS.items() if words in said), "check that the server runs, its host and its port"
        )
        return f"{line}. What to do: {hint.format(database=self._name)}"


def _describe_unfit(cause: object) -> str:
    return f"expected UTF-8 text of a length that fits, and integers of 64 bits; nothing was written: {cause}"


def _to_file_uri(url: URL, *, may_create: bool) -> URL:
    # With a mode SQLite itself refuses to make a missing file.
    database = url.database or ""
    if not database.startswith("file:"):
        database = f"file:{quote(str(Path(database).absolute()))}"
    return url.set(database=database, query={"mode": "rwc" if may_create else "rw", **url.query, "uri": "true"})


def _begin_sqlite(connection: Connection) -> None:
    # Straight to the driver: through SQLAlchemy this costs ten times as much, once for every step that is logged.
    statement = connection.get_execution_options().get("klaudit_begin", "BEGIN")
    driver = connection.connection.driver_connection
    if statement is not None and driver is not None:
        driver.execute(statement)
