import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from klaudit.store import Store, open_store, upgrade_store
from tests.alerts.receiver import Receiver, serve


@pytest.fixture(scope="session")
def empty_store_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new store; copy it."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    upgrade_store(f"sqlite:///{path}")
    return path


@pytest.fixture
def store_url(empty_store_file: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(empty_store_file, tmp_path / 'klaudit.db')}"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """To look at what a recorder wrote through a store of its own."""
    with open_store(store_url) as opened:
        yield opened


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serve() as serving:
        yield serving
