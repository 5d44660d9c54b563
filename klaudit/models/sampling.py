"""Batched sampling with a key-value cache, written out: left padding, no truncation of the distribution."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import DynamicCache

from klaudit.errors import InvalidConfig
from klaudit.models.language_model import LanguageModel


@dataclass(frozen=True, eq=False)
class Rollout:
    """Prompts and what was sampled after them. Prompts are padded on the left, completions on the right."""

    prompts: tuple[str, ...]
    completions: tuple[str, ...]
    """Text of each completion, special tokens left out."""
    prompt_ids: Tensor
    """int64 [n_sequences, n_prompt_tokens]."""
    prompt_mask: Tensor
    """bool [n_sequences, n_prompt_tokens], True on prompt tokens."""
    completion_ids: Tensor
    """int64 [n_sequences, n_tokens]."""
    mask: Tensor
    """bool [n_sequences, n_tokens], True up to and including end-of-sequence."""
    ended_with_eos: Tensor
    """bool [n_sequences]; False where the token limit cut the text."""

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: Sequence[int]) -> "Rollout":
        """The sequences at `rows`, in that order."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.completion_ids.device)
        tensors = {name: getattr(self, name)[index] for name in ("prompt_ids", "prompt_mask", "completion_ids", "mask", "ended_with_eos")}
        return replace(self, prompts=tuple(self.prompts[i] for i in rows), completions=tuple(self.completions[i] for i in rows), **tensors)


@torch.no_grad()
def sample_completions(
    language_model: LanguageModel,
    *,
    prompts: Sequence[str],
    max_new_tokens: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Rollout:
    """Sample one completion per prompt from softmax(logits / temperature).

    There is no top-k and no top-p: KL estimators are unbiased only where the sampled distribution is the scored one.

    Args:
        prompts: texts, none empty.
        max_new_tokens: completions stop here when end-of-sequence does not come before.
        temperature: above 0.
        generator: source of randomness on the model's device; None takes torch's global one.

    Raises:
        InvalidConfig: no prompts, an empty prompt, a temperature or length out of range.
    """
    if max_new_tokens < 1 or not temperature > 0:
        raise InvalidConfig(f"Sampling needs max_new_tokens >= 1 and temperature > 0; got {max_new_tokens!r} and {temperature!r}")
    prompt_ids, prompt_mask = encode_prompts(language_model, prompts=prompts)
    model, device = language_model.model, language_model.model.device
    eos = torch.tensor(language_model.eos_token_ids, dtype=torch.long, device=device)
    cache = DynamicCache(config=model.config)
    # Under left padding a token's position is the number of real tokens before it, not its column.
    position_ids = (prompt_mask.long().cumsum(dim=1) - 1).clamp(min=0)
    attention_mask, input_ids = prompt_mask, prompt_ids
    unfinished = torch.ones(len(prompts), dtype=torch.bool, device=device)
    sampled: list[Tensor] = []
    counted: list[Tensor] = []
    while len(sampled) < max_new_tokens and bool(unfinished.any()):
        logits = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        token = draw_tokens(logits.float() / temperature, generator=generator)
        input_ids = token.where(unfinished[:, None], torch.full_like(token, language_model.fill_token_id))
        sampled.append(input_ids)
        counted.append(unfinished[:, None])
        attention_mask = torch.cat([attention_mask, unfinished[:, None]], dim=1)
        position_ids = position_ids[:, -1:] + 1
        unfinished = unfinished & ~torch.isin(input_ids[:, 0], eos)
    completion_ids, mask = torch.cat(sampled, dim=1), torch.cat(counted, dim=1)
    return Rollout(
        prompts=tuple(prompts),
        completions=decode_completions(language_model, completion_ids=completion_ids, mask=mask),
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        completion_ids=completion_ids,
        mask=mask,
        ended_with_eos=~unfinished,
    )


def draw_tokens(logits: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """One token per row of logits [n_sequences, vocabulary], int64 [n_sequences, 1], by inverting the cumulative distribution.

    One uniform number per token instead of one per vocabulary entry. Rows that are not finite give some token instead of an error:
    a run whose weights have become NaN goes on, and shows it.
    """
    dtype = torch.float32 if logits.device.type == "mps" else torch.float64
    cumulative = torch.softmax(logits, dim=-1).to(dtype).cumsum(dim=-1)
    uniform = torch.rand(len(logits), 1, dtype=dtype, device=logits.device, generator=generator)
    tokens = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return tokens.clamp(max=logits.shape[-1] - 1)


def encode_prompts(language_model: LanguageModel, *, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids and mask, int64 and bool [n_sequences, n_prompt_tokens], padded on the left so that every prompt ends in the last column.

    Raises:
        InvalidConfig: no prompts, or one that has no tokens.
    """
    encoded: list[list[int]] = [language_model.tokenizer.encode(prompt) for prompt in prompts]
    if not encoded or not all(encoded):
        raise InvalidConfig(f"Sampling needs at least one prompt, and none of them empty; got {list(prompts)!r}")
    width = max(len(ids) for ids in encoded)
    fill = language_model.fill_token_id
    ids = torch.tensor([[fill] * (width - len(row)) + row for row in encoded], dtype=torch.long)
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in encoded])
    device = language_model.model.device
    return ids.to(device), mask.to(device)


def decode_completions(language_model: LanguageModel, *, completion_ids: Tensor, mask: Tensor) -> tuple[str, ...]:
    """Text of each completion, special tokens left out."""
    rows = (ids[counts].tolist() for ids, counts in zip(completion_ids, mask, strict=True))
    return tuple(str(language_model.tokenizer.decode(row, skip_special_tokens=True)) for row in rows)
