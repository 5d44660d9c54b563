"""Files of trackers with bytes changed here and there: each is read or refused in one line, and nothing else happens."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from klaudit.errors import InvalidImportFile
from klaudit.exchange.reader import NO_OPTIONS, ReadOptions
from tests.exchange.readers.reading import read_runs
from tests.exchange.readers.tracker_runs import NUMBERS

N_DAMAGED = 60


@pytest.fixture(scope="session")
def originals(
    run_tracker: Callable[..., str], mlflow_file: Path, trackio_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A file of each tool."""
    logs = tmp_path_factory.mktemp("originals")
    run_tracker("log_to_tensorboard.py", asked={"directory": str(logs), "runs": {"a": NUMBERS[:12]}, "as_tensors": False})
    (events,) = (logs / "a").iterdir()
    return {"tensorboard": events, "mlflow": mlflow_file, "trackio": trackio_file}


def read_or_refuse(path: Path, format_name: str, options: ReadOptions = NO_OPTIONS) -> None:
    refused = None
    try:
        read_runs(path, options, format_name)
    except InvalidImportFile as error:
        refused = str(error)
    assert refused is None or (str(path) in refused and "\n" not in refused and len(refused) < 1000)


@pytest.mark.parametrize("format_name", ["tensorboard", "mlflow", "trackio"])
def test_a_file_with_changed_bytes_is_read_or_refused_in_one_line(originals: dict[str, Path], tmp_path: Path, format_name: str) -> None:
    content, chance = originals[format_name].read_bytes(), random.Random(7)
    path = tmp_path / originals[format_name].name
    for _ in range(N_DAMAGED):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        read_or_refuse(path, format_name)


@pytest.mark.parametrize("value", [None, 1, 0.5, "text", "", b"\x80\x04\x95", -(2**63), float("inf"), '{"kl": [1]}', "[[[["])
@pytest.mark.parametrize(
    ("format_name", "table", "columns"),
    [
        ("mlflow", "runs", ["name", "status", "start_time", "lifecycle_stage", "run_uuid"]),
        ("mlflow", "metrics", ["key", "value", "timestamp", "step", "is_nan", "run_uuid"]),
        ("trackio", "metrics", ["run_id", "run_name", "timestamp", "step", "metrics"]),
        ("trackio", "configs", ["run_id", "config"]),
    ],
)
def test_a_column_of_any_type_is_read_or_refused_in_one_line(
    originals: dict[str, Path], tmp_path: Path, format_name: str, table: str, columns: list[str], value: object
) -> None:
    for column in columns:
        path = Path(shutil.copy(originals[format_name], tmp_path / f"{column}.db"))
        connection = sqlite3.connect(path, isolation_level=None)
        # Without the declared types and conditions, as another program may have made the table.
        connection.execute(f"CREATE TABLE free AS SELECT * FROM {table}")
        connection.execute(f"UPDATE free SET {column} = ?", (value,))
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(f"DROP TABLE {table}")
        connection.execute(f"ALTER TABLE free RENAME TO {table}")
        connection.close()
        read_or_refuse(path, format_name)
        read_or_refuse(path, format_name, ReadOptions(run_filter="a*"))
