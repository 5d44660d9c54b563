"""Open a store, make one, upgrade one, check one."""

from pathlib import Path
from types import TracebackType
from typing import Self

from klaudit.errors import StoreUnreachable
from klaudit.store.alerts import AlertRepository
from klaudit.store.budgets import BudgetRepository
from klaudit.store.checkpoints import CheckpointRepository
from klaudit.store.drift import DriftRepository
from klaudit.store.engine import BUSY_TIMEOUT_S, Access, Database, is_memory, parse_url, render_url
from klaudit.store.findings import FindingRepository
from klaudit.store.migration import SchemaStatus, migrate, read_revision, read_status, require_schema
from klaudit.store.runs import RunRepository
from klaudit.store.samples import SampleRepository
from klaudit.store.series import SeriesRepository
from klaudit.store.steps import StepRepository


class Store:
    """An open store: one repository for each noun. Threads may share it; processes open their own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        series = SeriesRepository(database)
        self.runs = RunRepository(database, series)
        self.steps = StepRepository(database, series)
        self.samples = SampleRepository(database)
        self.checkpoints = CheckpointRepository(database)
        self.drift = DriftRepository(database)
        self.budgets = BudgetRepository(database)
        self.findings = FindingRepository(database)
        self.alerts = AlertRepository(database)

    @property
    def url(self) -> str:
        """Where the store lies, for people: without password and options."""
        return self._database.url

    def close(self) -> None:
        """Close every connection; nothing is left unwritten."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def open_store(url: str, *, create: bool = False, read_only: bool = False, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Store:
    """Open the store at a SQLAlchemy URL; `sqlite://` is one in memory, for one thread, gone when closed.

    Args:
        create: make the store by its migrations where there is none; a store that is there is never upgraded here.
        read_only: refuse to write.
        busy_timeout_s: how long to wait for another writer of the same SQLite file, in seconds.

    Raises:
        InvalidConfig: not a database URL.
        StoreUnreachable: nothing there, or nothing that answers; no file is left behind.
        NotAStore: something there that klaudit did not make; it is not touched.
        SchemaTooOld: an older klaudit made it.
        SchemaTooNew: a newer klaudit made it.
    """
    if create and not is_memory(parse_url(url)):
        _create_missing(url, busy_timeout_s)
    database = _connect(url, "read" if read_only else "write", busy_timeout_s)
    try:
        if create and database.is_memory:
            migrate(database)
        with database.reading() as connection:
            require_schema(connection, database.url)
        if not read_only:
            database.set_wal()
    except BaseException:
        database.close()
        raise
    return Store(database)


def upgrade_store(url: str) -> tuple[str | None, str]:
    """Bring the store at `url` to this klaudit's schema, making it where there is none.

    Returns:
        The schema that it had (None: there was no store) and the one that it has.

    Raises:
        StoreUnreachable: nothing that answers.
        NotAStore: something there that klaudit did not make; it is not touched.
        SchemaTooNew: a newer klaudit made it.
    """
    database = Database(url, "migrate")
    try:
        return migrate(database)
    finally:
        database.close()


def check_store(url: str) -> SchemaStatus:
    """What lies at `url`: its schema, who made it, and whether SQLite finds the file sound.

    Raises:
        StoreUnreachable: nothing there, or nothing that answers.
        NotAStore: something there that klaudit did not make.
    """
    database = _connect(url, "read", BUSY_TIMEOUT_S)
    try:
        return read_status(database)
    finally:
        database.close()


def _create_missing(url: str, busy_timeout_s: float) -> None:
    database = Database(url, "migrate", busy_timeout_s=busy_timeout_s)
    try:
        with database.reading() as connection:
            revision, _ = read_revision(connection, database.url)
        if revision is None:
            migrate(database)
    finally:
        database.close()


def _connect(url: str, access: Access, busy_timeout_s: float) -> Database:
    parsed = parse_url(url)
    path = parsed.database or ""
    if parsed.get_backend_name() == "sqlite" and not is_memory(parsed) and not path.startswith("file:") and not Path(path).exists():
        shown = render_url(parsed)
        raise StoreUnreachable(
            f"no store at {shown}: expected an SQLite file at {path}. Make one with: klaudit db upgrade --store {shown}; or give --store URL"
        )
    return Database(url, access, busy_timeout_s=busy_timeout_s)
