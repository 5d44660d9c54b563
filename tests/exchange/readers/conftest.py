from collections.abc import Callable
from pathlib import Path

import pytest

from tests.exchange.readers.tracker_runs import MLFLOW, TRACKIO


@pytest.fixture(scope="session")
def mlflow_file(run_tracker: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow; copy it to change it."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    run_tracker("log_to_mlflow.py", asked={**MLFLOW, "path": str(path)})
    return path


@pytest.fixture(scope="session")
def trackio_file(run_tracker: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of trackio; copy it to change it."""
    directory = tmp_path_factory.mktemp("trackio")
    run_tracker("log_to_trackio.py", asked=TRACKIO, TRACKIO_DIR=directory)
    return directory / "project.db"
