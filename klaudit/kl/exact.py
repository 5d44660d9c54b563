"""Whole-vocabulary KL and entropy at each position: the Rao-Blackwellised estimator, called `full` in a `KLSeries`.

Sampling decides only which prefixes come up; at each of them the KL is exact, so that the variance of the sum is never above that of k1
(Amini, Vieira, Cotterell 2025, arXiv 2504.10637). Both functions look at a slice of the positions at a time: beside the logits that the caller
holds they need a few tens of megabytes, whatever the batch. Neither carries a gradient: KL belongs in the reward, where none is needed.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from klaudit.errors import EstimatorError
from klaudit.kl.estimators import bregman_gap

SLICE_ELEMENTS = 1 << 18
"""Logits of one model looked at together, unless one row is more: 2 MB at 8 bytes. With its temporaries 38 MB were measured."""


@torch.no_grad()
def estimate_full(policy_logits: Tensor, *, reference_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(policy(. | prefix) || reference(. | prefix)) over the whole vocabulary, at each position.

    `KL = sum_v q_v - p_v + p_v d_v`, d = log p - log q. Since p and q sum to 1 this equals `sum_v p_v d_v`, but each term is 0 or more, so that no
    rounding makes the sum negative however near the two are. Near d = 0 a term is `p (expm1(-d) + d)`, which does not cancel.

    Args:
        policy_logits: unnormalised, [n_sequences, n_tokens, n_vocabulary], any floating dtype.
        reference_logits: of the same positions, same shape.
        temperature: the one that the tokens were sampled at; both sides are divided by it.

    Returns:
        Nats, [n_sequences, n_tokens], 0 or more, float32 or wider. Tokens without policy mass (logit -inf) add nothing; +inf where the policy
        has mass on a token that the reference rules out; NaN where a distribution is undefined (NaN, +inf, or -inf throughout).

    Raises:
        EstimatorError: shapes that differ or are not three-dimensional, a temperature that is not a positive finite number.
    """
    if policy_logits.shape != reference_logits.shape:
        raise EstimatorError(
            "policy_logits and reference_logits must be of one shape, [n_sequences, n_tokens, n_vocabulary]; "
            f"got {tuple(policy_logits.shape)} and {tuple(reference_logits.shape)}"
        )
    _require_logits(policy_logits, temperature)
    per_token = _make_result(policy_logits)
    for part in _slice_positions(policy_logits.shape):
        policy = _normalise(policy_logits[part], temperature)
        per_token[part] = divergence_terms(policy, _normalise(reference_logits[part], temperature)).sum(-1)
    return per_token


@torch.no_grad()
def measure_entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Entropy of the next-token distribution, `-sum_v p_v log p_v`, at each position.

    Args:
        logits: unnormalised, [n_sequences, n_tokens, n_vocabulary], any floating dtype; -inf rules a token out.
        temperature: the one that the tokens were sampled at.

    Returns:
        Nats, [n_sequences, n_tokens], float32 or wider.

    Raises:
        EstimatorError: logits that are not three-dimensional, a temperature that is not a positive finite number.
    """
    _require_logits(logits, temperature)
    per_token = _make_result(logits)
    for part in _slice_positions(logits.shape):
        per_token[part] = torch.special.entr(_normalise(logits[part], temperature).exp()).sum(-1)
    return per_token


def _require_logits(logits: Tensor, temperature: float) -> None:
    if logits.ndim != 3:
        raise EstimatorError(f"logits must be [n_sequences, n_tokens, n_vocabulary]; got {tuple(logits.shape)}")
    if not (math.isfinite(temperature) and temperature > 0):
        raise EstimatorError(f"temperature must be a positive finite number; got {temperature!r}")


def _make_result(logits: Tensor) -> Tensor:
    return logits.new_empty(logits.shape[:2], dtype=torch.promote_types(logits.dtype, torch.float32))


def _slice_positions(shape: torch.Size) -> Iterator[tuple[slice, slice]]:
    """Cut [n_sequences, n_tokens] into blocks of at most SLICE_ELEMENTS logits: whole sequences where they fit, else pieces of one."""
    n_sequences, n_tokens, n_vocabulary = shape
    n_positions = max(1, SLICE_ELEMENTS // n_vocabulary)
    height, width = max(1, n_positions // max(1, n_tokens)), n_positions
    for top in range(0, n_sequences, height):
        for left in range(0, n_tokens, width):
            yield slice(top, top + height), slice(left, left + width)


def _normalise(logits: Tensor, temperature: float) -> Tensor:
    """Log-probabilities, in the width that a sum over a vocabulary needs."""
    return (widen(logits) / temperature).log_softmax(-1)


def widen(tensor: Tensor) -> Tensor:
    """In float64, since at small drift float32 loses the KL in the rounding of the normaliser; in float32 on Apple's MPS, which has no other."""
    return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)


def divergence_terms(policy_logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """What each entry of the vocabulary adds to KL(policy || reference): `q - p + p d`, d = log p - log q.

    Args:
        policy_logprobs: log p, [..., n_vocabulary], float64; p need not sum to 1.
        reference_logprobs: log q, same shape.

    Returns:
        Nats, same shape, 0 or more: q where p is 0, +inf where only q is.
    """
    policy, reference = policy_logprobs.exp(), reference_logprobs.exp()
    log_ratio = policy_logprobs - reference_logprobs
    near = log_ratio.abs() <= 1
    terms = torch.where(near, policy * bregman_gap(log_ratio), reference - policy + policy * log_ratio)
    # a term tends to q as p tends to 0, where p d would be 0 * inf
    no_policy_mass = policy_logprobs == -torch.inf
    ruled_out = (reference_logprobs == -torch.inf) & ~no_policy_mass
    return terms.where(~no_policy_mass, reference).masked_fill(ruled_out, torch.inf)
