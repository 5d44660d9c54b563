"""What one step learns from: sampled completions, what policy, reference, critic and reward say of them, and the advantages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from klaudit.errors import TrainingFailed
from klaudit.kl.estimators import estimate_k1
from klaudit.kl.exact import estimate_full, measure_entropy
from klaudit.kl.reduce import reduce_to_sequence
from klaudit.models.sampling import Rollout
from klaudit.models.scoring import gather_logprobs, score_completions
from klaudit.ppo.config import PPOConfig
from klaudit.ppo.objective import estimate_advantages, penalize_rewards, whiten
from klaudit.ppo.value_head import ValueHead

ScoreFunction = Callable[[list[str], list[str]], Sequence[float]]
"""(prompts, completions) -> one score per completion."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the old policy, its critic and the reference say of a rollout. No gradients."""

    logits: Tensor
    """[n_sequences, n_tokens, vocabulary] of the old policy, tempered."""
    logprobs: Tensor
    """Of the sampled tokens under the old policy, nats, [n_sequences, n_tokens]."""
    reference_logprobs: Tensor
    """Of the same tokens under the reference."""
    values: Tensor
    """The critic's, score units, [n_sequences, n_tokens]."""
    full_kl: Tensor
    """KL(policy || reference) over the whole vocabulary at each position, nats, [n_sequences, n_tokens]."""
    entropy: Tensor
    """Of the policy at each position, nats, [n_sequences, n_tokens]."""


@dataclass(frozen=True, eq=False)
class Experience:
    """A judged and rewarded rollout, ready for the update."""

    rollout: Rollout
    judgement: Judgement
    scores: Tensor
    """[n_sequences], after the missing-EOS penalty."""
    heldout_scores: Tensor | None
    """[n_sequences]; never part of the reward."""
    penalties: Tensor
    """[n_sequences]: beta times the KL, as k1, that was taken from each sequence's rewards."""
    beta: float
    """KL penalty coefficient that went into the rewards."""
    advantages: Tensor
    """Whitened, [n_sequences, n_tokens]."""
    returns: Tensor
    """Score units, [n_sequences, n_tokens]."""


@torch.no_grad()
def judge_rollout(
    rollout: Rollout, *, policy: PreTrainedModel, value_head: ValueHead, reference: PreTrainedModel, temperature: float
) -> Judgement:
    """One forward of the policy and one of the reference; everything else is read off their logits.

    The policy is scored by the same forward that the update differentiates, not by what sampling computed with its cache:
    so the first ratios are exactly 1, and the first KL of a run exactly 0.
    """
    scored = score_completions(policy, rollout=rollout, temperature=temperature)
    reference_logits = score_completions(reference, rollout=rollout, temperature=temperature).logits
    return Judgement(
        logits=scored.logits,
        logprobs=gather_logprobs(scored.logits, token_ids=rollout.completion_ids),
        reference_logprobs=gather_logprobs(reference_logits, token_ids=rollout.completion_ids),
        values=value_head(scored.hidden),
        full_kl=estimate_full(scored.logits, reference_logits=reference_logits),
        entropy=measure_entropy(scored.logits),
    )


def call_score(score: ScoreFunction, *, rollout: Rollout) -> Tensor:
    """One score per completion, float32 [n_sequences]; NaN and infinities are kept.

    Raises:
        TrainingFailed: the callable returned another number of scores.
    """
    scores = list(score(list(rollout.prompts), list(rollout.completions)))
    if len(scores) != len(rollout):
        raise TrainingFailed(f"the score function must return one number per completion; got {len(scores)} for {len(rollout)} completions")
    return torch.tensor(scores, dtype=torch.float32, device=rollout.completion_ids.device)


def reward_rollout(
    rollout: Rollout, *, judgement: Judgement, scores: Tensor, heldout_scores: Tensor | None, beta: float, config: PPOConfig
) -> Experience:
    """Scores and KL penalty to whitened advantages."""
    if config.missing_eos_penalty is not None:
        scores = torch.where(rollout.ended_with_eos, scores, scores - config.missing_eos_penalty)
    kl_tokens = estimate_k1(judgement.logprobs, reference_logprobs=judgement.reference_logprobs)
    rewards = penalize_rewards(scores, kl_tokens=kl_tokens, beta=beta, mask=rollout.mask)
    if config.whiten_rewards:
        rewards = whiten(rewards, mask=rollout.mask, shift_mean=False)
    advantages, returns = estimate_advantages(rewards, values=judgement.values, mask=rollout.mask, gamma=config.gamma, lam=config.lam)
    return Experience(
        rollout=rollout,
        judgement=judgement,
        scores=scores,
        heldout_scores=heldout_scores,
        penalties=beta * reduce_to_sequence(kl_tokens, mask=rollout.mask),
        beta=beta,
        advantages=whiten(advantages, mask=rollout.mask),
        returns=returns,
    )
