"""Open a store, make one, upgrade one, check one."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from klaudit.errors import InvalidConfig, StoreUnreachable
from klaudit.records.ledger import Actor
from klaudit.store.actor import identify_actor
from klaudit.store.alerts import AlertRepository
from klaudit.store.budgets import BudgetRepository
from klaudit.store.checkpoints import CheckpointRepository
from klaudit.store.drift import DriftRepository
from klaudit.store.engine import BUSY_TIMEOUT_S, Access, Database, is_memory, parse_url, render_url
from klaudit.store.findings import FindingRepository
from klaudit.store.journal.directories import list_journal_directories
from klaudit.store.ledger import LedgerRepository
from klaudit.store.ledger_snapshot import LedgerSnapshot, take_snapshot
from klaudit.store.migration import SchemaStatus, migrate, read_revision, read_status, require_schema
from klaudit.store.replay import Replayed, Waiting, list_waiting, replay_journals
from klaudit.store.rollups import RollUpRepository
from klaudit.store.runs import RunRepository
from klaudit.store.samples import SampleRepository
from klaudit.store.steps import StepRepository


class Store:
    """An open store: one repository for each noun. Threads may share it; processes open their own."""

    def __init__(self, database: Database, journals: Sequence[Path] = (), *, actor: Actor | None = None) -> None:
        self._database = database
        self._journals = tuple(journals)
        self.ledger = ledger = LedgerRepository(database, actor or identify_actor())
        self.runs = RunRepository(database, ledger)
        self.steps = StepRepository(database, ledger)
        self.rollups = RollUpRepository(database)
        self.samples = SampleRepository(database)
        self.checkpoints = CheckpointRepository(database, ledger)
        self.drift = DriftRepository(database, ledger)
        self.budgets = BudgetRepository(database, ledger)
        self.findings = FindingRepository(database)
        self.alerts = AlertRepository(database)
        self.warnings: tuple[str, ...] = ()
        """What a person should know of this store, in sentences."""
        self.replayed: tuple[Replayed, ...] = ()
        """What dead sessions had left in their journals and was carried over at opening."""
        self._file = _identify_file(database)

    @property
    def url(self) -> str:
        """Where the store lies, for people: without password and options."""
        return self._database.url

    def warn(self, line: str) -> None:
        """Add to `warnings`."""
        self.warnings += (line,)

    def list_waiting(self) -> tuple[Waiting, ...]:
        """Steps that stand in journals and not here yet, by session; nothing is touched."""
        return list_waiting(self, self._journals)

    def is_displaced(self) -> bool:
        """Whether the SQLite file that was opened is not the one at its path any more."""
        return self._file is not None and _identify_file(self._database) != self._file

    def take_snapshot(self) -> AbstractContextManager[LedgerSnapshot]:
        """One state of the ledger and of what it tells of, for verification."""
        return take_snapshot(self._database)

    def together(self) -> AbstractContextManager[None]:
        """Keep all that this thread writes inside the block, or, where an exception leaves it or the process dies, nothing of it."""
        return self._database.together()

    def close(self) -> None:
        """Close every connection; nothing is left unwritten."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def open_store(
    url: str,
    *,
    create: bool = False,
    read_only: bool = False,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
    journals: Sequence[str | Path] = (),
    actor: str | None = None,
) -> Store:
    """Open the store at a SQLAlchemy URL; `sqlite://` is one in memory, for one thread, gone when closed.

    Opened for writing, it first takes in what dead trainers left in their journals; `replayed` tells what that was.

    Args:
        url: of the store.
        create: make the store by its migrations where there is none; a store that is there is never upgraded here.
        read_only: refuse to write.
        busy_timeout_s: how long to wait for another writer of the same SQLite file, for a lock of PostgreSQL's or for its server, in seconds.
        journals: directories that a person chose for journals; the usual one, and those that its notes name, are looked into anyway.
        actor: name of the person who writes, for the ledger.

    Raises:
        InvalidConfig: not the URL of an SQLite or PostgreSQL database, or one in memory where a store must be there already.
        MissingExtra: PostgreSQL, and psycopg is not installed.
        StoreUnreachable: nothing there, or nothing that answers; no file is left behind.
        NetworkFilesystem: an SQLite file that cannot be written to safely where it lies.
        NotAStore: something there that klaudit did not make; it is not touched.
        SchemaTooOld: an older klaudit made it.
        SchemaTooNew: a newer klaudit made it.
    """
    if create and not is_memory(parse_url(url)):
        _create_missing(url, busy_timeout_s)
    if not create:
        _require_lasting(url)
    database = _connect(url, "read" if read_only else "write", busy_timeout_s)
    warning = None
    try:
        if create and database.is_memory:
            migrate(database)
        with database.reading() as connection:
            require_schema(connection, database.url)
        if not read_only:
            warning = database.set_journal_mode()
    except BaseException:
        database.close()
        raise
    directories = tuple(dict.fromkeys((*list_journal_directories(url), *list_journal_directories(url, journals))))
    store = Store(database, directories, actor=identify_actor(actor))
    if warning is not None:
        store.warn(warning)
    try:
        if not read_only:
            store.replayed = replay_journals(store, directories)
    except BaseException:
        store.close()
        raise
    return store


