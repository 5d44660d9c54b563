"""The output head of a loaded model, taken out so that hidden states can be projected onto the vocabulary a tile at a time.

What lies between the last hidden state and the logits differs by family (Gemma 2 soft-caps, Cohere multiplies, Granite divides) and is written
nowhere but in each model's `forward`. So a head is believed only once it has given the model's own logits on a few tokens.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from klaudit.errors import UnsupportedHead
from klaudit.kl.output_head import OutputHead
from klaudit.models.body import get_body

N_PROBES = 8
"""Tokens that a head is tried on."""

SOFTCAPS = ("final_logit_softcapping", "logit_softcapping", "logits_soft_cap")
"""What configs call the bound on logits; transformers 5.23 modeling_gemma2.py:519 and everything made after it."""

MULTIPLIERS = ("logit_scale", "logits_scaling", "lm_head_multiplier")
"""What configs call a factor on logits: modeling_cohere.py:495, modeling_hyperclovax.py:493, modeling_falcon_h1.py:1170 of transformers 5.23."""

DIVISORS = ("logits_scaling",)
"""Granite divides by what HyperCLOVA X multiplies with (modeling_granite.py:486)."""

TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Largest difference from the model's own logits, relative to the largest logit; 16-bit weights round to 2e-2."""


@torch.no_grad()
def find_output_head(model: PreTrainedModel) -> OutputHead:
    """The head that turns the hidden states of `score_hidden` into the logits of `model`, checked against the model on a few tokens.

    The head shares the model's weights; nothing is copied.

    Raises:
        UnsupportedHead: the model has no output matrix, or does with its logits what no OutputHead does. Its logits can still be asked for.
    """
    embeddings: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    weight = getattr(embeddings, "weight", None)
    if weight is None or weight.ndim != 2:
        raise UnsupportedHead(f"{_name(model)} has no output matrix of its own (get_output_embeddings() gives {type(embeddings).__name__})")
    input_ids = torch.linspace(0, _count_inputs(model) - 1, N_PROBES, device=model.device).long()[None]
    hidden, logits = _read_once(model, input_ids)
    if hidden.shape[-1] != weight.shape[1]:
        raise UnsupportedHead(
            f"{_name(model)} projects its hidden states of {hidden.shape[-1]} numbers to {weight.shape[1]} before its head"
        )
    for head in _list_candidates(model.config.get_text_config(), weight=weight, bias=getattr(embeddings, "bias", None)):
        fitting = head.cut(logits.shape[-1]) if logits.shape[-1] < head.n_vocabulary else head
        if _agrees(fitting.project(hidden), logits, tolerance=TOLERANCES.get(weight.dtype, 2e-2)):
            return fitting
    raise UnsupportedHead(
        f"{_name(model)} does something to its logits that is neither a bias, a factor, nor a soft cap that its config names"
    )


def _read_once(model: PreTrainedModel, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Last hidden state and the logits in float32, of one forward where that goes through the body as a whole."""
    body, seen = get_body(model), []
    hook = body.register_forward_hook(lambda _body, _inputs, output: seen.append(output))
    try:
        logits: Tensor = model(input_ids=input_ids, use_cache=False).logits
    finally:
        hook.remove()
    # OPT's forward calls its decoder past the body
    output = seen[-1] if seen else body(input_ids=input_ids, use_cache=False)
    return output.last_hidden_state, logits.float()


def _list_candidates(config: Any, *, weight: Tensor, bias: Tensor | None) -> Iterator[OutputHead]:
    softcap = next((float(cap) for name in SOFTCAPS if (cap := getattr(config, name, None))), None)
    factors = [1.0]
    factors += [1 / float(number) for name in DIVISORS if (number := getattr(config, name, None))]
    factors += [float(number) for name in MULTIPLIERS if (number := getattr(config, name, None))]
    for factor in factors:
        yield OutputHead(weight, bias, softcap, factor)


def _agrees(logits: Tensor, expected: Tensor, *, tolerance: float) -> bool:
    if logits.shape != expected.shape:
        return False
    finite = expected[expected.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 1.0
    # weights that have become NaN are a finding about the run, not about the head
    return torch.allclose(logits, expected, rtol=0.0, atol=tolerance * max(scale, 1e-6), equal_nan=True)


def _count_inputs(model: PreTrainedModel) -> int:
    embeddings: Any = model.get_input_embeddings()
    return int(embeddings.weight.shape[0])


def _name(model: PreTrainedModel) -> str:
    return f"{type(model).__name__} ({model.config.model_type})"
