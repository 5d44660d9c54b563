"""Sample the completions of one shard, and measure each at every token."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from klaudit.drift.loaded_model import LoadedModel
from klaudit.drift.plan import Progress, ShardTask, TaskPrompt
from klaudit.drift.vocabulary import find_common_vocabulary, require_same_encoding
from klaudit.errors import InvalidConfig
from klaudit.kl.tiled import Divergence, measure_divergence, measure_divergence_of_logits
from klaudit.models.batches import run_in_batches
from klaudit.models.sampling import Rollout, sample_completions
from klaudit.models.scoring import score_completions, score_hidden
from klaudit.models.uniforms import draw_uniforms
from klaudit.records import DriftShard, MeasuredSequence


@torch.no_grad()
def measure_shard(policy: LoadedModel, reference: LoadedModel, task: ShardTask, *, on_progress: Progress | None = None) -> DriftShard:
    """Sample each completion of the task from its sampler, and score it with both models.

    A completion depends on seed, sampler, prompt and sample number alone: neither on batch size nor on which shard or machine it falls to. Where
    memory runs out the batch size is halved.

    Args:
        policy: `task.checkpoint`.
        reference: `task.reference`.
        task: what to measure.
        on_progress: called after each batch with the sequences of this shard done, and their total.

    Raises:
        InvalidConfig: models that do not share a vocabulary or make other tokens of a prompt, a prompt that does not fit into the context.
        OutOfMemory: not even one sequence fits.
    """
    n_common = find_common_vocabulary(policy.language_model, reference=reference.language_model)
    require_same_encoding(policy.language_model, reference=reference.language_model, texts=(prompt.text for prompt in task.prompts))
    sampler, other = (policy, reference) if task.sampler == "policy" else (reference, policy)
    items = [_Item(prompt, sample) for prompt in task.prompts for sample in range(*task.samples)]
    n_done = 0

    def measure(batch: Sequence[_Item]) -> list[MeasuredSequence]:
        nonlocal n_done
        rollout = _sample(sampler, task, batch)
        measured = _describe(sampler, task, batch, rollout, _compare(sampler, other, rollout, task=task, n_common=n_common))
        n_done += len(batch)
        if on_progress is not None:
            on_progress(n_done, len(items))
        return measured

    lengths = [len(sampler.language_model.tokenizer.encode(item.prompt.text)) for item in items]
    sequences = run_in_batches(
        items, task.settings.batch_size, measure, lengths=lengths, describe=lambda item: f"prompt {item.prompt.text!r:.60}"
    )
    return DriftShard(key=task.key, sequences=tuple(sequences))


@dataclass(frozen=True, slots=True)
class _Item:
    prompt: TaskPrompt
    sample: int


def _sample(sampler: LoadedModel, task: ShardTask, batch: Sequence[_Item]) -> Rollout:
    settings = task.settings
    keys = tuple(_name_stream(task, item) for item in batch)
    return sampler.recall_rollout(
        (keys, settings.max_new_tokens, settings.temperature),
        lambda: sample_completions(
            sampler.language_model,
            prompts=[item.prompt.text for item in batch],
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            uniforms=draw_uniforms(keys, n=settings.max_new_tokens),
            head=sampler.head,
        ),
    )


def _name_stream(task: ShardTask, item: _Item) -> str:
    """Which random numbers a completion is drawn with: all checkpoints share them, so that the difference of two is surer than either."""
    return f"{task.settings.seed}\0{task.sampler}\0{item.sample}\0{item.prompt.occurrence}\0{item.prompt.text}"


def _compare(sampler: LoadedModel, other: LoadedModel, rollout: Rollout, *, task: ShardTask, n_common: int) -> Divergence:
    """KL(sampler || other) at the counted tokens, sequence after sequence; of a model to itself exactly 0."""
    mask = rollout.mask
    token_ids = rollout.completion_ids[mask]
    if int(token_ids.max()) >= n_common:
        raise InvalidConfig(
            f"{sampler.language_model.name} sampled token {int(token_ids.max())}, of which {other.language_model.name} knows nothing: they share "
            f"{n_common} tokens, and what is above is more than padding. Cut both to one vocabulary."
        )
    options: dict[str, Any] = {
        "token_ids": token_ids,
        "temperature": task.settings.temperature,
        "n_top": min(task.settings.n_top, n_common),
    }
    if sampler.head is None or other.head is None:
        logits = _score_logits(sampler, rollout)
        other_logits = logits if other is sampler else _score_logits(other, rollout)
        return measure_divergence_of_logits(logits[:, :n_common], other_logits[:, :n_common], **options)
    # In 16 bits a model's states with a cache and without one differ too much: SmolLM2 is 0.016 nats per 16 tokens away from its own copy in
    # bfloat16, and 0 where both are scored alike.
    kept = rollout.hidden if task.settings.dtype == "float32" else None
    hidden = kept if kept is not None else score_hidden(sampler.language_model.model, rollout=rollout)
    # with a cache and without one, a model's states differ by rounding
    other_hidden = hidden if other is sampler else score_hidden(other.language_model.model, rollout=rollout)
    return measure_divergence(
        hidden[mask],
        sampler.head.cut(n_common),
        reference_hidden=other_hidden[mask],
        reference_head=other.head.cut(n_common),
        **options,
    )


def _score_logits(model: LoadedModel, rollout: Rollout) -> Tensor:
    """Logits of the counted tokens, [n_counted, n_vocabulary]."""
    return score_completions(model.language_model.model, rollout=rollout).logits[rollout.mask]


def _describe(
    sampler: LoadedModel, task: ShardTask, batch: Sequence[_Item], rollout: Rollout, divergence: Divergence
) -> list[MeasuredSequence]:
    of_sampler, of_other = _to_list(divergence.policy_logprobs), _to_list(divergence.reference_logprobs)
    is_policy = task.sampler == "policy"
    policy_logprobs, reference_logprobs = (of_sampler, of_other) if is_policy else (of_other, of_sampler)
    entropy = _to_list(divergence.policy_entropy if is_policy else divergence.reference_entropy)
    token_ids, full = rollout.completion_ids[rollout.mask].tolist(), _to_list(divergence.full)
    top_ids, top_contributions = _to_list(divergence.top_token_ids), _to_list(divergence.top_contributions)
    stops = rollout.mask.sum(dim=1).cumsum(dim=0).tolist()
    return [
        MeasuredSequence(
            prompt=item.prompt.text,
            prompt_index=item.prompt.index,
            slice=item.prompt.slice,
            weight=item.prompt.weight,
            sample=item.sample,
            sampler=task.sampler,
            tokens=sampler.decode_tokens(token_ids[start:stop]),
            token_ids=tuple(token_ids[start:stop]),
            full=tuple(full[start:stop]),
            policy_logprobs=tuple(policy_logprobs[start:stop]),
            reference_logprobs=tuple(reference_logprobs[start:stop]),
            policy_entropy=tuple(entropy[start:stop]),
            top_tokens=tuple(sampler.decode_tokens(row) for row in top_ids[start:stop]),
            top_contributions=tuple(tuple(row) for row in top_contributions[start:stop]),
            ended=bool(has_ended),
        )
        for item, (start, stop), has_ended in zip(batch, pairwise([0, *stops]), rollout.ended_with_eos.tolist(), strict=True)
    ]


def _to_list(values: Tensor | None) -> list[Any]:
    return [] if values is None else values.tolist()
