"""Single-sample estimators of KL(policy || reference) from the log-probabilities of the tokens that the policy sampled.

Source: Schulman 2020, "Approximating KL Divergence", joschu.net/blog/kl-approx.html. With y ~ policy, l = log policy(y) - log reference(y):

    k1 = l                     unbiased, high variance, may be negative
    k2 = l^2 / 2               biased at second order, low variance
    k3 = exp(-l) - 1 + l       unbiased as long as y ~ policy, never negative, heavy tail where the reference is much likelier than the policy

The mean is over the policy's own samples: sampled hotter, colder or cut (top-k, top-p), none of the three estimates the KL.
As a penalty inside the reward only k1 has the gradient of KL(policy || reference); differentiated as a loss only k2 has it (arXiv 2510.01555).
"""

import torch
from torch import Tensor

from klaudit.errors import EstimatorError


def estimate_k1(policy_logprobs: Tensor, *, reference_logprobs: Tensor) -> Tensor:
    """Log-ratio, l = log policy(y) - log reference(y).

    Args:
        policy_logprobs: log-probabilities of the sampled tokens in nats, [n_sequences, n_tokens].
        reference_logprobs: those of the same tokens under the reference, same shape.

    Returns:
        Nats, [n_sequences, n_tokens], float32 or wider. +inf where the reference rules the token out, -inf where the policy does, NaN where both do.

    Raises:
        EstimatorError: the two shapes differ.
    """
    if policy_logprobs.shape != reference_logprobs.shape:
        raise EstimatorError(
            "policy_logprobs and reference_logprobs must be of one shape, [n_sequences, n_tokens]; "
            f"got {tuple(policy_logprobs.shape)} and {tuple(reference_logprobs.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(policy_logprobs.dtype, reference_logprobs.dtype), torch.float32)
    return policy_logprobs.to(dtype) - reference_logprobs.to(dtype)


def estimate_k2(policy_logprobs: Tensor, *, reference_logprobs: Tensor) -> Tensor:
    """Half the squared log-ratio, l^2 / 2; arguments and errors as for `estimate_k1`.

    Returns:
        Nats, 0 or more; +inf where exactly one side rules the token out, NaN where both do.
    """
    return estimate_k1(policy_logprobs, reference_logprobs=reference_logprobs).square() / 2


def estimate_k3(policy_logprobs: Tensor, *, reference_logprobs: Tensor) -> Tensor:
    """exp(-l) - 1 + l; arguments and errors as for `estimate_k1`.

    Returns:
        Nats, 0 or more; +inf where exactly one side rules the token out or exp(-l) overflows, NaN where both do.
    """
    log_ratio = estimate_k1(policy_logprobs, reference_logprobs=reference_logprobs)
    return bregman_gap(log_ratio)


def bregman_gap(log_ratio: Tensor) -> Tensor:
    """exp(-l) - 1 + l without the cancellation around l = 0; never negative, +inf at both ends, NaN for NaN."""
    # expm1 is allowed to be off by one in its last digit, which is all there is of the gap near 0
    gap = (torch.expm1(-log_ratio) + log_ratio).clamp(min=0)
    return torch.where(log_ratio == -torch.inf, torch.inf, gap)
