"""The optimisation part of a step: minibatches, clipped losses, one Adam step each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from klaudit.kl.exact import estimate_full
from klaudit.kl.reduce import BatchKL, reduce_to_batch
from klaudit.models.scoring import gather_logprobs, score_completions
from klaudit.ppo.checkpoint import TrainingState
from klaudit.ppo.config import PPOConfig
from klaudit.ppo.experience import Experience
from klaudit.ppo.objective import compute_policy_loss, compute_value_loss


@dataclass(frozen=True, slots=True)
class MinibatchReport:
    """What one optimizer step did."""

    policy_loss: float
    value_loss: float
    clip_fraction: float
    ratio: float
    """Mean over tokens of policy / old policy."""
    ratio_max: float
    grad_norm: float
    """Before clipping."""
    skipped: bool
    """Whether loss or gradient was not finite, so that the weights were left alone."""


def update_policy(training: TrainingState, *, experience: Experience, config: PPOConfig) -> list[MinibatchReport]:
    """`epochs` passes over the batch, each in a fresh random order, one optimizer step per minibatch (train_policy.py, train)."""
    n_sequences = len(experience.rollout)
    return [
        update_on_minibatch(training, experience=experience, rows=rows, config=config)
        for _ in range(config.epochs)
        for rows in split_rows(n_sequences, minibatches=config.minibatches, generator=training.generator)
    ]


def split_rows(n_sequences: int, *, minibatches: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of each minibatch, int64: a random partition into parts that differ by one sequence at most."""
    order = torch.randperm(n_sequences, generator=generator, device=generator.device)
    yield from order.tensor_split(minibatches)


def update_on_minibatch(training: TrainingState, *, experience: Experience, rows: Tensor, config: PPOConfig) -> MinibatchReport:
    """One forward, backward and optimizer step.

    Where the loss or the gradient is not finite, the weights are left as they are and the report says so: a NaN shows in the log, and the
    checkpoint stays usable.
    """
    rollout, judgement = experience.rollout.select(rows.tolist()), experience.judgement
    model = training.policy.model
    scored = score_completions(model, rollout=rollout, temperature=config.temperature)
    policy = compute_policy_loss(
        gather_logprobs(scored.logits, token_ids=rollout.completion_ids),
        old_logprobs=judgement.logprobs[rows],
        advantages=experience.advantages[rows],
        mask=rollout.mask,
        clip_range=config.clip_range,
    )
    value = compute_value_loss(
        training.value_head(scored.hidden),
        old_values=judgement.values[rows],
        returns=experience.returns[rows],
        mask=rollout.mask,
        clip_range=config.value_clip_range,
    )
    loss = policy.loss + config.value_coefficient * value.loss
    training.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [*model.parameters(), *training.value_head.parameters()]
    grad_norm = float(clip_grad_norm_(parameters, config.max_grad_norm))
    finite = math.isfinite(float(loss.detach())) and math.isfinite(grad_norm)
    if finite:
        training.optimizer.step()
    return MinibatchReport(
        policy_loss=float(policy.loss.detach()),
        value_loss=float(value.loss.detach()),
        clip_fraction=float(policy.clip_fraction),
        ratio=float(policy.ratio_mean),
        ratio_max=float(policy.ratio_max),
        grad_norm=grad_norm,
        skipped=not finite,
    )


@torch.no_grad()
def measure_update(training: TrainingState, *, experience: Experience, config: PPOConfig) -> BatchKL:
    """KL(old_policy || policy) after the last optimizer step, whole vocabulary along the old policy's samples, nats per token.

    These are the texts that were trained on, where a policy moves most: fresh texts show less of it, in the next step's `kl_full`.

    TRL 1.12.0 reports the mean of what each minibatch saw before its own step (`policy/approxkl_avg`): never the last step, which here costs one forward.
    """
    scored = score_completions(training.policy.model, rollout=experience.rollout, temperature=config.temperature)
    per_token = estimate_full(experience.judgement.logits, reference_logits=scored.logits)
    return reduce_to_batch(per_token, mask=experience.rollout.mask, unit="nats_per_token")
