"""The mathematics of PPO for language models, pure functions on tensors.

One completion is one episode, one token one action. All tensors are [n_sequences, n_tokens]; `mask` is bool, True on the completion's tokens up to
and including end-of-sequence. What stands outside the mask never matters, NaN included. Sources: Schulman 2017, arXiv 1707.06347 (PPO); Schulman
2016, arXiv 1506.02438 (GAE); Ziegler 2019, arXiv 1909.08593, and openai/lm-human-preferences, lm_human_preferences/train_policy.py (KL in the
reward, whitening, clipped value loss); TRL 1.12.0, trl/experimental/ppo/ppo_trainer.py, with which every function here agrees except for:

| what | TRL 1.12.0 | here | why |
|---|---|---|---|
| where the score goes | one position past the last token, if there is one (:779) | the last token, end-of-sequence or not | the last action is what it pays for |
| value after the last token | the value model's, one position past the end (:770) | 0: the episode is over | no state is left to have a value |
| policy-update KL, ratio | mean over padding too (:857, :868) | mean over the mask | padding dilutes them by the share of padding |
| averages over an update: `policy/*`, `loss/*`, `val/clipfrac_avg`, `val/ratio` | over G slots a minibatch; only ceil(G/M) are filled, the others count as 0 (:632, :869, :897) | over what was computed | unfilled slots scale them by ceil(G/M)/G (G `gradient_accumulation_steps`, M `num_mini_batches`) |
| whitening a single token | raises ValueError | its mean is taken away, its scale left as it is | a run should not end over one short batch |
| temperature | logits / (T + 1e-7) (:713) | logits / T | T > 0 is checked where it is set |
"""

from dataclasses import dataclass

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-8
"""Added to the variance in `whiten`, as in lm-human-preferences and TRL."""


@dataclass(frozen=True, eq=False)
class PolicyLoss:
    """Clipped surrogate loss of a minibatch, and how far the policy has moved on it."""

    loss: Tensor
    """Scalar with gradient."""
    clip_fraction: Tensor
    """Share of tokens in [0, 1] where the clipped term is the larger one and the gradient is cut."""
    kl_update: Tensor
    """KL(old_policy || policy) by k2, mean of (log ratio)^2 / 2, nats per token."""
    ratio_mean: Tensor
    """Mean of policy(y) / old_policy(y); near 1."""
    ratio_max: Tensor
    """Largest ratio of the minibatch."""


@dataclass(frozen=True, eq=False)
class ValueLoss:
    """Clipped value loss of a minibatch."""

    loss: Tensor
    """Scalar with gradient, in squared score units, the factor 1/2 included."""
    clip_fraction: Tensor
    """Share of tokens in [0, 1] where the clipped error is the larger one."""


def penalize_rewards(scores: Tensor, *, kl_tokens: Tensor, beta: float, mask: Tensor) -> Tensor:
    """Reward of each token: r_t = -beta KL_t, and the score on top at the last token.

    Source: Ziegler 2019, equation 2; train_policy.py, compute_rewards. With k1 for KL_t its expected gradient is that of beta KL(policy || reference).

    Args:
        scores: [n_sequences], what the reward model said of each completion.
        kl_tokens: nats, [n_sequences, n_tokens].
        beta: KL penalty coefficient, reward/nat.
        mask: bool, [n_sequences, n_tokens], at least one True a row.

    Returns:
        Score units, [n_sequences, n_tokens]; 0 outside the mask.
    """
    rewards = torch.where(mask, -beta * kl_tokens, 0.0)
    last = find_last_token(mask)
    return rewards.scatter_add(1, last.unsqueeze(1), scores.to(rewards.dtype).unsqueeze(1))


def find_last_token(mask: Tensor) -> Tensor:
    """Index of the last True of each row, int64 [n_sequences]."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, positions, -1).amax(dim=1)


def estimate_advantages(rewards: Tensor, *, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation, not whitened.

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = sum_l (gamma lam)^l delta_{t+l}, with V = 0 after the last token. Source: arXiv 1506.02438, equation 16.

    Args:
        rewards: [n_sequences, n_tokens], score units.
        values: the old value head's prediction of the return at each token, same shape.
        mask: bool, same shape.
        gamma: discount in [0, 1]; 1 for language models, whose episodes are short.
        lam: in [0, 1]; 0 trusts the values, 1 the sampled return.

    Returns:
        (advantages, returns), returns = advantages + values; both 0 outside the mask.
    """
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    reversed_advantages = []
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = delta + gamma * lam * next_advantage
        next_value = values[:, t]
        reversed_advantages.append(next_advantage)
    advantages = torch.where(mask, torch.stack(reversed_advantages[::-1], dim=1), 0.0)
    return advantages, advantages + values


def whiten(values: Tensor, *, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Scale to unit variance over the mask, and to zero mean unless `shift_mean` is False.

    Source: train_policy.py, whiten: rewards keep their mean, advantages do not. The variance is the unbiased one, as in TRL masked_whiten.

    Returns:
        Same shape; 0 outside the mask.
    """
    mean = average(values, mask=mask)
    count = mask.sum()
    squares = torch.where(mask, (values - mean).square(), 0.0).sum()
    variance = squares / (count - 1) if count > 1 else torch.ones_like(mean)
    whitened = (values - mean) * (variance + VARIANCE_FLOOR).rsqrt()
    return torch.where(mask, whitened if shift_mean else whitened + mean, 0.0)


def compute_policy_loss(logprobs: Tensor, *, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_range: float) -> PolicyLoss:
    """Mean over tokens of max(-A ratio, -A clip(ratio, 1 - c, 1 + c)). Source: arXiv 1707.06347, equation 7.

    Args:
        logprobs: log-probabilities of the sampled tokens under the policy, nats, with gradient.
        old_logprobs: those under the policy that sampled them.
        advantages: of the same shape.
        mask: bool, same shape, at least one True.
        clip_range: c.
    """
    # Inside the where, so that no NaN of the padding meets the gradient.
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    ratio = log_ratio.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    with torch.no_grad():
        clip_fraction = average((clipped > unclipped).to(ratio.dtype), mask=mask)
        kl_update = average(log_ratio.square() / 2, mask=mask)
        ratio_mean = average(ratio, mask=mask)
        ratio_max = torch.where(mask, ratio, 0.0).amax()
    loss = average(torch.maximum(unclipped, clipped), mask=mask)
    return PolicyLoss(loss=loss, clip_fraction=clip_fraction, kl_update=kl_update, ratio_mean=ratio_mean, ratio_max=ratio_max)


def compute_value_loss(values: Tensor, *, old_values: Tensor, returns: Tensor, mask: Tensor, clip_range: float) -> ValueLoss:
    """Half the mean over tokens of max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2). Source: train_policy.py, loss.

    Args:
        values: the value head's prediction, score units, with gradient.
        old_values: its prediction before the update.
        returns: what it should have predicted.
        mask: bool, same shape, at least one True.
        clip_range: c, score units.
    """
    clipped = values.clamp(old_values - clip_range, old_values + clip_range)
    unclipped_error, clipped_error = (values - returns).square(), (clipped - returns).square()
    with torch.no_grad():
        clip_fraction = average((clipped_error > unclipped_error).to(values.dtype), mask=mask)
    return ValueLoss(loss=average(torch.maximum(unclipped_error, clipped_error), mask=mask) / 2, clip_fraction=clip_fraction)


def average(values: Tensor, *, mask: Tensor) -> Tensor:
    """Mean over the True positions of the mask, scalar."""
    return torch.where(mask, values, 0.0).sum() / mask.sum()
