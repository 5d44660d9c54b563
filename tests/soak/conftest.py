"""How long the long tests are: a seeded tenth in every run, all of it with `make soak`."""

import os

import pytest


@pytest.fixture(scope="session")
def share() -> float:
    """1 under `make soak`, else a tenth."""
    return 1.0 if os.environ.get("KLAUDIT_SOAK") else 0.1
