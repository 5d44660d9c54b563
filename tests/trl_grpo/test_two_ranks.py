"""Two ranks over gloo, started by torchrun: one run, one writer, every step once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from klaudit.records import Run, StepRecord
from klaudit.store import open_store

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of what two ranks left behind; the last training ends with an exception, which is the exit code."""
    directory = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=0"]
    command = [*launcher, "-m", "tests.trl_grpo.train_on_ranks", str(model), str(directory)]
    done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 1, done.stderr[-4000:]
    (directory / "said").write_text(done.stderr)
    return directory


def read_reports(trained: Path, scene: str) -> list[dict[str, Any]]:
    return [json.loads((trained / f"{scene}-{rank}.json").read_text()) for rank in (0, 1)]


def read_run(trained: Path, scene: str) -> tuple[Run, list[StepRecord]]:
    with open_store(f"sqlite:///{trained / scene}.db") as store:
        (run,) = (one.run for one in store.runs.list())
        assert len(store.runs.segments(run.id)) == 1
        return run, list(store.steps.list(run.id))


@pytest.mark.parametrize("scene", ["trainer", "grpo"])
def test_rank_0_writes_one_run_and_the_other_writes_nothing(trained: Path, scene: str) -> None:
    first, second = read_reports(trained, scene)
    run, steps = read_run(trained, scene)
    assert (run.name, run.status, run.batch_size) == (scene, "finished", 16)
    assert [(one.segment, one.step) for one in steps] == [(0, 1), (0, 2), (0, 3)]
    assert (first["run"], first["failures"], first["threads"]) == (run.id, 0, [])
    assert (second["run"], second["failures"], second["threads"]) == (None, 0, [])
    if scene == "grpo":
        assert run.governing_key == "kl"
        assert all(one.kl.value is not None for one in steps)


def test_a_budget_that_says_stop_stops_both_ranks_at_the_same_step_and_saves(trained: Path) -> None:
    first, second = read_reports(trained, "brake")
    # Broken at step 2; the other rank is told as step 3 ends.
    assert first["steps"] == second["steps"] == [1, 2, 3]
    assert first["failures"] == second["failures"] == 0
    run, steps = read_run(trained, "brake")
    assert run.status == "finished"
    assert [one.step for one in steps] == [1, 2, 3]
    assert (trained / "brake" / "checkpoint-3" / "model.safetensors").is_file()


def test_a_brake_on_rank_0_alone_ends_it_with_an_exception_and_nobody_waits_for_ever(trained: Path) -> None:
    run, steps = read_run(trained, "brake-on-rank-0")
    assert [one.step for one in steps] == [1, 2]
    assert f"KLBudgetExceeded: KLA101 in run {run.name!r}" in (trained / "said").read_text()
