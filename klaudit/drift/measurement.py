"""KL(policy || reference) of a model in training: the policy's own completions, scored by both from their logits.

What a trainer holds may be wrapped, replaced in part, or switched by an adapter, so that only its logits can be believed. Saved models are
measured by `shard`, which needs no logits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from klaudit.drift.interval import estimate_mean
from klaudit.drift.summary import FLOORS
from klaudit.kl.estimators import estimate_k1, estimate_k3
from klaudit.kl.exact import estimate_full
from klaudit.kl.reduce import reduce_to_sequence
from klaudit.models.language_model import LanguageModel
from klaudit.models.sampling import Rollout, sample_completions
from klaudit.models.scoring import gather_logprobs, score_completions
from klaudit.records.series import Estimator


@dataclass(frozen=True, slots=True)
class Measured:
    """Drift by one estimator: mean over sequences, in nats per sequence, with a 95% interval over prompts."""

    estimator: Estimator
    value: float
    """NaN or infinite if the models' numbers were."""
    low: float
    high: float
    standard_error: float | None
    """Cluster-robust over prompts; None for a value that is not finite."""
    n_sequences: int
    n_prompts: int
    """Different prompts: the independent ones among the sequences."""
    mean_length: float
    """Tokens a sequence, end-of-sequence counted."""


@dataclass(frozen=True, eq=False)
class SequenceDrift:
    """Drift of every sampled sequence, before any mean."""

    nats: Mapping[Estimator, list[float]]
    """By estimator, [n_sequences], nats per sequence."""
    lengths: list[int]
    """Tokens, [n_sequences]."""
    prompts: tuple[str, ...]
    """[n_sequences]."""


@torch.no_grad()
def measure_sequences(
    policy: LanguageModel,
    reference: LanguageModel,
    *,
    prompts: tuple[str, ...],
    max_new_tokens: int,
    seed: int,
    batch_size: int,
    temperature: float = 1.0,
) -> SequenceDrift:
    """Sample one completion per prompt and measure each.

    The same arguments on the same machine give the same numbers; another `batch_size` draws other completions from the same distribution.

    Args:
        policy: the model that is sampled from, dropout off.
        reference: of the same vocabulary, on the same device.
        prompts: one completion each.
        max_new_tokens: completions stop here when end-of-sequence does not come before.
        seed: of the sampling.
        batch_size: sequences sampled and scored together; most memory goes into their logits, twice [batch_size, max_new_tokens, vocabulary].
        temperature: sampled and scored at; 1 is the model itself.

    Raises:
        InvalidConfig: no prompts, a length or temperature out of range.
    """
    generator = torch.Generator(device=policy.model.device).manual_seed(seed)
    nats: dict[Estimator, list[float]] = {estimator: [] for estimator in FLOORS}
    lengths: list[int] = []
    for start in range(0, len(prompts), batch_size):
        rollout = sample_completions(
            policy,
            prompts=prompts[start : start + batch_size],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            generator=generator,
        )
        for estimator, per_token in estimate_tokens(policy, reference, rollout=rollout, temperature=temperature).items():
            nats[estimator] += reduce_to_sequence(per_token.double(), mask=rollout.mask).tolist()
        lengths += rollout.mask.sum(dim=-1).tolist()
    return SequenceDrift(nats=nats, lengths=lengths, prompts=prompts)


def estimate_tokens(policy: LanguageModel, reference: LanguageModel, *, rollout: Rollout, temperature: float) -> dict[Estimator, Tensor]:
    """Per-token KL of sampled completions by estimator, nats, each [n_sequences, n_tokens]; undefined where the rollout's mask is False."""
    policy_logits = score_completions(policy.model, rollout=rollout, temperature=temperature).logits
    reference_logits = score_completions(reference.model, rollout=rollout, temperature=temperature).logits
    policy_logprobs = gather_logprobs(policy_logits, token_ids=rollout.completion_ids)
    reference_logprobs = gather_logprobs(reference_logits, token_ids=rollout.completion_ids)
    return {
        "full": estimate_full(policy_logits, reference_logits=reference_logits),
        "k1": estimate_k1(policy_logprobs, reference_logprobs=reference_logprobs),
        "k3": estimate_k3(policy_logprobs, reference_logprobs=reference_logprobs),
    }


def summarise_drift(drift: SequenceDrift, *, estimator: Estimator) -> Measured:
    """Mean over sequences with its 95% interval, prompts as clusters."""
    mean = estimate_mean(drift.nats[estimator], clusters=drift.prompts, floor=FLOORS[estimator])
    return Measured(
        estimator=estimator,
        value=mean.value,
        low=mean.low,
        high=mean.high,
        standard_error=mean.standard_error,
        n_sequences=len(drift.lengths),
        n_prompts=mean.n_clusters,
        mean_length=sum(drift.lengths) / len(drift.lengths),
    )
