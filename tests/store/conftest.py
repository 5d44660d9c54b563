import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from klaudit.store import Store, open_store, upgrade_store
from tests.store.examples import make_run


@pytest.fixture(scope="session")
def empty_store_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new SQLite store; copy it."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    upgrade_store(f"sqlite:///{path}")
    return path


@pytest.fixture
def store_file(empty_store_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(empty_store_file, tmp_path / "klaudit.db"))


@pytest.fixture
def store_url(store_file: Path) -> str:
    return f"sqlite:///{store_file}"


BACKENDS: dict[str, Callable[[pytest.FixtureRequest], str]] = {
    "sqlite-file": lambda request: str(request.getfixturevalue("store_url")),
    "sqlite-memory": lambda request: "sqlite://",
    "postgresql": lambda request: str(request.getfixturevalue("postgresql_url")),
}
"""What every test with the fixture `store` runs on; each gives the URL of an empty store, or of none yet."""


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty store, once on every backend."""
    with open_store(BACKENDS[request.param](request), create=True) as opened:
        yield opened


@pytest.fixture
def store_with_run(store: Store) -> Store:
    """A store that holds `make_run()` and nothing else."""
    store.runs.add(make_run())
    return store
