"""One forward over prompt and completion, projected onto the vocabulary only where the completion is predicted, or not at all."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from klaudit.models.body import find_distinct, get_body, place_tokens
from klaudit.models.sampling import Rollout

ATTENTION = (DynamicLayer, DynamicSlidingWindowLayer)
"""Caches of layers that attend to keys and values, however many tokens come at a time."""


@dataclass(frozen=True, eq=False)
class CompletionScores:
    """What a model says at each completion position."""

    logits: Tensor
    """float [n_sequences, n_tokens, vocabulary], divided by the temperature: position t is the distribution that token t was drawn from."""
    hidden: Tensor
    """float [n_sequences, n_tokens, hidden size]: last hidden state that predicts token t, which a value head reads."""


def score_completions(model: PreTrainedModel, *, rollout: Rollout, temperature: float = 1.0) -> CompletionScores:
    """Score the completions of a rollout. Gradients flow unless the caller turns them off.

    The vocabulary is where a small model spends its time and memory, so prompt positions are never projected onto it.

    Args:
        model: policy or reference, with the rollout's tokenizer.
        rollout: left-padded prompts, right-padded completions.
        temperature: the one that was sampled with; logits are divided by it (TRL 1.12.0 ppo_trainer.py:713 adds 1e-7 to it; here it is exact).
    """
    n_tokens = rollout.completion_ids.shape[1]
    # The last completion token predicts nothing that was sampled.
    input_ids = torch.cat([rollout.prompt_ids, rollout.completion_ids], dim=1)[:, :-1]
    attention_mask = torch.cat([rollout.prompt_mask, rollout.mask], dim=1)[:, :-1]
    position_ids = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)
    output = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids,
        use_cache=False,
        output_hidden_states=True,
        logits_to_keep=n_tokens,
    )
    logits: Tensor = output.logits.float()
    if temperature != 1.0:
        logits = logits / temperature
    return CompletionScores(logits=logits, hidden=output.hidden_states[-1][:, -n_tokens:])


@torch.no_grad()
def score_hidden(model: PreTrainedModel, *, rollout: Rollout) -> Tensor:
    """Last hidden state that predicts each completion token, [n_sequences, n_tokens, hidden size], after the model's last norm.

    Nothing is projected onto the vocabulary: `find_output_head` gives what does that. A prompt that stands there several times is read once.
    Rows are undefined where the rollout's mask is False.

    Args:
        model: policy or reference, with the rollout's tokenizer.
        rollout: left-padded prompts, right-padded completions.

    Raises:
        UnsupportedHead: a model whose body cannot be run without its head.
    """
    body = get_body(model)
    cache = DynamicCache(config=model.config)
    rows, places = find_distinct(rollout.prompt_ids, prompt_mask=rollout.prompt_mask)
    # The last completion token predicts nothing that was sampled.
    completion_ids, completion_mask = rollout.completion_ids[:, :-1], rollout.mask[:, :-1]

    def read(input_ids: Tensor, attention_mask: Tensor, *, use_cache: bool = True) -> Tensor:
        positions = place_tokens(model, attention_mask, n_tokens=input_ids.shape[1])
        past = cache if use_cache else None
        output = body(input_ids=input_ids, attention_mask=attention_mask, past_key_values=past, use_cache=use_cache, **positions)
        hidden: Tensor = output.last_hidden_state
        return hidden

    everything = torch.cat([rollout.prompt_mask, completion_mask], dim=1)
    # Recurrent layers do not go on from their state by more than one token.
    if len(rows) == len(places) or completion_ids.shape[1] == 0 or any(type(layer) not in ATTENTION for layer in cache.layers):
        ids = torch.cat([rollout.prompt_ids, completion_ids], dim=1)
        return read(ids, everything, use_cache=False)[:, -rollout.completion_ids.shape[1] :]
    first = read(rollout.prompt_ids[rows], rollout.prompt_mask[rows])[places, -1:]
    cache.reorder_cache(places)  # type: ignore[arg-type]
    return torch.cat([first, read(completion_ids, everything)], dim=1)


def gather_logprobs(logits: Tensor, *, token_ids: Tensor) -> Tensor:
    """Log-probability of each token, nats, [n_sequences, n_tokens].

    logit minus logsumexp: the whole log-softmax, as large as the logits, is never kept.
    """
    chosen = logits.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.logsumexp(dim=-1)
