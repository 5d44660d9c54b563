"""How well a model predicts given text: total nats of passages, from which perplexity is exp(nats / tokens)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from klaudit.errors import UnsupportedHead
from klaudit.kl.output_head import OutputHead
from klaudit.models.batches import run_in_batches
from klaudit.models.body import get_body
from klaudit.models.encoding import encode_text
from klaudit.models.language_model import LanguageModel
from klaudit.models.output_head import find_output_head
from klaudit.models.scoring import gather_logprobs

LONGEST_WINDOW = 1024
"""Tokens read together where the context would allow more."""

CHUNK_ELEMENTS = 1 << 24
"""Logits held together: 64 MB."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one passage. Its first tokens are context; the last `n_counted` are predicted and counted."""

    passage: int
    token_ids: tuple[int, ...]
    n_counted: int


def measure_nats(language_model: LanguageModel, passages: Sequence[str], *, batch_size: int = 8) -> list[tuple[float, int]]:
    """Negative log-likelihood of each passage, nats, and the tokens that it is over.

    The first token of a passage is given and not predicted, whether it is a beginning-of-text token or not. A passage longer than the window is
    read in windows that overlap by half, so that no token but the first ones is predicted from less than half a window (strided evaluation).

    Args:
        passages: texts; one of less than two tokens gives (0.0, 0).
        batch_size: windows read together; halved where memory does not hold them.

    Raises:
        InvalidConfig: a token that the model has no row for.
        OutOfMemory: not even one window fits.
    """
    size = min(language_model.n_context or LONGEST_WINDOW, LONGEST_WINDOW)
    windows = [
        window
        for place, passage in enumerate(passages)
        for window in cut_windows(encode_text(language_model, passage), passage=place, size=size)
    ]
    try:
        head: OutputHead | None = find_output_head(language_model.model)
    except UnsupportedHead:
        head = None
    nats = run_in_batches(
        windows,
        batch_size,
        lambda batch: _measure_windows(language_model, batch, head=head),
        lengths=[len(window.token_ids) for window in windows],
        describe=lambda window: f"a window of {len(window.token_ids)} tokens of text, read by {language_model.name}",
    )
    totals, counts = [0.0] * len(passages), [0] * len(passages)
    for window, one in zip(windows, nats, strict=True):
        totals[window.passage] += one
        counts[window.passage] += window.n_counted
    return list(zip(totals, counts, strict=True))


def cut_windows(token_ids: Sequence[int], *, passage: int, size: int) -> list[Window]:
    """Windows of at most `size` tokens in which every token but the first is counted once."""
    windows: list[Window] = []
    n_counted = 1
    while n_counted < len(token_ids):
        end = min(n_counted + (size // 2 if windows else size - 1), len(token_ids))
        start = max(0, end - size)
        windows.append(Window(passage=passage, token_ids=tuple(token_ids[start:end]), n_counted=end - n_counted))
        n_counted = end
    return windows


@torch.no_grad()
def _measure_windows(language_model: LanguageModel, windows: Sequence[Window], *, head: OutputHead | None) -> list[float]:
    width = max(len(window.token_ids) for window in windows)
    fill = language_model.fill_token_id
    device = language_model.model.device
    ids = torch.tensor([[*window.token_ids, *[fill] * (width - len(window.token_ids))] for window in windows], device=device)
    mask = torch.tensor([[True] * len(window.token_ids) + [False] * (width - len(window.token_ids)) for window in windows], device=device)
    if head is None:
        states: Tensor = language_model.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    else:
        states = get_body(language_model.model)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    counted = torch.zeros_like(mask)
    for row, window in enumerate(windows):
        end = len(window.token_ids)
        counted[row, end - window.n_counted : end] = True
    predicting = counted[:, 1:]
    nats = torch.zeros(predicting.shape, dtype=torch.float64)
    nats[predicting.cpu()] = _sum_chunks(states[:, :-1][predicting], ids[:, 1:][predicting], head=head)
    return [float(total) for total in nats.sum(dim=1)]


def _sum_chunks(states: Tensor, token_ids: Tensor, *, head: OutputHead | None) -> Tensor:
    """Nats of each token, float64 [n_tokens] on the CPU."""
    n_vocabulary = states.shape[-1] if head is None else head.n_vocabulary
    step = max(1, CHUNK_ELEMENTS // n_vocabulary)
    parts = []
    for start in range(0, len(states), step):
        part = states[start : start + step]
        logits = part.float() if head is None else head.project(part)
        parts.append(-gather_logprobs(logits, token_ids=token_ids[start : start + step]).double().cpu())
    return torch.cat(parts)
