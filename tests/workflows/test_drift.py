from datetime import UTC, datetime
from pathlib import Path

import pytest

from klaudit.drift.checkpoints import CheckpointSource
from klaudit.errors import ModelNotFound
from klaudit.records import Checkpoint, Run
from klaudit.store import Store
from klaudit.workflows.drift import list_run_checkpoints

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


def save(store: Store, path: Path | str, *, step: int, segment: int = 0) -> None:
    store.checkpoints.add(Checkpoint("r1", step, str(path), NOW, segment=segment))


@pytest.fixture
def store_with_run(store: Store) -> Store:
    store.runs.add(Run(id="r1", name="run", started_at=NOW))
    return store


def test_a_directory_that_two_segments_saved_to_is_listed_once_as_the_later_left_it(store_with_run: Store, tmp_path: Path) -> None:
    for name in ("first", "last"):
        (tmp_path / name).mkdir()
    save(store_with_run, tmp_path / "last", step=4)
    save(store_with_run, tmp_path / "first", step=5)
    save(store_with_run, tmp_path / "last", step=6, segment=1)
    expected = (CheckpointSource(tmp_path / "first", 5), CheckpointSource(tmp_path / "last", 6))
    assert list_run_checkpoints(store_with_run, "r1") == expected


def test_a_bare_name_is_not_a_directory_that_happens_to_be_called_so(
    store_with_run: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoint-20").mkdir()
    monkeypatch.chdir(tmp_path)
    save(store_with_run, "checkpoint-20", step=20)
    with pytest.raises(ModelNotFound, match="none of the run's 1 checkpoints is on disk"):
        list_run_checkpoints(store_with_run, "r1")
