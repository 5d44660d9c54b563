"""The last layer of a language model: from a hidden state to one logit for each entry of the vocabulary."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from klaudit.errors import EstimatorError

PRODUCTS: tuple[Any, ...] = tuple(
    backend.matmul
    for name in ("cuda", "mkldnn")
    if hasattr(getattr(backend := getattr(torch.backends, name), "matmul", None), "fp32_precision")
)
"""Where torch 2.9 and later keeps what a product of float32 may be rounded to; earlier ones have one setting for all."""


@dataclass(frozen=True, eq=False, slots=True)
class OutputHead:
    """`logits = softcap * tanh(scale * (h W^T + b) / softcap)`, without the tanh where there is no softcap.

    Raises:
        EstimatorError: tensors that do not fit together, a scale or a softcap that is not a positive finite number.
    """

    weight: Tensor
    """[n_vocabulary, n_hidden], any floating dtype; products are taken in float32 whatever it is."""
    bias: Tensor | None = None
    """[n_vocabulary]; -inf rules an entry out."""
    softcap: float | None = None
    """Logits stay between minus and plus this (Gemma 2's `final_logit_softcapping`)."""
    scale: float = 1.0
    """What logits are multiplied by (Cohere's `logit_scale`; the reciprocal of Granite's `logits_scaling`)."""

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or not self.weight.is_floating_point():
            raise EstimatorError(
                "the weight of an output head must be floating, [n_vocabulary, n_hidden]; "
                f"got {self.weight.dtype}, {tuple(self.weight.shape)}"
            )
        if self.bias is not None and self.bias.shape != self.weight.shape[:1]:
            raise EstimatorError(f"the bias of this output head must be [{self.weight.shape[0]}]; got {tuple(self.bias.shape)}")
        for name, number in (("scale", self.scale), ("softcap", self.softcap)):
            if number is not None and not (math.isfinite(number) and number > 0):
                raise EstimatorError(f"the {name} of an output head must be a positive finite number; got {number!r}")

    @property
    def n_vocabulary(self) -> int:
        """Entries, padding included."""
        return self.weight.shape[0]

    @property
    def n_hidden(self) -> int:
        """Width of the hidden state."""
        return self.weight.shape[1]

    def cut(self, n_vocabulary: int) -> "OutputHead":
        """The same head over its first `n_vocabulary` entries, without a copy: without the rows that pad a matrix to a round size.

        Padding has mass of its own, so that cutting it off says what the model's distribution is; nothing here does it unasked.

        Raises:
            EstimatorError: none of the entries, or more than there are.
        """
        if not 1 <= n_vocabulary <= self.n_vocabulary:
            raise EstimatorError(
                f"an output head of {self.n_vocabulary} entries can be cut to 1 to {self.n_vocabulary}; got {n_vocabulary}"
            )
        return self.select(slice(n_vocabulary))

    def select(self, entries: slice) -> "OutputHead":
        """The same head over some of its entries, without a copy."""
        return OutputHead(self.weight[entries], None if self.bias is None else self.bias[entries], self.softcap, self.scale)

    def to_float32(self) -> "OutputHead":
        """The same head in float32; itself if it is that already."""
        return OutputHead(self.weight.float(), None if self.bias is None else self.bias.float(), self.softcap, self.scale)

    def is_same(self, other: "OutputHead") -> bool:
        """Whether both are one head by the memory that they lie in, such as a model against itself; equal copies are not."""
        return all(_name(self)[at] == name for at, name in enumerate(_name(other)))

    @torch.no_grad()
    def project(self, hidden: Tensor, *, temperature: float = 1.0, out: Tensor | None = None) -> Tensor:
        """Logits, divided by the temperature, in float32.

        Args:
            hidden: [..., n_hidden], any floating dtype.
            temperature: above 0.
            out: float32 [..., n_vocabulary], contiguous: takes the result, and no other memory of that size is touched.
        """
        logits = hidden.new_empty((*hidden.shape[:-1], self.n_vocabulary), dtype=torch.float32) if out is None else out
        # before tanh the softcap stands where the temperature otherwise does
        factor = self.scale / (temperature if self.softcap is None else self.softcap)
        with multiply_in_float32(hidden.device):
            rows = hidden.reshape(-1, self.n_hidden).float()
            logits.view(-1, self.n_vocabulary).addmm_(rows, self.weight.float().T, beta=0, alpha=factor)
        if self.bias is not None:
            logits.add_(self.bias.float(), alpha=factor)
        return logits if self.softcap is None else logits.tanh_().mul_(self.softcap / temperature)


@contextmanager
def multiply_in_float32(device: torch.device) -> Iterator[None]:
    """Matrix products in full float32, whatever the caller allows elsewhere: autocast, TF32 on CUDA, bf16 inside oneDNN."""
    with ExitStack() as restored:
        restored.enter_context(torch.autocast(device.type, enabled=False))
        for backend in PRODUCTS:
            restored.callback(setattr, backend, "fp32_precision", backend.fp32_precision)
            backend.fp32_precision = "ieee"
        if not PRODUCTS:
            restored.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("highest")
        yield


def _name(head: OutputHead) -> tuple[Any, ...]:
    tensors = [one for one in (head.weight, head.bias) if one is not None]
    return (*((one.data_ptr(), one.device, one.dtype, one.shape, one.stride()) for one in tensors), len(tensors), head.softcap, head.scale)
