"""Record the sample runs.

A directory holds `config.toml`. Its truth is derived from that file and committed before the run is trained, because training audits live.
"""

import json
import tempfile
from pathlib import Path

import torch

from klaudit.demo.prompts import HELDOUT_BEGINNINGS
from klaudit.demo.recipe import Recipe, read_recipe
from klaudit.demo.training import OnStep, train_recipe
from klaudit.demo.truth import derive_truth
from klaudit.drift.checkpoints import find_checkpoints
from klaudit.errors import InvalidConfig
from klaudit.store import open_store
from klaudit.workflows.drift import DriftSettings, measure_drift
from klaudit.workflows.recorded_runs import save_recorded_run

SAMPLE_RUN_DRIFT = DriftSettings(samples_per_prompt=4)


def write_truth(directory: Path) -> None:
    """Write what an audit of the run must find."""
    truth = derive_truth(read_recipe(directory / "config.toml"))
    (directory / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")


def record_sample_run(directory: Path, *, on_step: OnStep | None = None) -> None:
    """Train the run of a directory on one thread, measure its checkpoints, and write steps, samples, drift and budgets beside its config.

    Raises:
        InvalidConfig: `truth.json` is missing or is not that of the config.
    """
    # Sums differ in their last digits with the number of threads, and a training run amplifies them.
    torch.set_num_threads(1)
    recipe = read_recipe(directory / "config.toml")
    require_truth(directory, recipe=recipe)
    with tempfile.TemporaryDirectory(prefix="klaudit-") as workspace:
        url = f"sqlite:///{workspace}/klaudit.db"
        trained = train_recipe(recipe, store=url, output_dir=Path(workspace) / recipe.name, on_step=on_step)
        with open_store(url) as store:
            measure_drift(
                reference=recipe.policy,
                checkpoints=find_checkpoints(trained.output_dir),
                prompts=HELDOUT_BEGINNINGS,
                settings=SAMPLE_RUN_DRIFT,
                run_id=trained.run.id,
                store=store,
            )
            # Where the recording machine kept its files says nothing about the run.
            config = {name: value for name, value in trained.run.config.items() if name != "output_dir"}
            save_recorded_run(store, trained.run.id, directory, config=config)


def require_truth(directory: Path, *, recipe: Recipe) -> None:
    """Refuse to train a run whose truth was not written first.

    Raises:
        InvalidConfig: it is missing or is not that of the config.
    """
    path = directory / "truth.json"
    if not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != derive_truth(recipe):
        raise InvalidConfig(f"{path} must be derived from config.toml and committed before the run is trained")
