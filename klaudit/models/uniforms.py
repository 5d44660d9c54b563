"""Randomness by name: a sequence's uniform numbers depend on its key alone, not on its place in a batch or on the machine."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def draw_uniforms(keys: Sequence[str], *, n: int) -> Tensor:
    """Uniform numbers in [0, 1), float64 [len(keys), n]: a row is the start of the stream that its key names, whatever `n` is.

    The stream is numpy's Philox, a counter-based generator (Salmon, Moraes, Dror, Shaw 2011, Parallel Random Numbers: As Easy as 1, 2, 3), under
    the first 128 bits of the key's SHA-256.

    Args:
        keys: texts that tell sequences apart, such as seed, sampler, prompt and sample number together.
        n: numbers for each.
    """
    rows = (np.random.Generator(np.random.Philox(key=_derive_key(key))).random(n) for key in keys)
    return torch.from_numpy(np.stack(list(rows))) if keys else torch.empty(0, n, dtype=torch.float64)


def _derive_key(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:16], "little")
