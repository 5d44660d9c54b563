import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from klaudit.models.language_model import LanguageModel
from klaudit.store import Store, open_store, upgrade_store
from tests.models.tiny import make_tiny_model


@pytest.fixture
def tiny() -> LanguageModel:
    return make_tiny_model()


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
    """To look at what was recorded."""
    with open_store(store_url) as opened:
        yield opened


@pytest.fixture(autouse=True)
def clean_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of who runs it."""
    monkeypatch.chdir(tmp_path)
    for name in ("KLAUDIT_STORE", "KLAUDIT_WEBHOOK"):
        monkeypatch.delenv(name, raising=False)
