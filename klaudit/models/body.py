"""A causal language model without its output head: what every token goes through before the vocabulary."""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from klaudit.errors import UnsupportedHead


def get_body(model: PreTrainedModel) -> Any:
    """The module that ends in the last hidden state, its norm included.

    Raises:
        UnsupportedHead: the model is in one piece.
    """
    body: Any = model.base_model
    if body is model:
        raise UnsupportedHead(f"{type(model).__name__} ({model.config.model_type}) cannot be run without its output head")
    return body


def place_tokens(model: PreTrainedModel, attention_mask: Tensor, *, n_tokens: int) -> dict[str, Tensor]:
    """`position_ids` of the last `n_tokens` columns, for models that take any.

    Under left padding a token's position is the number of real tokens before it, not its column.
    """
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return {}
    return {"position_ids": (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -n_tokens:]}


def find_distinct(prompt_ids: Tensor, *, prompt_mask: Tensor) -> tuple[Tensor, Tensor]:
    """One row of each group of equal prompts, and for every prompt the place of its group: `prompt_ids[rows][places]` are all prompts again.

    Both int64; all prompts as they stand where no two are equal.
    """
    n = len(prompt_ids)
    everything = torch.arange(n, device=prompt_ids.device)
    distinct, places = torch.unique(prompt_ids.masked_fill(~prompt_mask, -1), dim=0, return_inverse=True)
    if len(distinct) == n:
        return everything, everything
    return torch.empty_like(everything[: len(distinct)]).scatter_(0, places, everything), places
