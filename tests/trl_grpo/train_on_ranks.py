"""One rank of several trainings with klaudit attached, one after another. Run as a program by torchrun: MODEL DIRECTORY."""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

import klaudit
from klaudit.records import KLBudget
from tests.trl_grpo.trainings import make_grpo, make_trainer

torch.set_num_threads(1)

SETTINGS: dict[str, Any] = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "ddp_backend": "gloo"}
BRAKE = KLBudget(1e-6, "nats_per_token", on="value", action="stop")
SCENES = ("trainer", "grpo", "brake", "brake-on-rank-0")
"""The last one ends rank 0 with an exception, and torchrun ends the other."""


class CountSteps(TrainerCallback):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(state.global_step)


def train(model: Path, directory: Path, scene: str) -> None:
    has_brake = scene.startswith("brake")
    make = make_trainer if scene == "trainer" else make_grpo
    trainer = make(model, directory / scene, **SETTINGS, max_steps=8 if has_brake else 3)
    rank = trainer.args.process_index
    count = CountSteps()
    trainer.add_callback(count)
    report: dict[str, Any] = {"steps": count.steps}
    if scene != "brake-on-rank-0" or rank == 0:
        store = f"sqlite:///{directory / scene}.db"
        callback = klaudit.attach(trainer, run=scene, store=store, budget=BRAKE if has_brake else None)
        trainer.add_callback(WriteReport(directory / f"{scene}-{rank}.json", report, callback))
    trainer.train()


class WriteReport(TrainerCallback):
    """What a rank knows of itself as its training ends; after klaudit's callback, so that its run is closed."""

    def __init__(self, path: Path, report: dict[str, Any], callback: klaudit.KLAuditCallback) -> None:
        self._path, self._report, self._callback = path, report, callback

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._report["run"] = None if self._callback.run is None else self._callback.run.id
        self._report["failures"] = self._callback.failures
        self._report["threads"] = [one.name for one in threading.enumerate() if one.name.startswith("klaudit")]
        self._path.write_text(json.dumps(self._report))


if __name__ == "__main__":
    for scene in SCENES:
        train(Path(sys.argv[1]), Path(sys.argv[2]), scene)
