"""The schema: which revision a store has, and the way to the newest."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.schema import SetColumnComment, SetTableComment

from klaudit.assets import locate_asset
from klaudit.errors import NotAStore, SchemaTooNew, SchemaTooOld, StoreError
from klaudit.store.engine import Database
from klaudit.store.tables import SCHEMA_REVISION, klaudit_meta, metadata, runs

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATION_LOCK = 0x6B6C6D67
"""Number of the lock that PostgreSQL holds while a store is made or upgraded."""


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """What lies at a store's URL."""

    url: str
    """Without its password."""
    revision: str
    """The migration that the store is at."""
    head: str
    """The migration that this klaudit needs."""
    is_current: bool
    made_by: str
    """Version of klaudit that made or last upgraded the store."""
    integrity: str
    """`ok`, what SQLite found broken, or `not checked` for other databases."""


def read_revision(connection: Connection, url: str) -> tuple[str | None, str | None]:
    """The store's migration and the klaudit that made or last upgraded it; None and None for a database without tables.

    Raises:
        NotAStore: tables, but not klaudit's.
    """
    tables = set(inspect(connection).get_table_names())
    if tables <= {"alembic_version"}:
        return None, None
    if not tables >= {"alembic_version", klaudit_meta.name, runs.name}:
        raise NotAStore(f"expected a klaudit store at {url}; the database there belongs to something else, and was left as it is")
    revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    made_by = connection.scalar(text("SELECT value FROM klaudit_meta WHERE name = 'upgraded_by'"))
    return revision, made_by


def require_schema(connection: Connection, url: str) -> None:
    """Raise unless what is connected to is a store at this klaudit's migration.

    Raises:
        NotAStore: an empty database, or somebody else's.
        SchemaTooOld: an older klaudit made it; the message has the command that upgrades it.
        SchemaTooNew: a newer klaudit made it.
    """
    revision, made_by = read_revision(connection, url)
    if revision is None:
        raise NotAStore(_describe_empty(url))
    if revision == SCHEMA_REVISION:
        return
    came = f"klaudit {made_by} made it (schema {revision}); this is klaudit {version('klaudit')} (schema {SCHEMA_REVISION})"
    if revision in _list_revisions():
        raise SchemaTooOld(f"the store at {url} is older than this klaudit: {came}. Upgrade it with: klaudit db upgrade --store {url}")
    raise SchemaTooNew(f"the store at {url} is newer than this klaudit: {came}. Upgrade klaudit with: pip install -U klaudit")


def migrate(database: Database) -> tuple[str | None, str]:
    """Bring a database to the newest schema, in one transaction.

    Args:
        database: opened with access `migrate`.

    Returns:
        The migration that it had, None where it was empty, and the one that it has.

    Raises:
        NotAStore: it holds somebody else's tables.
        SchemaTooNew: a newer klaudit made it.
        StoreError: rows that would refer to nothing afterwards; everything is as before.
    """
    with database.reading() as connection:
        before, _ = read_revision(connection, database.url)
        if before is not None and before not in _list_revisions():
            require_schema(connection, database.url)
    database.set_journal_mode()
    with database.writing() as connection:
        from alembic import command

        if not database.is_sqlite:
            # SQLite has one writer anyway; Alembic reads the revision behind the lock.
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        command.upgrade(make_alembic_config(connection), "head")
        _sign(connection)
        _comment(connection)
        if database.is_sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()):
            raise StoreError(
                f"the store at {database.url} has rows that refer to nothing, such as one of {broken[0][0]}; nothing was changed"
            )
    return before, SCHEMA_REVISION


def make_alembic_config(connection: Connection | None = None) -> "Config":
    """Alembic's settings for the migrations in `db/`, on a connection of ours."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(locate_asset("db")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def read_status(database: Database) -> SchemaStatus:
    """What lies at the store's URL, current or not.

    Raises:
        NotAStore: an empty database, or somebody else's.
    """
    with database.reading() as connection:
        revision, made_by = read_revision(connection, database.url)
        if revision is None:
            raise NotAStore(_describe_empty(database.url))
        found = connection.exec_driver_sql("PRAGMA integrity_check(10)").scalars().all() if database.is_sqlite else ["not checked"]
    return SchemaStatus(
        url=database.url,
        revision=revision,
        head=SCHEMA_REVISION,
        is_current=revision == SCHEMA_REVISION,
        made_by=made_by or "unknown",
        integrity="; ".join(found),
    )


def _describe_empty(url: str) -> str:
    return f"expected a klaudit store at {url}; the database there is empty. Make it one with: klaudit db upgrade --store {url}"


def _sign(connection: Connection) -> None:
    ours = version("klaudit")
    connection.execute(text("DELETE FROM klaudit_meta WHERE name = 'upgraded_by'"))
    if connection.scalar(text("SELECT count(*) FROM klaudit_meta")) == 0:
        connection.execute(klaudit_meta.insert(), {"name": "created_by", "value": ours})
    connection.execute(klaudit_meta.insert(), {"name": "upgraded_by", "value": ours})


def _comment(connection: Connection) -> None:
    """Let the database explain its tables, where it can."""
    if not connection.dialect.supports_comments:
        return
    for table in metadata.sorted_tables:
        connection.execute(SetTableComment(table))
        for column in table.columns:
            if column.comment:
                connection.execute(SetColumnComment(column))


def _list_revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(make_alembic_config()).walk_revisions()}
