"""Batched sampling with a key-value cache, written out: left padding, no truncation of the distribution."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from klaudit.errors import InvalidConfig, UnsupportedModel
from klaudit.kl.output_head import OutputHead
from klaudit.models.body import find_distinct, get_body, place_tokens
from klaudit.models.encoding import encode_text
from klaudit.models.language_model import LanguageModel

CROWDED = 0.75
"""Sequences that have ended are taken out of the batch once fewer than this share of it goes on: taking them out copies the cache."""


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
    hidden: Tensor | None = None
    """Last hidden state that predicted each completion token, [n_sequences, n_tokens, hidden size]; None where no head was given to sample with.
    Undefined where the mask is False."""

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: Sequence[int]) -> "Rollout":
        """The sequences at `rows`, in that order."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.completion_ids.device)
        tensors = {name: getattr(self, name)[index] for name in ("prompt_ids", "prompt_mask", "completion_ids", "mask", "ended_with_eos")}
        if self.hidden is not None:
            tensors["hidden"] = self.hidden[index]
        return replace(self, prompts=tuple(self.prompts[i] for i in rows), completions=tuple(self.completions[i] for i in rows), **tensors)


@torch.no_grad()
def sample_completions(
    language_model: LanguageModel,
    *,
    prompts: Sequence[str],
    max_new_tokens: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    uniforms: Tensor | None = None,
    head: OutputHead | None = None,
) -> Rollout:
    """Sample one completion per prompt from softmax(logits / temperature).

    There is no top-k and no top-p: KL estimators are unbiased only where the sampled distribution is the scored one.

    With `uniforms` a completion depends on its prompt and its own row of numbers (`race_tokens`). What else is in the batch matters only through
    rounding: SmolLM2's float32 logits differ by up to 4e-5 between a batch of 8 and one of 1, and of 20,000 tokens drawn at these logits none
    changed, where inverting the cumulative distribution changed 43. A prompt that stands there several times is read once, and sequences that
    have ended leave the batch.

    Args:
        prompts: texts, none empty.
        max_new_tokens: completions stop here when end-of-sequence does not come before.
        temperature: above 0.
        generator: source of randomness on the model's device; None takes torch's global one.
        uniforms: in its place, numbers in [0, 1), float64 [n_sequences, max_new_tokens or more], on any device; see `draw_uniforms`.
        head: what `find_output_head` found; the hidden states that it projects are then kept in the rollout, and need no second forward.

    Raises:
        InvalidConfig: no prompts, an empty prompt, one that does not fit into the context together with its completion, a temperature or length
            out of range, uniforms of another shape.
        UnsupportedModel: an old architecture without a key-value cache.
    """
    _require_settings(len(prompts), max_new_tokens=max_new_tokens, temperature=temperature, uniforms=uniforms)
    prompt_ids, prompt_mask = encode_prompts(language_model, prompts=prompts, n_reserved=max_new_tokens)
    device, shape = prompt_ids.device, (len(prompts), max_new_tokens)
    uniforms = None if uniforms is None else uniforms.to(device)
    batch = _read_prompts(language_model.model, head=head, prompt_ids=prompt_ids, prompt_mask=prompt_mask, once=uniforms is not None)
    eos = torch.tensor(language_model.eos_token_ids, dtype=torch.long, device=device)
    completion_ids = torch.full(shape, language_model.fill_token_id, device=device)
    mask, ended = torch.zeros(shape, dtype=torch.bool, device=device), torch.zeros(shape[0], dtype=torch.bool, device=device)
    hidden = None if batch.hidden is None else batch.hidden.new_zeros(*shape, batch.hidden.shape[-1])
    n_tokens = 0
    while True:
        rows, column = batch.rows, n_tokens
        goes_on = ~ended[rows]
        logits = batch.logits.div_(temperature)
        token = draw_tokens(logits, generator=generator) if uniforms is None else race_tokens(logits, uniforms=uniforms[rows, column])
        token = token.squeeze(1).where(goes_on, language_model.fill_token_id)
        completion_ids[rows, column], mask[rows, column] = token, goes_on
        if hidden is not None and batch.hidden is not None:
            hidden[rows, column] = batch.hidden
        ended[rows] |= torch.isin(token, eos)
        n_tokens += 1
        if n_tokens == max_new_tokens or bool(ended.all()):
            break
        batch.read(token, counted=goes_on, kept=~ended[rows] if uniforms is not None else None)
    return Rollout(
        prompts=tuple(prompts),
        completions=decode_completions(language_model, completion_ids=completion_ids[:, :n_tokens], mask=mask[:, :n_tokens]),
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        completion_ids=completion_ids[:, :n_tokens],
        mask=mask[:, :n_tokens],
        ended_with_eos=ended,
        hidden=None if hidden is None else hidden[:, :n_tokens],
    )


