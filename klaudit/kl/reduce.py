"""From tokens to sequences to one number of a batch, with its standard error."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from klaudit.errors import EstimatorError

KnownUnit = Literal["nats_per_token", "nats_per_sequence"]


@dataclass(frozen=True, slots=True)
class BatchKL:
    """One KL of a batch, with what is needed to judge it."""

    value: float
    """In `unit`; NaN or infinite if a counted token was."""
    unit: KnownUnit
    standard_error: float | None
    """Of `value`, over sequences, in `unit`; None for a single sequence or a value that is not finite."""
    n_sequences: int
    """Sequences in the batch."""
    mean_length: float
    """Counted tokens per sequence; KL per sequence = KL per token x mean length."""


def reduce_to_sequence(per_token: Tensor, *, mask: Tensor) -> Tensor:
    """Sum over the counted tokens of each sequence: by the chain rule, KL per token sums to KL per sequence.

    Args:
        per_token: nats, [n_sequences, n_tokens]; what stands at positions that do not count never shows, NaN included.
        mask: bool, same shape, True = counts.

    Returns:
        Nats per sequence, [n_sequences]; 0 for a sequence without counted tokens.

    Raises:
        EstimatorError: shapes that differ or are not two-dimensional, a mask that is not bool.
    """
    if per_token.ndim != 2 or per_token.shape != mask.shape:
        raise EstimatorError(
            f"per_token and mask must be of one shape, [n_sequences, n_tokens]; got {tuple(per_token.shape)} and {tuple(mask.shape)}"
        )
    if mask.dtype != torch.bool:
        raise EstimatorError(f"mask must be bool, True = counts; got {mask.dtype}. For a 0/1 attention mask pass mask.bool()")
    return torch.where(mask, per_token, 0).sum(-1)


def reduce_to_batch(per_token: Tensor, *, mask: Tensor, unit: KnownUnit = "nats_per_sequence") -> BatchKL:
    """Mean over a batch, and how far it may be off by the luck of which sequences were sampled.

    With s_i the nats and t_i the counted tokens of sequence i of n:

        nats_per_sequence   K = sum s_i / n         SE = sqrt(sum (s_i - K)^2 / (n (n - 1)))
        nats_per_token      K = sum s_i / sum t_i   SE = sqrt(n / (n - 1) * sum (s_i - K t_i)^2) / sum t_i

    The second is a ratio of two means; its SE is the delta method's (Cochran 1977, Sampling Techniques, section 2.11). Tokens of one sequence
    depend on each other, so the sequences are what is counted, in either unit.

    Args:
        per_token: nats, [n_sequences, n_tokens].
        mask: bool, same shape, True = counts.
        unit: of the value and its standard error.

    Raises:
        EstimatorError: as `reduce_to_sequence`; no counted token at all; a unit that is neither of the two.
    """
    if unit not in ("nats_per_sequence", "nats_per_token"):
        raise EstimatorError(f"unit must be nats_per_sequence or nats_per_token; got {unit!r}")
    nats = reduce_to_sequence(per_token, mask=mask).to("cpu", torch.float64)
    lengths = mask.sum(-1).to("cpu", torch.float64)
    n, n_counted = len(nats), lengths.sum().item()
    if n_counted == 0:
        raise EstimatorError(f"a KL needs at least one token that counts; got a mask of shape {tuple(mask.shape)} without any True")
    sizes = lengths if unit == "nats_per_token" else torch.ones_like(nats)
    value = (nats.sum() / sizes.sum()).item()
    standard_error = None
    if n > 1 and math.isfinite(value):
        residuals = nats - value * sizes
        standard_error = math.sqrt(n / (n - 1) * residuals.square().sum().item()) / sizes.sum().item()
    return BatchKL(value=value, unit=unit, standard_error=standard_error, n_sequences=n, mean_length=n_counted / n)
