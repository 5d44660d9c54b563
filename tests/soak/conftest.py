"""How long the long tests are: a seeded tenth in every run, all of it with `make soak`."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

FROZEN = Path(__file__).resolve().parents[1] / "upgrade_assets" / "0001.sqlite.sql"


@pytest.fixture(scope="session")
def share() -> float:
    """1 under `make soak`, else a tenth."""
    return 1.0 if os.environ.get("KLAUDIT_SOAK") else 0.1


@pytest.fixture
def old_store(tmp_path: Path) -> Path:
    """A store that the first version made."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FROZEN.read_text())
    return path
