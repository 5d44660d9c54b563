"""What a step tells its callbacks: flat numbers, and a few texts. The keys are those of `klaudit.exchange.own_keys`."""

from collections.abc import Mapping, Sequence

import torch

from klaudit.kl.estimators import estimate_k1, estimate_k3
from klaudit.kl.reduce import BatchKL, reduce_to_batch
from klaudit.models.language_model import LanguageModel
from klaudit.ppo.experience import Experience
from klaudit.ppo.metrics import average_present, deviate, explain_variance, list_tokens, measure_distinct_2
from klaudit.ppo.objective import average
from klaudit.ppo.update import MinibatchReport
from klaudit.records import TextSample, TokenScore


def measure_reference_kl(experience: Experience) -> dict[str, BatchKL]:
    """KL(policy || reference) of the policy that sampled the rollout, nats per sequence, by estimator."""
    judgement, mask = experience.judgement, experience.rollout.mask
    logprobs = {"reference_logprobs": judgement.reference_logprobs}
    per_token = {
        "full": judgement.full_kl,
        "k1": estimate_k1(judgement.logprobs, **logprobs),
        "k3": estimate_k3(judgement.logprobs, **logprobs),
    }
    return {name: reduce_to_batch(tokens, mask=mask, unit="nats_per_sequence") for name, tokens in per_token.items()}


def check_sampling(experience: Experience) -> dict[str, BatchKL]:
    """Two means over tokens that are known, 1 and 0, wherever texts come from the distribution that scores them: no top-k, no other temperature.

    `reference_ratio` is q(y) / p(y), `surprisal_gap` is -log p(y) - H(p) in nats. The second needs no drift between policy and reference to show.
    """
    judgement, mask = experience.judgement, experience.rollout.mask
    per_token = {
        "reference_ratio": (judgement.reference_logprobs - judgement.logprobs).exp(),
        "surprisal_gap": -judgement.logprobs - judgement.entropy,
    }
    return {name: reduce_to_batch(tokens, mask=mask, unit="nats_per_token") for name, tokens in per_token.items()}


def report_kl(name: str, kl: BatchKL) -> dict[str, float]:
    """A KL and, where there is one, its standard error under `<name>_se`."""
    error = {} if kl.standard_error is None else {f"{name}_se": kl.standard_error}
    return {name: kl.value, **error}


def report_experience(experience: Experience, *, kl: Mapping[str, BatchKL]) -> dict[str, float]:
    """Rewards, KL and texts of the batch, before any update. What a batch leaves undefined is absent: NaN means that something broke."""
    rollout, judgement = experience.rollout, experience.judgement
    score, kl_penalty = float(experience.scores.mean()), float(experience.penalties.double().mean())
    heldout = {} if experience.heldout_scores is None else {"heldout_score": float(experience.heldout_scores.mean())}
    logs: dict[str, float] = {}
    for estimator, batch in kl.items():
        logs |= report_kl(f"kl_{estimator}", batch)
    for name, check in check_sampling(experience).items():
        logs |= report_kl(name, check)
    undefined_on_some_batches = {
        "score_std": deviate(experience.scores),
        "explained_variance": explain_variance(experience.returns, values=judgement.values, mask=rollout.mask),
        "distinct_2": measure_distinct_2(list_tokens(rollout.completion_ids, mask=rollout.mask)),
    }
    return logs | {
        "beta": experience.beta,
        "score": score,
        **heldout,
        "kl_penalty": kl_penalty,
        "rlhf_reward": score - kl_penalty,
        "entropy": float(average(judgement.entropy, mask=rollout.mask)),
        "response_length": float(rollout.mask.sum(dim=1).float().mean()),
        "eos_fraction": float(rollout.ended_with_eos.float().mean()),
        **{name: value for name, value in undefined_on_some_batches.items() if value is not None},
    }


def report_update(minibatches: Sequence[MinibatchReport], *, kl_update: BatchKL) -> dict[str, float]:
    """Means over the step's minibatches, `ratio_max` and `skipped_minibatches` apart; a NaN among them shows."""
    means = ("policy_loss", "value_loss", "clip_fraction", "ratio", "grad_norm")
    return {
        **report_kl("kl_update", kl_update),
        **{name: average_present([getattr(minibatch, name) for minibatch in minibatches]) for name in means},
        "ratio_max": float(torch.tensor([minibatch.ratio_max for minibatch in minibatches]).max()),
        "skipped_minibatches": float(sum(minibatch.skipped for minibatch in minibatches)),
    }


def draw_samples(experience: Experience, *, policy: LanguageModel, step: int, n_samples: int) -> tuple[TextSample, ...]:
    """The first completions of the batch, token by token; prompts come in random order, so the first are as good as any."""
    return tuple(_describe_sample(experience, policy=policy, step=step, index=i) for i in range(min(n_samples, len(experience.rollout))))


def _describe_sample(experience: Experience, *, policy: LanguageModel, step: int, index: int) -> TextSample:
    rollout, judgement = experience.rollout, experience.judgement
    length = int(rollout.mask[index].sum())
    columns = (
        rollout.completion_ids[index, :length].tolist(),
        judgement.logprobs[index, :length].tolist(),
        judgement.reference_logprobs[index, :length].tolist(),
        judgement.full_kl[index, :length].tolist(),
    )
    tokens = tuple(
        TokenScore(text=str(policy.tokenizer.decode([token])), policy_logprob=policy_logprob, reference_logprob=reference_logprob, kl=kl)
        for token, policy_logprob, reference_logprob, kl in zip(*columns, strict=True)
    )
    return TextSample(
        step=step,
        prompt=rollout.prompts[index],
        completion=rollout.completions[index],
        tokens=tokens,
        index=index,
        score=float(experience.scores[index]),
    )
