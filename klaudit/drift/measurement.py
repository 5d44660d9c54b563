"""KL(policy || reference) on a prompt set: the policy's own completions, scored by both."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from klaudit.drift.interval import estimate_mean
from klaudit.drift.prompt_set import PromptSet
from klaudit.errors import InvalidConfig
from klaudit.kl.estimators import estimate_k1, estimate_k3
from klaudit.kl.exact import estimate_full
from klaudit.kl.reduce import reduce_to_sequence
from klaudit.models.language_model import LanguageModel
from klaudit.models.sampling import Rollout, sample_completions
from klaudit.models.scoring import gather_logprobs, score_completions
from klaudit.records.series import Estimator

FLOORS: Mapping[Estimator, float] = {"full": 0.0, "k1": -math.inf, "k3": 0.0}
"""What is measured, and the least value that it can take: k1 of a sequence may be negative, the other two not."""

Progress = Callable[[int, int], None]
"""Called with the sequences done and their total."""


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


def measure_drift(
    policy: LanguageModel,
    reference: LanguageModel,
    *,
    prompts: PromptSet,
    max_new_tokens: int,
    samples_per_prompt: int,
    seed: int,
    batch_size: int,
    temperature: float = 1.0,
    on_progress: Progress | None = None,
) -> tuple[Measured, ...]:
    """Estimate KL(policy || reference) of whole completions by `full`, k1 and k3, from the same samples.

    The expectation is over prompts and over completions of at most `max_new_tokens` tokens; the interval speaks of prompts like these, so
    more samples of the same prompts narrow it only so far. The same settings on the same machine give the same numbers; another
    `batch_size` draws other completions from the same distribution.

    Args:
        policy: the model that is sampled from, dropout off.
        reference: of the same vocabulary, on the same device.
        prompts: at least two different ones.
        max_new_tokens: completions stop here when end-of-sequence does not come before.
        samples_per_prompt: completions of each prompt.
        seed: of the sampling.
        batch_size: sequences sampled and scored together; most memory goes into their logits, twice [batch_size, max_new_tokens, vocabulary].
        temperature: sampled and scored at; 1 is the model itself.
        on_progress: called after every batch.

    Raises:
        InvalidConfig: different vocabularies, fewer than two different prompts, a count below 1, a temperature not above 0.
    """
    require_same_vocabulary(policy, reference=reference)
    if len(set(prompts.prompts)) < 2:
        raise InvalidConfig(f"A confidence interval over prompts needs at least 2 different ones; prompt set {prompts.name!r} holds 1")
    if samples_per_prompt < 1 or batch_size < 1:
        raise InvalidConfig(f"Expected samples_per_prompt and batch_size of 1 or more; got {samples_per_prompt!r} and {batch_size!r}")
    drift = measure_sequences(
        policy,
        reference,
        prompts=tuple(prompt for prompt in prompts.prompts for _ in range(samples_per_prompt)),
        max_new_tokens=max_new_tokens,
        seed=seed,
        batch_size=batch_size,
        temperature=temperature,
        on_progress=on_progress,
    )
    return tuple(summarise_drift(drift, estimator=estimator) for estimator in FLOORS)


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
    on_progress: Progress | None = None,
) -> SequenceDrift:
    """Sample one completion per prompt and measure each; arguments as for `measure_drift`.

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
        if on_progress is not None:
            on_progress(len(lengths), len(prompts))
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


def require_same_vocabulary(policy: LanguageModel, *, reference: LanguageModel) -> None:
    """Refuse two models whose token ids do not mean the same: their KL would be a number without a meaning.

    Raises:
        InvalidConfig: another number of logits, or another token behind an id.
    """
    sizes = policy.model.config.vocab_size, reference.model.config.vocab_size
    remedy = "Measure a checkpoint against the model that it was trained from."
    if sizes[0] != sizes[1]:
        raise InvalidConfig(
            f"{policy.name} and {reference.name} must share a vocabulary; they have {sizes[0]} and {sizes[1]} tokens. {remedy}"
        )
    of_policy, of_reference = policy.tokenizer.get_vocab(), reference.tokenizer.get_vocab()
    if of_policy != of_reference:
        token, token_id = min(of_policy.items() ^ of_reference.items(), key=lambda item: (item[1], item[0]))
        raise InvalidConfig(
            f"{policy.name} and {reference.name} must share a tokenizer; {token!r} with id {token_id} is in only one of them. {remedy}"
        )
