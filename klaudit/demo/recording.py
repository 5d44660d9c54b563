"""Record runs of the embedded trainer.

A directory holds `config.toml`. Its truth is derived from that file and committed before the run is trained, because training audits live.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from klaudit.demo.prompts import HELDOUT_BEGINNINGS
from klaudit.demo.recipe import Recipe, read_recipe
from klaudit.demo.training import OnStep, TrainedRun, train_recipe
from klaudit.demo.truth import derive_truth
from klaudit.drift.checkpoints import find_checkpoints
from klaudit.drift.plan import MeasurementSettings
from klaudit.errors import InvalidConfig
from klaudit.exchange.steps_file import write_steps_file
from klaudit.records import Run
from klaudit.store import Store, open_store
from klaudit.workflows.drift import DriftRequest, measure_drift, plan_drift
from klaudit.workflows.recorded_runs import hide_folders, save_recorded_run

SAMPLE_RUN_DRIFT = MeasurementSettings(samples_per_prompt=4, forward=False)


@dataclass(frozen=True, slots=True)
class _Training:
    """A run that was just trained, with its checkpoints and the store that holds it."""

    recipe: Recipe
    trained: TrainedRun
    store: Store

    @property
    def run(self) -> Run:
        return self.trained.run

    @property
    def config(self) -> dict[str, Any]:
        """The trainer's arguments: where the recording machine kept its files says nothing about the run."""
        return {name: value for name, value in self.run.config.items() if name != "output_dir"}


def write_truth(directory: Path) -> None:
    """Write what an audit of the run must find."""
    truth = derive_truth(read_recipe(directory / "config.toml"))
    (directory / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")


def record_sample_run(directory: Path, *, on_step: OnStep | None = None) -> None:
    """Train the run of a directory, measure its checkpoints, and write steps, samples, drift and budgets beside its config.

    Raises:
        InvalidConfig: `truth.json` is missing or is not that of the config.
    """
    require_truth(directory)
    with _train(directory, on_step=on_step) as training:
        request = DriftRequest(
            reference=training.recipe.policy,
            checkpoints=find_checkpoints(training.trained.output_dir),
            prompts=HELDOUT_BEGINNINGS,
            settings=SAMPLE_RUN_DRIFT,
            run_id=training.run.id,
        )
        measure_drift(plan_drift(request), training.store)
        save_recorded_run(training.store, training.run.id, directory, config=training.config)


def record_steps(directory: Path, *, on_step: OnStep | None = None) -> None:
    """Train the run of a directory and write its steps beside its config, and nothing else."""
    with _train(directory, on_step=on_step) as training:
        run = hide_folders(replace(training.store.runs.get(training.run.id), config=training.config))
        write_steps_file(directory / "steps.jsonl", run=run, steps=training.store.steps.list(run.id))


def require_truth(directory: Path) -> None:
    """Refuse to train a run whose truth was not written first.

    Raises:
        InvalidConfig: it is missing or is not that of the config.
    """
    path = directory / "truth.json"
    if not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != derive_truth(read_recipe(directory / "config.toml")):
        raise InvalidConfig(f"{path} must be derived from config.toml and committed before the run is trained")


@contextmanager
def _train(directory: Path, *, on_step: OnStep | None) -> Iterator[_Training]:
    """Train on one thread, into a store and checkpoints that are gone when the block ends."""
    # Sums differ in their last digits with the number of threads, and a training run amplifies them.
    torch.set_num_threads(1)
    recipe = read_recipe(directory / "config.toml")
    with tempfile.TemporaryDirectory(prefix="klaudit-") as workspace:
        url = f"sqlite:///{workspace}/klaudit.db"
        trained = train_recipe(recipe, store=url, output_dir=Path(workspace) / recipe.name, on_step=on_step)
        with open_store(url) as store:
            yield _Training(recipe, trained, store)
