import os
import shutil
import uuid
from collections.abc import Iterator

import pytest

from klaudit.store import upgrade_store
from tests.postgresql_server import GivenServer, PostgreSQLServer, make_directory, make_server


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQLServer]:
    """One PostgreSQL for all tests, with the database `klaudit_template` that holds an empty store."""
    given = os.environ.get("KLAUDIT_TEST_POSTGRES")
    if given:
        server: PostgreSQLServer = GivenServer(given)
        upgrade_store(server.create_database("klaudit_template"))
        yield server
        server.drop_database("klaudit_template")
        return
    directory = make_directory()
    try:
        server = make_server(directory)
        try:
            upgrade_store(server.create_database("klaudit_template"))
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def postgresql_url(postgresql_server: PostgreSQLServer) -> Iterator[str]:
    """An empty store in a database of its own."""
    name = f"klaudit_{uuid.uuid4().hex}"
    yield postgresql_server.create_database(name, template="klaudit_template")
    postgresql_server.drop_database(name)
