"""Invented sequences: what a shard holds, without a model."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from klaudit.records import DriftShard, MeasuredSequence


def make_sequence(full: Sequence[float] = (0.2, 0.1), **changes: Any) -> MeasuredSequence:
    """Tokens of the given KL, in nats; k1 is 0 unless log-probabilities are given."""
    n = len(full)
    fields: dict[str, Any] = {
        "prompt": "a",
        "prompt_index": 0,
        "slice": None,
        "weight": 1.0,
        "sample": 0,
        "sampler": "policy",
        "tokens": ("x",) * n,
        "token_ids": (1,) * n,
        "full": tuple(full),
        "policy_logprobs": (-1.0,) * n,
        "reference_logprobs": (-1.0,) * n,
        "policy_entropy": (1.0,) * n,
    }
    return MeasuredSequence(**fields | changes)


def make_shard(*sequences: MeasuredSequence, name: str = "one") -> DriftShard:
    return DriftShard(key=f"sha256:{hashlib.sha256(name.encode()).hexdigest()}", sequences=sequences)


def draw_slices(
    levels: dict[str | None, float], *, seed: int, n_prompts: int = 8, n_samples: int = 4, n_tokens: int = 8, deviation: float = 0.5
) -> list[MeasuredSequence]:
    """Slices whose prompts have log-normal KL around a level, nats per token, and completions that scatter around their prompt by a third."""
    rng = np.random.default_rng(seed)
    sequences: list[MeasuredSequence] = []
    for name, level in levels.items():
        for number in range(n_prompts):
            of_prompt = level * np.exp(deviation * rng.standard_normal())
            for sample in range(n_samples):
                full = of_prompt * np.exp(0.3 * rng.standard_normal()) * rng.gamma(1.0, 1.0, n_tokens)
                sequences.append(
                    make_sequence(full.tolist(), prompt=f"{name} {number}", prompt_index=len(sequences), slice=name, sample=sample)
                )
    return sequences
