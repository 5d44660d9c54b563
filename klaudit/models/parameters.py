"""How far weights moved, layer by layer: read a piece of a tensor at a time, so that neither model need be in memory."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from klaudit.digests import find_weights
from klaudit.errors import IncompleteWeights
from klaudit.models.language_model import LanguageModel, find_model_files, load_language_model
from klaudit.records import LayerDrift

PIECE_ELEMENTS = 1 << 24
"""Numbers of one tensor looked at together: 64 MB a model, unless one row is more."""

LEAST_SHARE = 0.5
"""Of the reference's parameters that must be found in the policy by name and shape; with less the two are not versions of one model."""

NUMBER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")
"""The first number in the path of a parameter is its layer: `model.layers.3.mlp`, `transformer.h.3.attn`."""

NAMES = (("head", ("lm_head", "embed_out", "output", "score")), ("embedding", ("embed", "wte", "wpe")), ("final norm", ("norm", "ln_f")))
"""What parameters outside the layers are called in Llama-like models, GPT-2 and GPT-NeoX."""


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor that is read when it is asked for."""

    shape: tuple[int, ...]
    read: Callable[[slice], Tensor]
    """Rows of it; the whole where it has none."""


def compare_layers(
    policy: str | Path | LanguageModel, reference: str | Path | LanguageModel, *, allow_pickle: bool = False
) -> tuple[LayerDrift, ...]:
    """`||policy - reference|| / ||reference||` of each layer, embedding first and head last.

    Directories with safetensors are read from disk; of an adapter, a GGUF file or a pickle the model is loaded. Tensors that only one side has (a
    value head, an output matrix that the other side ties to its embedding) are left out, and `n_parameters` counts what was compared.

    Args:
        policy: a path, a hub id, or a model in memory.
        reference: the same.
        allow_pickle: as for `load_language_model`.

    Returns:
        Empty where less than half of the reference's parameters have a counterpart of their name and shape.

    Raises:
        ModelNotFound: as `load_language_model`; IncompleteWeights for a damaged file.
    """
    with ExitStack() as files:
        of_policy, of_reference = (_open(source, files=files, allow_pickle=allow_pickle) for source in (policy, reference))
        shared = [name for name, tensor in of_reference.items() if name in of_policy and of_policy[name].shape == tensor.shape]
        n_all = sum(math.prod(tensor.shape) for tensor in of_reference.values())
        if sum(math.prod(of_reference[name].shape) for name in shared) < LEAST_SHARE * n_all:
            return ()
        layers: dict[tuple[int, int, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        for name in shared:
            totals = layers[locate_layer(name)]
            difference, norm = _sum_squares(of_policy[name], of_reference[name])
            totals[0] += difference
            totals[1] += norm
            totals[2] += math.prod(of_reference[name].shape)
    return tuple(
        LayerDrift(layer=place[2], index=index, relative_l2=_divide(difference, norm), n_parameters=int(n))
        for index, (place, (difference, norm, n)) in enumerate(sorted(layers.items()))
    )


def locate_layer(parameter: str) -> tuple[int, int, str]:
    """Order in the forward pass and name of the layer that a parameter belongs to, by its path."""
    if match := NUMBER.search(parameter):
        return 1, int(match[1]), f"layer {int(match[1])}"
    order = {"embedding": 0, "other": 2, "final norm": 3, "head": 4}
    name = next((name for name, words in NAMES if any(word in parameter for word in words)), "other")
    return order[name], 0, name


def _sum_squares(policy: StoredTensor, reference: StoredTensor) -> tuple[float, float]:
    """Of the difference and of the reference, in float64."""
    difference = norm = 0.0
    n_rows = reference.shape[0] if reference.shape else 1
    step = max(1, PIECE_ELEMENTS * n_rows // max(1, math.prod(reference.shape)))
    for start in range(0, n_rows, step):
        rows = slice(start, start + step)
        ours, theirs = policy.read(rows).cpu().float(), reference.read(rows).cpu().float()
        difference += float(torch.linalg.vector_norm(ours - theirs, dtype=torch.float64)) ** 2
        norm += float(torch.linalg.vector_norm(theirs, dtype=torch.float64)) ** 2
    return difference, norm


def _divide(difference: float, norm: float) -> float:
    if norm == 0:
        return 0.0 if difference == 0 else math.inf
    return math.sqrt(difference / norm)


def _open(source: str | Path | LanguageModel, *, files: ExitStack, allow_pickle: bool) -> Mapping[str, StoredTensor]:
    if not isinstance(source, LanguageModel):
        found = find_model_files(source, allow_pickle=allow_pickle)
        if found.base is None and found.path.is_dir() and any(found.path.glob("*.safetensors")):
            return _open_directory(found.path, files=files)
        source = load_language_model(source, allow_pickle=allow_pickle)
    return {name: _hold(parameter.detach()) for name, parameter in source.model.named_parameters()}


def _open_directory(directory: Path, *, files: ExitStack) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for file in find_weights(directory).files:
        try:
            opened: Any = files.enter_context(safe_open(file, framework="pt"))
        except (SafetensorError, OSError) as error:
            raise IncompleteWeights(f"{file} cannot be read as safetensors: {error}. Copy it again.") from error
        for name in opened.keys():  # noqa: SIM118 - not a mapping
            tensors[name] = _point_to(opened, name)
    return tensors


def _point_to(opened: Any, name: str) -> StoredTensor:
    lazy = opened.get_slice(name)
    shape = tuple(lazy.get_shape())
    return StoredTensor(shape=shape, read=lambda rows: lazy[rows] if shape else opened.get_tensor(name))


def _hold(tensor: Tensor) -> StoredTensor:
    return StoredTensor(shape=tuple(tensor.shape), read=lambda rows: tensor[rows] if tensor.ndim else tensor)
