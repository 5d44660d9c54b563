"""A real PostgreSQL for the tests: a cluster of its own in a temporary directory, run by a user without rights."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

USER = "klaudit"
PASSWORD = "s3cret"  # of a server that listens to this machine alone, and for as long as the tests take
START_TIMEOUT_S = 60.0


class PostgreSQLServer:
    """A cluster with fsync on and an order of letters that is not that of bytes.

    Args:
        directory: that the server's user may enter.
        programs: where `initdb` and `postgres` lie.
        port: free on 127.0.0.1.
    """

    def __init__(self, directory: Path, programs: Path, port: int) -> None:
        self.port = port
        self._data = directory / "data"
        self._log = directory / "log"
        self._programs = programs
        # PostgreSQL refuses to run as root.
        self._rights: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self._rights:
            shutil.chown(directory, "postgres", "postgres")
        password_file = directory / "password"
        password_file.write_text(PASSWORD)
        password_file.chmod(0o644)
        subprocess.run(
            [
                *(str(programs / "initdb"), "--pgdata", str(self._data), "--username", USER, "--pwfile", str(password_file)),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--locale-provider", "icu", "--icu-locale", "en"),
            ],
            check=True,
            capture_output=True,
            cwd="/",
            **self._rights,
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=on", "-c", "max_connections=200"),
                ],
                stdout=log,
                stderr=log,
                cwd="/",
                **self._rights,
            )
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                return self._connect().close()
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text()[-2000:]}") from error
                time.sleep(0.05)

    def stop(self, *, at_once: bool = False) -> None:
        """Stop: end every connection and shut down in order, or `at_once` as a crash does."""
        if self._process is not None:
            self._process.send_signal(3 if at_once else 2)
            self._process.wait(timeout=START_TIMEOUT_S)
            self._process = None

    @property
    def is_stopped(self) -> bool:
        """Whether a test stopped it and did not start it again."""
        return self._process is None

    def create_database(self, name: str) -> str:
        """Make a database; returns its URL."""
        with self._connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever still uses it."""
        with self._connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def url(self, database: str) -> str:
        """Of one of its databases."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self.url("postgres"), autocommit=True)


class GivenServer(PostgreSQLServer):
    """A server that somebody else runs, whose user may make databases.

    Args:
        url: of one of its databases.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def is_stopped(self) -> bool:
        """It never is."""
        return False

    def start(self) -> None:
        """It runs."""

    def stop(self, *, at_once: bool = False) -> None:
        """It goes on."""
        pytest.skip("a server that KLAUDIT_TEST_POSTGRES names is not stopped by a test")

    def url(self, database: str) -> str:
        """Of one of its databases."""
        head, _, tail = self._url.partition("://")
        host, _, rest = tail.partition("/")
        _, mark, options = rest.partition("?")
        return f"{head}://{host}/{database}{mark}{options}"

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self._url.replace("+psycopg", ""), autocommit=True)


def find_programs() -> Path | None:
    """The directory of the newest `initdb` on this machine."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if found:
        return max(found, key=lambda path: int(path.parent.name))
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).resolve().parent


def find_free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_server(directory: Path) -> PostgreSQLServer:
    """A started server in a directory, or a skip that says what is missing; a failure where CI is true."""
    programs = find_programs()
    if programs is None:
        missing = "no PostgreSQL on this machine: install postgresql, or name a server in KLAUDIT_TEST_POSTGRES"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    server = PostgreSQLServer(directory, programs, find_free_port())
    server.start()
    return server


def make_directory() -> Path:
    """A temporary directory that the server's user may enter: pytest's own are closed to others."""
    return Path(tempfile.mkdtemp(prefix="klaudit-postgresql-"))
