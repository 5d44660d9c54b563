import os
import shutil
import uuid
from collections.abc import Iterator

import psycopg
import pytest

from klaudit.store import upgrade_store
from tests.postgresql_server import GivenServer, PostgreSQLServer, make_directory, make_server


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQLServer]:
    """One PostgreSQL for all tests."""
    given = os.environ.get("KLAUDIT_TEST_POSTGRES")
    if given:
        yield GivenServer(given)
        return
    directory = make_directory()
    try:
        server = make_server(directory)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def postgresql_database(postgresql_server: PostgreSQLServer) -> Iterator[str]:
    """URL of a new database without tables."""
    name = f"klaudit_{uuid.uuid4().hex}"
    yield postgresql_server.create_database(name)
    postgresql_server.drop_database(name)


@pytest.fixture(scope="session")
def shared_postgresql_store(postgresql_server: PostgreSQLServer) -> Iterator[str]:
    """URL of a store that tests empty for one another: to make a database for each takes longer than most tests."""
    name = f"klaudit_shared_{uuid.uuid4().hex}"
    url = postgresql_server.create_database(name)
    upgrade_store(url)
    yield url
    if not postgresql_server.is_stopped:
        postgresql_server.drop_database(name)


@pytest.fixture
def postgresql_url(shared_postgresql_store: str) -> str:
    """URL of an empty store."""
    with psycopg.connect(shared_postgresql_store, autocommit=True) as connection:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {others}")
        for table in (
            "runs",
            "kl_budgets",
            "drift_measurements",
            "drift_profiles",
            "drift_shards",
            "checkpoint_distances",
            "ledger_entries",
        ):
            connection.execute(f"DELETE FROM {table}")
    return shared_postgresql_store
