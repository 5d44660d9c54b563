"""A tiny model on disk, and a store to look into."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from klaudit.store import Store, open_store, upgrade_store
from tests.trl_grpo.trainings import save_tiny_model

# The model is too small to share out: threads only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'klaudit.db'}"
    upgrade_store(url)
    return url


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
