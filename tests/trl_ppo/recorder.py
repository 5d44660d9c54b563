"""Reads the local variables of TRL 1.12.0's `PPOTrainer.train()` while it runs. Line numbers are those of trl/experimental/ppo/ppo_trainer.py."""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

ppo_trainer = importlib.import_module("trl.experimental.ppo.ppo_trainer")


@dataclass(frozen=True, eq=False)
class Whitening:
    """One call of TRL's `masked_whiten`."""

    values: Tensor
    mask: Tensor
    shift_mean: bool
    whitened: Tensor


@dataclass(frozen=True, eq=False)
class Update:
    """One update of TRL: what its local variables held."""

    args: Any
    tensors: Mapping[str, Tensor]
    """Of the whole batch, when the update was logged."""
    microbatches: tuple[Mapping[str, Tensor], ...]
    """At each `accelerator.backward`, in order; `grad_logprobs` and `grad_values` added."""
    whitenings: tuple[Whitening, ...]
    metrics: Mapping[str, float]
    """What TRL logged."""

    @property
    def mask(self) -> Tensor:
        """Response tokens up to and including end-of-sequence: klaudit's mask, and TRL's for policy loss and advantages."""
        return ~self.tensors["padding_mask"]

    @property
    def mask_p1(self) -> Tensor:
        """TRL's mask for rewards and values: one position more in a sequence that ended early (:768)."""
        return ~self.tensors["padding_mask_p1"]

    @property
    def raw_rewards(self) -> Tensor:
        """KL penalty and score, before TRL whitens rewards."""
        return self.whitenings[0].values if self.args.whiten_rewards else self.tensors["rewards"]

    @property
    def raw_advantages(self) -> Tensor:
        """What TRL whitens last."""
        return self.whitenings[-1].values

    def read_statistic(self, name: str) -> Tensor:
        """TRL's per-microbatch statistic, in the order of `microbatches`."""
        per_mini_batch = len(self.microbatches) // (self.args.num_ppo_epochs * self.args.num_mini_batches)
        return self.tensors[name][:, :, :per_mini_batch].flatten()


def copy_tensors(variables: Mapping[str, Any]) -> dict[str, Tensor]:
    arrays = {name: value for name, value in variables.items() if isinstance(value, Tensor | np.ndarray)}
    return {name: torch.as_tensor(value).detach().clone() for name, value in arrays.items()}


def record_updates(trainer: Any, patch: pytest.MonkeyPatch) -> list[Update]:
    """Train, and read TRL's local variables wherever `train()` calls out."""
    updates: list[Update] = []
    microbatches: list[Mapping[str, Tensor]] = []
    whitenings: list[Whitening] = []
    backward, log, masked_whiten = trainer.accelerator.backward, trainer.log, ppo_trainer.masked_whiten

    def record_whitening(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
        whitened: Tensor = masked_whiten(values, mask, shift_mean=shift_mean)
        whitenings.append(Whitening(values.clone(), mask.clone(), shift_mean, whitened.clone()))
        return whitened

    def record_microbatch(loss: Tensor) -> None:
        variables = sys._getframe(1).f_locals
        (grad_logprobs,) = torch.autograd.grad(variables["pg_loss"], variables["new_logprobs"], retain_graph=True)
        (grad_values,) = torch.autograd.grad(variables["vf_loss"], variables["vpred"], retain_graph=True)
        microbatches.append(copy_tensors(variables) | {"grad_logprobs": grad_logprobs, "grad_values": grad_values})
        backward(loss)

    def record_update(metrics: dict[str, float]) -> None:
        tensors = copy_tensors(sys._getframe(1).f_locals)
        updates.append(Update(trainer.args, tensors, tuple(microbatches), tuple(whitenings), dict(metrics)))
        microbatches.clear()
        whitenings.clear()
        log(metrics)

    patch.setattr(ppo_trainer, "masked_whiten", record_whitening)
    patch.setattr(trainer.accelerator, "backward", record_microbatch)
    patch.setattr(trainer, "log", record_update)
    trainer.train()
    return updates


@dataclass(frozen=True, eq=False)
class Recording:
    trainer: Any
    updates: list[Update]
    microbatches: list[tuple[Update, Mapping[str, Tensor]]]
