"""Checkpoints in the Hugging Face form: weights, tokenizer, trainer_state.json, and what a resume needs."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, TrainerState

from klaudit.errors import ModelNotFound
from klaudit.kl.controllers import BetaController
from klaudit.models.language_model import LanguageModel
from klaudit.models.progress import hide_progress_bars
from klaudit.ppo.value_head import ValueHead

STATE_FILE = "trainer_state.json"
RESUME_FILE = "training_state.pt"


@dataclass(frozen=True, eq=False)
class TrainingState:
    """Everything that changes while a run goes on, beside the step count."""

    policy: LanguageModel
    value_head: ValueHead
    optimizer: torch.optim.Optimizer
    controller: BetaController
    generator: torch.Generator


def save_checkpoint(output_dir: Path, *, training: TrainingState, state: TrainerState, with_optimizer: bool) -> Path:
    """Write `checkpoint-<step>` under a hidden name and move it into place: a checkpoint is there as a whole or not at all."""
    target = output_dir / f"checkpoint-{state.global_step}"
    workspace = output_dir / f".{target.name}.partial"
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir(parents=True)
    with hide_progress_bars():
        training.policy.model.save_pretrained(workspace)
    training.policy.tokenizer.save_pretrained(workspace)
    if with_optimizer:
        torch.save(
            {
                "value_head": training.value_head.state_dict(),
                "optimizer": training.optimizer.state_dict(),
                "controller": training.controller.state_dict(),
                "generator": training.generator.get_state(),
            },
            workspace / RESUME_FILE,
        )
    state.save_to_json(str(workspace / STATE_FILE))
    if target.exists():
        shutil.rmtree(target)
    workspace.rename(target)
    return target


def load_checkpoint(checkpoint: Path, *, training: TrainingState) -> TrainerState:
    """Put the weights, optimizer, controller and generator of a checkpoint back; the run goes on bit for bit.

    Returns:
        The trainer's state as it was saved, log history included.

    Raises:
        ModelNotFound: no such checkpoint, or one that was saved without the optimizer.
    """
    for name, advice in ((STATE_FILE, "give a checkpoint-N directory of a run"), (RESUME_FILE, "it was saved with save_optimizer=False")):
        if not (checkpoint / name).is_file():
            raise ModelNotFound(f"Cannot resume from {checkpoint}: {name} is not there ({advice})")
    saved = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=training.policy.model.dtype, local_files_only=True)
    training.policy.model.load_state_dict(saved.state_dict())
    resumed: Mapping[str, dict[str, Tensor]] = torch.load(checkpoint / RESUME_FILE, weights_only=True, map_location="cpu")
    training.value_head.load_state_dict(resumed["value_head"])
    training.optimizer.load_state_dict(resumed["optimizer"])
    training.controller.load_state_dict({name: float(number) for name, number in resumed["controller"].items()})
    training.generator.set_state(resumed["generator"])  # type: ignore[arg-type]
    state: TrainerState = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
    return state
