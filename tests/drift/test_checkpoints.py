from pathlib import Path

import pytest

from klaudit.drift.checkpoints import CheckpointSource, find_checkpoints
from klaudit.errors import ModelNotFound


def test_checkpoints_are_found_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for name in ("checkpoint-100", "checkpoint-20", "checkpoint-3", "checkpoint-best", "runs", "old-checkpoint-7"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-9").write_text("a file")
    assert find_checkpoints(tmp_path) == tuple(CheckpointSource(tmp_path / f"checkpoint-{step}", step) for step in (3, 20, 100))


def test_directory_without_checkpoints_and_no_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="No directory checkpoint-N"):
        find_checkpoints(tmp_path)
    with pytest.raises(ModelNotFound, match="there is none at"):
        find_checkpoints(tmp_path / "nowhere")
