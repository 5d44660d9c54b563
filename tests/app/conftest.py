"""Stores for the pages to read."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import streamlit as st

from tests.browser.planted_store import write_planted_store


@pytest.fixture(scope="session")
def planted_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of a store with the planted runs."""
    url = f"sqlite:///{tmp_path_factory.mktemp('planted') / 'klaudit.db'}"
    write_planted_store(url, now=datetime.now(UTC))
    return url


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No klaudit.toml of the developer, and no view or store of an earlier test."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    st.cache_data.clear()
    st.cache_resource.clear()
