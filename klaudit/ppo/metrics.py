"""What a step says about its texts and its critic; pure."""

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor


def measure_distinct_2(sequences: Iterable[list[int]]) -> float | None:
    """Distinct bigrams over all bigrams of the batch, in [0, 1]; None where no text has two tokens. Source: Li 2016, arXiv 1510.03055, section 5.

    Args:
        sequences: token ids of each completion, padding left out.
    """
    bigrams = [bigram for sequence in sequences for bigram in pairwise(sequence)]
    return len(set(bigrams)) / len(bigrams) if bigrams else None


def explain_variance(returns: Tensor, *, values: Tensor, mask: Tensor) -> float | None:
    """1 - Var(returns - values) / Var(returns) over the mask: 1 is a perfect critic, 0 one that says nothing; None where returns do not vary.

    Source: openai/baselines, common/math_util.py, explained_variance.
    """
    counted = returns[mask]
    variance = counted.var(correction=0)
    if variance == 0:
        return None
    return float(1 - (counted - values[mask]).var(correction=0) / variance)


def deviate(scores: Tensor) -> float | None:
    """Standard deviation over the batch, with n - 1; None for a single sequence."""
    return float(scores.std()) if len(scores) > 1 else None


def list_tokens(token_ids: Tensor, *, mask: Tensor) -> list[list[int]]:
    """Token ids of each row, padding left out."""
    return [row[counts].tolist() for row, counts in zip(token_ids, mask, strict=True)]


def average_present(numbers: list[float]) -> float:
    """Mean; a NaN among them shows in it."""
    return float(torch.tensor(numbers, dtype=torch.float64).mean())
