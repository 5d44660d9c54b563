"""The border to SQLAlchemy: one connection set-up, two kinds of transaction, every error of theirs turned into one of ours."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, assert_never
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
    StatementError,
)

from klaudit.errors import InvalidConfig, InvalidRecord, KlauditError, NotAStore, StoreError, StoreUnreachable

Access = Literal["read", "write", "migrate"]
"""What a connection may do: read; read and write; make the file and change the tables."""

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for another writer of the same SQLite file, in seconds."""


def parse_url(url: str) -> URL:
    """The URL, taken apart.

    Raises:
        InvalidConfig: not a database URL; a password in it is not repeated.
    """
    try:
        return make_url(url)
    except ArgumentError as exc:
        came = "something else" if "@" in url else repr(url)
        raise InvalidConfig(f"expected the URL of a store, such as sqlite:///klaudit.db; got {came}") from exc


def render_url(url: URL) -> str:
    """The URL for people: without password and options."""
    return url.set(query={}).render_as_string(hide_password=True)


def is_memory(url: URL) -> bool:
    """Whether the URL means an SQLite database that lives as long as its one connection."""
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


class Database:
    """An engine with its transactions.

    Raises:
        InvalidConfig: a URL that SQLAlchemy has no dialect for, or whose driver is not installed.
    """

    def __init__(self, url: str, access: Access, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        parsed = parse_url(url)
        self.url = render_url(parsed)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.is_memory = is_memory(parsed)
        self._busy_timeout_s = busy_timeout_s
        try:
            self._engine = self._make_engine(parsed, access)
        except NoSuchModuleError as exc:
            raise InvalidConfig(f"expected a URL such as sqlite:///klaudit.db as store; got {self.url}") from exc
        except ImportError as exc:
            raise InvalidConfig(
                f"a store at {self.url} needs the Python module {exc.name}, which is not installed: install the package that brings it, "
                "such as psycopg[binary] for postgresql+psycopg:. This version of klaudit is tested with SQLite only"
            ) from exc
        # BEGIN IMMEDIATE takes the write lock first: a transaction that reads and then writes would otherwise fail at once,
        # without waiting for the busy timeout, when another writer came between (sqlite.org/rescode.html#busy_snapshot).
        self._writer = self._engine.execution_options(klaudit_begin="BEGIN IMMEDIATE")

    def _make_engine(self, url: URL, access: Access) -> Engine:
        if not self.is_sqlite:
            return create_engine(url, pool_pre_ping=True)
        if self.is_memory:
            engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
        else:
            engine = create_engine(_to_file_uri(url, may_create=access == "migrate"))
        event.listen(engine, "connect", self._make_set_up(access))
        event.listen(engine, "begin", _begin_sqlite)
        return engine

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
        with self._translating(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, conflict: Callable[[], KlauditError | None] = lambda: None) -> Iterator[Connection]:
        """A transaction that is committed at the end, and undone by any exception.

        Args:
            conflict: says, after the undoing, what a broken constraint meant.
        """
        with self._translating():
            try:
                with self._writer.begin() as connection:
                    yield connection
            except IntegrityError as exc:
                meaning = conflict()
                if meaning is None:
                    raise
                raise meaning from exc

    def set_wal(self) -> None:
        """Turn on write-ahead logging, which stays with the file: readers and the writer then do not wait for each other."""
        if self.is_sqlite and not self.is_memory:
            with self._translating(), self._engine.connect().execution_options(klaudit_begin=None) as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError, sqlite3.OperationalError) as exc:
            cause = getattr(exc, "orig", exc)
            raise StoreUnreachable(f"expected to reach the store at {self.url}, or its lock; the database says: {cause}") from exc
        except IntegrityError as exc:
            raise StoreError(f"the store at {self.url} refused a row, and nothing was written: {exc.orig}") from exc
        except DBAPIError as exc:
            if isinstance(exc, DatabaseError) and "not a database" in str(exc.orig):
                raise NotAStore(f"expected a klaudit store at {self.url}; the file there is no database") from exc
            raise StoreError(f"the store at {self.url} failed: {exc.orig}") from exc
        except StatementError as exc:
            raise exc.orig if isinstance(exc.orig, KlauditError) else StoreError(f"the store at {self.url}: {exc.orig}") from exc
        except SQLAlchemyError as exc:
            raise StoreError(f"the store at {self.url} failed: {exc}") from exc
        except (UnicodeEncodeError, OverflowError) as exc:
            raise InvalidRecord(f"expected text that is UTF-8 and integers of 64 bits; nothing was written: {exc}") from exc


def _to_file_uri(url: URL, *, may_create: bool) -> URL:
    # With a mode SQLite itself refuses to make a missing file.
    database = url.database or ""
    if not database.startswith("file:"):
        database = f"file:{quote(database)}"
    return url.set(database=database, query={"mode": "rwc" if may_create else "rw", **url.query, "uri": "true"})


def _begin_sqlite(connection: Connection) -> None:
    # Straight to the driver: through SQLAlchemy this costs ten times as much, once for every step that is logged.
    statement = connection.get_execution_options().get("klaudit_begin", "BEGIN")
    driver = connection.connection.driver_connection
    if statement is not None and driver is not None:
        driver.execute(statement)
