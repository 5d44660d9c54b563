"""One forward over prompt and completion, projected onto the vocabulary only where the completion is predicted."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from klaudit.models.sampling import Rollout


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


def gather_logprobs(logits: Tensor, *, token_ids: Tensor) -> Tensor:
    """Log-probability of each token, nats, [n_sequences, n_tokens].

    logit minus logsumexp: the whole log-softmax, as large as the logits, is never kept.
    """
    chosen = logits.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.logsumexp(dim=-1)
