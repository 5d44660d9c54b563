"""Trainings that klaudit is attached to: the embedded PPO on a tiny model, and a trainer that only calls its callbacks."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import TrainerControl, TrainerState

from klaudit.callbacks.trainer_callback import KLAuditCallback
from klaudit.models.language_model import LanguageModel
from klaudit.ppo.config import PPOConfig
from klaudit.ppo.trainer import PPOTrainer

PROMPTS = ("w1", "w2 w3", "w4 w5 w6")


def average_word(_prompts: list[str], completions: list[str]) -> list[float]:
    """w1 is worth 0.01 and w99 0.99."""
    words = [[int(word[1:]) / 100 for word in text.split()] for text in completions]
    return [sum(numbers) / max(1, len(numbers)) for numbers in words]


def make_trainer(policy: LanguageModel, output_dir: Path, *, heldout: bool = False, **settings: Any) -> PPOTrainer:
    defaults = {"max_steps": 3, "batch_size": 4, "response_length": 5, "learning_rate": 1e-3, "save_steps": 0, "sample_every": 0}
    return PPOTrainer(
        policy,
        score=average_word,
        heldout_score=average_word if heldout else None,
        prompts=PROMPTS,
        config=PPOConfig(**(defaults | settings)),
        output_dir=output_dir,
    )


TRL_ARGUMENTS = {"kl_coef": 0.05, "batch_size": 16, "temperature": 0.7, "kl_estimator": "k1", "output_dir": "out", "hub_token": "hf_s3cret"}
"""What TRL 1.12.0's PPOConfig holds, as far as klaudit reads it."""


def trl_logs(kl: float) -> dict[str, float]:
    return {"objective/kl": kl, "objective/scores": 1.0, "objective/non_score_reward": -0.05 * kl, "policy/approxkl_avg": 0.01}


class BareTrainer:
    """Calls a callback as TRL's PPO does: log, then step end; whatever the control says, it goes on."""

    def __init__(self, callback: KLAuditCallback, *, is_world_process_zero: bool = True, **arguments: Any) -> None:
        self.callback = callback
        self.args = SimpleNamespace(**(TRL_ARGUMENTS | arguments))
        self.state = TrainerState(max_steps=100, is_world_process_zero=is_world_process_zero)
        self.control = TrainerControl()

    def begin(self) -> None:
        self.callback.on_train_begin(self.args, self.state, self.control)

    def step(self, logs: Mapping[str, Any]) -> None:
        self.control.should_save = False
        self.state.global_step += 1
        self.log(logs)
        self.callback.on_step_end(self.args, self.state, self.control)

    def log(self, logs: Mapping[str, Any]) -> None:
        self.callback.on_log(self.args, self.state, self.control, logs=logs)

    def train(self, steps: Iterable[Mapping[str, Any]]) -> None:
        self.begin()
        for logs in steps:
            self.step(logs)
        self.callback.on_train_end(self.args, self.state, self.control)