def require_usable(url: str) -> None:
    """Refuse a URL that no store can have; nothing is opened.

    Raises:
        InvalidConfig: not a database URL, or one of a database that klaudit does not know.
        MissingExtra: its driver is not installed.
    """
    Database(url, "read").close()


def upgrade_store(url: str) -> tuple[str | None, str]:
    """Bring the store at `url` to this klaudit's schema, making it where there is none.

    Returns:
        The schema that it had (None: there was no store) and the one that it has.

    Raises:
        InvalidConfig: a store in memory, which would be gone at once.
        StoreUnreachable: nothing that answers.
        NotAStore: something there that klaudit did not make; it is not touched.
        SchemaTooNew: a newer klaudit made it.
    """
    _require_lasting(url)
    database = Database(url, "migrate")
    try:
        return migrate(database)
    finally:
        database.close()


def check_store(url: str) -> SchemaStatus:
    """What lies at `url`: its schema, who made it, and whether SQLite finds the file sound.

    Raises:
        InvalidConfig: a store in memory, in which nothing is.
        StoreUnreachable: nothing there, or nothing that answers.
        NotAStore: something there that klaudit did not make.
    """
    _require_lasting(url)
    database = _connect(url, "read", BUSY_TIMEOUT_S)
    try:
        return read_status(database)
    finally:
        database.close()


def _identify_file(database: Database) -> tuple[int, int] | None:
    """Device and inode of an SQLite store's file; (0, 0) where there is none any more, None for other stores."""
    if database.path is None:
        return None
    try:
        status = database.path.stat()
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def _create_missing(url: str, busy_timeout_s: float) -> None:
    database = Database(url, "migrate", busy_timeout_s=busy_timeout_s)
    try:
        with database.reading() as connection:
            revision, _ = read_revision(connection, database.url)
        if revision is None:
            migrate(database)
    finally:
        database.close()


def _require_lasting(url: str) -> None:
    parsed = parse_url(url)
    if is_memory(parsed):
        raise InvalidConfig(
            f"expected the URL of a store that is there, such as sqlite:///klaudit.db; got {render_url(parsed)}, a store in memory, which begins "
            "empty and is gone when its process ends"
        )


def _connect(url: str, access: Access, busy_timeout_s: float) -> Database:
    parsed = parse_url(url)
    path = parsed.database or ""
    if parsed.get_backend_name() == "sqlite" and not is_memory(parsed) and not path.startswith("file:") and not Path(path).exists():
        shown = render_url(parsed)
        raise StoreUnreachable(
            f"no store at {shown}: expected an SQLite file at {path}. Make one with: klaudit db upgrade --store {shown}; or give --store URL"
        )
    return Database(url, access, busy_timeout_s=busy_timeout_s)