def draw_tokens(logits: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """One token per row of logits [n_sequences, vocabulary], int64 [n_sequences, 1], drawn with one uniform number a row."""
    uniforms = torch.rand(len(logits), 1, dtype=_get_wide_type(logits), device=logits.device, generator=generator)
    return find_tokens(logits, uniforms=uniforms.squeeze(1))


def find_tokens(logits: Tensor, *, uniforms: Tensor) -> Tensor:
    """The token in whose part of the cumulative distribution each uniform number falls, int64 [n_sequences, 1].

    One uniform number per token instead of one per vocabulary entry. Rows that are not finite give some token instead of an error:
    a run whose weights have become NaN goes on, and shows it.

    Args:
        logits: [n_sequences, vocabulary].
        uniforms: in [0, 1), [n_sequences].
    """
    cumulative = torch.softmax(logits, dim=-1).to(_get_wide_type(logits)).cumsum(dim=-1)
    tokens = torch.searchsorted(cumulative, uniforms.to(cumulative.dtype)[:, None] * cumulative[:, -1:], right=True)
    return tokens.clamp(max=logits.shape[-1] - 1)


def race_tokens(logits: Tensor, *, uniforms: Tensor) -> Tensor:
    """The token that comes first where each has an exponential waiting time of rate p, int64 [n_sequences, 1].

    It is drawn from p as by `find_tokens` (Maddison, Tarlow, Minka 2014, A* Sampling), but only a tie can fall to another token by rounding, while a
    cumulative distribution shifts every narrow part of the vocabulary a little. Waiting times are numpy's Philox under the bits of the uniform number.

    Args:
        logits: float32 or wider, [n_sequences, vocabulary].
        uniforms: that name the waiting times, [n_sequences] float64.
    """
    waiting = np.empty(logits.shape[-1])
    winners = []
    # a row at a time stays in the processor's cache, which the whole of them would leave at every pass
    for row, key in zip(logits.cpu(), uniforms.cpu().numpy().view(np.uint64).tolist(), strict=True):
        np.random.Generator(np.random.Philox(key=key)).standard_exponential(out=waiting)
        winners.append(int(np.divide(torch.softmax(row, dim=-1).numpy(), waiting, out=waiting).argmax()))
    return torch.tensor(winners, device=logits.device)[:, None]


def encode_prompts(language_model: LanguageModel, *, prompts: Sequence[str], n_reserved: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids and mask, int64 and bool [n_sequences, n_prompt_tokens], padded on the left so that every prompt ends in the last column.

    Args:
        n_reserved: tokens that the model's context must hold after each prompt.

    Raises:
        InvalidConfig: no prompts, one that has no tokens, one with a token that the model has no row for, or one that leaves no room for
            `n_reserved` tokens.
    """
    encoded = [encode_text(language_model, prompt) for prompt in prompts]
    if not encoded or not all(encoded):
        raise InvalidConfig(f"Sampling needs at least one prompt, and none of them empty; got {list(prompts)!r}")
    _require_room(language_model, prompts=prompts, lengths=[len(ids) for ids in encoded], n_reserved=n_reserved)
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


@dataclass(eq=False)
class _Batch:
    """Sequences that are being written: what the model has read of them, and what it says comes next."""

    model: PreTrainedModel
    head: OutputHead | None
    cache: DynamicCache
    attention_mask: Tensor
    """bool [n_sequences, n_tokens so far]."""
    rows: Tensor
    """Place of each sequence among all, int64 [n_sequences]."""
    logits: Tensor
    """float32 [n_sequences, vocabulary]; the next ones take their place."""
    hidden: Tensor | None
    """[n_sequences, hidden size], where there is a head to project it."""

    def read(self, token: Tensor, *, counted: Tensor, kept: Tensor | None) -> None:
        """Read one more token of each sequence, int64 [n_sequences]; first leave out those that are not `kept` if they are many."""
        self.attention_mask = torch.cat([self.attention_mask, counted[:, None]], dim=1)
        if kept is not None and int(kept.sum()) < CROWDED * len(kept):
            places = kept.nonzero().squeeze(1)
            token, self.rows, self.attention_mask = token[places], self.rows[places], self.attention_mask[places]
            self.cache.reorder_cache(places)  # type: ignore[arg-type]
        self.logits, self.hidden = _predict(
            self.model,
            head=self.head,
            cache=self.cache,
            input_ids=token[:, None],
            attention_mask=self.attention_mask,
            out=self.logits[: len(token)],
        )


def _read_prompts(model: PreTrainedModel, *, head: OutputHead | None, prompt_ids: Tensor, prompt_mask: Tensor, once: bool) -> _Batch:
    """Read prompts; equal ones only `once` where that is asked for."""
    cache, everything = DynamicCache(config=model.config), torch.arange(len(prompt_ids), device=prompt_ids.device)
    rows, places = find_distinct(prompt_ids, prompt_mask=prompt_mask) if once else (everything, everything)
    logits, hidden = _predict(model, head=head, cache=cache, input_ids=prompt_ids[rows], attention_mask=prompt_mask[rows])
    if not any(getattr(layer, "is_initialized", True) for layer in cache.layers):
        raise UnsupportedModel(
            f"{type(model).__name__} ({model.config.model_type}) keeps no cache of what it has read; klaudit cannot sample from it"
        )
    if len(rows) < len(places):
        cache.reorder_cache(places)  # type: ignore[arg-type]
        logits, hidden = logits[places], None if hidden is None else hidden[places]
    return _Batch(model, head, cache, attention_mask=prompt_mask, rows=everything, logits=logits, hidden=hidden)


def _predict(
    model: PreTrainedModel,
    *,
    head: OutputHead | None,
    cache: DynamicCache,
    input_ids: Tensor,
    attention_mask: Tensor,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Logits in float32 of what comes after the last column, in `out` where a head projects them, and the hidden state that it projects."""
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "past_key_values": cache, "use_cache": True}
    inputs |= place_tokens(model, attention_mask, n_tokens=input_ids.shape[1])
    if head is None:
        logits: Tensor = model(**inputs, logits_to_keep=1).logits[:, -1]
        return logits.float(), None
    hidden: Tensor = get_body(model)(**inputs).last_hidden_state[:, -1]
    return head.project(hidden, out=out), hidden


def _require_settings(n_prompts: int, *, max_new_tokens: int, temperature: float, uniforms: Tensor | None) -> None:
    if max_new_tokens < 1 or not temperature > 0:
        raise InvalidConfig(f"Sampling needs max_new_tokens >= 1 and temperature > 0; got {max_new_tokens!r} and {temperature!r}")
    if uniforms is not None and (uniforms.ndim != 2 or len(uniforms) != n_prompts or uniforms.shape[1] < max_new_tokens):
        raise InvalidConfig(f"Sampling needs uniforms of shape [{n_prompts}, {max_new_tokens}]; got {list(uniforms.shape)}")


def _require_room(language_model: LanguageModel, *, prompts: Sequence[str], lengths: Sequence[int], n_reserved: int) -> None:
    n_context = language_model.n_context
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    if n_context is not None and lengths[longest] + n_reserved > n_context:
        raise InvalidConfig(
            f"The prompt {prompts[longest][:60]!r} has {lengths[longest]} tokens; with {n_reserved} new ones it does not fit into the context of "
            f"{language_model.name}, {n_context} tokens. Shorten the prompt or ask for fewer new tokens."
        )


def _get_wide_type(logits: Tensor) -> torch.dtype:
    return torch.float32 if logits.device.type == "mps" else torch.float64
