"""What a real training leaves behind without klaudit, imported: its trainer_state.json and its console."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from klaudit.exchange.reader import ReadOptions
from klaudit.records import PRIMARY
from klaudit.store import Store
from klaudit.workflows.imports import import_file
from tests.trl_grpo.trainings import make_grpo, make_rloo


@pytest.mark.parametrize(("make", "framework", "estimator"), [(make_grpo, "trl-grpo", "k3"), (make_rloo, "trl-rloo", "k1")])
def test_the_trainer_state_of_a_real_training(
    model: Path, tmp_path: Path, store: Store, make: Callable[..., Any], framework: str, estimator: str
) -> None:
    trainer = make(model, tmp_path / "out")
    trainer.train()
    trainer.save_state()
    history = [entry["kl"] for entry in trainer.state.log_history if "kl" in entry]
    (imported,) = import_file(store, tmp_path / "out" / "trainer_state.json", options=ReadOptions(framework=framework))
    assert store.runs.get(imported.loaded.run.id).series[PRIMARY].estimator == estimator
    steps = store.steps.list(imported.loaded.run.id)
    assert [one.kl.value for one in steps] == history[: len(steps)]
    assert [one.step for one in steps] == [1, 2, 3]


def test_the_console_of_a_real_training(model: Path, tmp_path: Path, store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    trainer = make_grpo(model, tmp_path / "out", disable_tqdm=True)
    capfd.readouterr()
    trainer.train()
    path = tmp_path / "console.log"
    path.write_text("".join(capfd.readouterr()))
    # GRPO and RLOO print the same keys, and mean other things by them: a person says which.
    (unnamed,) = import_file(store, path)
    assert store.runs.get(unnamed.loaded.run.id).series[PRIMARY].estimator == "unknown"
    (imported,) = import_file(store, path, options=ReadOptions(framework="trl-grpo"))
    history = [entry["kl"] for entry in trainer.state.log_history if "kl" in entry]
    steps = store.steps.list(imported.loaded.run.id)
    assert [one.kl.value for one in steps][:3] == pytest.approx(history[:3], rel=1e-3)
    assert store.runs.get(imported.loaded.run.id).series[PRIMARY].estimator == "k3"
