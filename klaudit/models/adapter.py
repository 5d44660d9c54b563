"""Adapters: a base model and a small difference, made into one model."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from klaudit.errors import IncompleteWeights, MissingExtra, UnsupportedModel

ADAPTER_WEIGHTS = "adapter_model.safetensors"
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
"""What input embeddings are called inside an adapter that brings its own."""


def merge_adapter(base: PreTrainedModel, *, directory: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The base with an adapter's difference added into its weights; `base` is used up.

    Merged, because the result is then a model as any other: no second product in each layer, and an output head of one matrix even where the
    adapter brings its own or changes it. The sum is taken in float32, since 16-bit weights would round away most of a small difference, and only
    then brought to `dtype`.

    Args:
        base: with float32 weights.
        directory: with adapter_config.json and adapter_model.safetensors.
        dtype: type of the merged weights.

    Raises:
        MissingExtra: `peft` is not installed.
        UnsupportedModel: an adapter that is no change of weights, as prompt tuning is none.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtra("Loading an adapter", "train") from error
    embeddings: Any = base.get_input_embeddings()
    n_rows = count_embeddings(directory)
    if n_rows is not None and n_rows != embeddings.weight.shape[0]:
        base.resize_token_embeddings(n_rows, mean_resizing=False)
    adapted: Any = PeftModel.from_pretrained(base, str(directory), torch_device=str(base.device))
    kind = str(adapted.peft_config["default"].peft_type.value)
    if not hasattr(adapted.base_model, "merge_and_unload"):
        raise UnsupportedModel(
            f"{directory} holds an adapter of type {kind}, which changes no weights; klaudit measures adapters that do, such as LoRA"
        )
    merged: PreTrainedModel = adapted.merge_and_unload().to(dtype)
    return merged


def count_embeddings(directory: Path) -> int | None:
    """Rows of the input embeddings that an adapter brings with it; None where it brings none."""
    file = directory / ADAPTER_WEIGHTS
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                if name.endswith("weight") and any(f".{word}." in name for word in EMBEDDINGS) and "lora_" not in name:
                    return int(tensors.get_slice(name).get_shape()[0])
    except SafetensorError as error:
        raise IncompleteWeights(f"{file} cannot be read as safetensors: {error}. Copy it again.") from error
    return None
