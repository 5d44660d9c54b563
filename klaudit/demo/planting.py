"""Break a trainer on purpose at a known step, through what it leaves open to everybody: its parts, its callbacks and torch's hooks."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.modeling_outputs import CausalLMOutputWithPast

from klaudit.demo.faults import LEARNING_RATE_FACTOR, TOP_K, Fault
from klaudit.kl.controllers import FixedBeta
from klaudit.models.sampling import Rollout
from klaudit.ppo.experience import Experience, reward_rollout
from klaudit.ppo.trainer import PPOTrainer


class PlantedFault(TrainerCallback):
    """Breaks the trainer as its step begins, and leaves it broken."""

    def __init__(self, trainer: PPOTrainer, fault: Fault) -> None:
        self._trainer = trainer
        self._fault = fault

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Break it when its time has come."""
        if state.global_step + 1 == self._fault.step:
            BREAKERS[self._fault.kind](self._trainer)


def plant_fault(trainer: PPOTrainer, fault: Fault) -> None:
    """Let a fault come into force at its step."""
    trainer.add_callback(PlantedFault(trainer, fault))


def multiply_learning_rate(trainer: PPOTrainer) -> None:
    """Learning rate x LEARNING_RATE_FACTOR."""
    trainer.config = replace(trainer.config, learning_rate=trainer.config.learning_rate * LEARNING_RATE_FACTOR)


def drop_penalty(trainer: PPOTrainer) -> None:
    """Beta 0: nothing holds the policy to the reference."""
    trainer.args.beta = 0.0


class UncheckedBeta(FixedBeta):
    """A beta of any sign, as in trainers that check nothing."""

    @property
    def beta(self) -> float:
        """KL penalty coefficient in force."""
        return self._beta

    @beta.setter
    def beta(self, beta: float) -> None:
        self._beta = beta


def flip_penalty(trainer: PPOTrainer) -> None:
    """Minus beta: every nat away from the reference is paid for."""
    trainer.controller = UncheckedBeta(-trainer.controller.beta)


def penalize_padding(trainer: PPOTrainer) -> None:
    """Rewards without a mask: the positions after a text's end pay for their KL too, and the score comes at the last of them."""
    trainer.reward_rollout = reward_all_positions


def reward_all_positions(rollout: Rollout, **kwargs: Any) -> Experience:
    """`reward_rollout` of a rollout whose mask was lost; what comes after the rewards has it again."""
    experience = reward_rollout(replace(rollout, mask=torch.ones_like(rollout.mask)), **kwargs)
    return replace(experience, rollout=rollout)


def cut_sampling(trainer: PPOTrainer) -> None:
    """Sample from the TOP_K likeliest tokens and score with all of them, as where generation has its own settings."""
    trainer.policy.model.register_forward_hook(keep_top_k, with_kwargs=True)


def keep_top_k(_model: Any, _args: Any, kwargs: Mapping[str, Any], output: CausalLMOutputWithPast) -> CausalLMOutputWithPast:
    """Rule out all other tokens in a forward that samples, which is one with a cache."""
    if kwargs.get("use_cache") and output.logits is not None:
        least = output.logits.topk(TOP_K, dim=-1).values[..., -1:]
        output.logits = output.logits.masked_fill(output.logits < least, -torch.inf)
    return output


def swap_reference(trainer: PPOTrainer) -> None:
    """Measure KL against the policy as it is now, as where a reference is loaded again from the latest checkpoint."""
    trainer.reference = trainer.policy.freeze_copy()


def spoil_gradient(trainer: PPOTrainer) -> None:
    """NaN in one weight's gradient, which the norm of all of them shows."""
    next(trainer.policy.model.parameters()).register_hook(spoil)  # type: ignore[no-untyped-call]


def spoil(gradient: Tensor) -> Tensor:
    """NaN everywhere."""
    return torch.full_like(gradient, torch.nan)


BREAKERS: Mapping[str, Callable[[PPOTrainer], None]] = {
    "learning_rate": multiply_learning_rate,
    "beta_zero": drop_penalty,
    "beta_sign": flip_penalty,
    "padding_in_penalty": penalize_padding,
    "sampling_top_k": cut_sampling,
    "reference_swap": swap_reference,
    "nan_gradient": spoil_gradient,
}
"""What each kind does to a trainer, once."""
