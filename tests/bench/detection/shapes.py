"""How a healthy run's KL grows: shares of its final level, one per step."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Curve = NDArray[np.float64]


def grow_saturating(n: int, rng: Generator) -> Curve:
    """1 - exp(-t / tau)."""
    return 1 - np.exp(-np.arange(n) / rng.uniform(20, 120))


def grow_linear(n: int, rng: Generator) -> Curve:
    """t."""
    return np.arange(n) / n + rng.uniform(0, 0.05) * (np.arange(n) > 0)


def grow_as_root(n: int, rng: Generator) -> Curve:
    """sqrt(t), as a random walk of the weights would have it."""
    return np.asarray(np.sqrt(np.arange(n) / n) * rng.uniform(0.9, 1.1))


def grow_logistic(n: int, rng: Generator) -> Curve:
    """An S: slow, fast, slow."""
    middle, width = rng.uniform(0.15, 0.6) * n, rng.uniform(15, 50)
    curve = 1 / (1 + np.exp(-(np.arange(n) - middle) / width))
    return np.asarray(curve - curve[0] * np.exp(-np.arange(n) / 10))


def grow_by_power(n: int, rng: Generator) -> Curve:
    """t to a power above 1: two to three decades from step 10 on, as GRPO without a KL penalty shows."""
    decades = rng.uniform(2, 3)
    return np.asarray((np.arange(n) / n) ** (decades / np.log10(n / 10)))


def stay_flat(n: int, rng: Generator) -> Curve:
    """A run that goes on from a checkpoint."""
    return np.full(n, rng.uniform(0.8, 1.2))


def rise_then_fall(n: int, rng: Generator) -> Curve:
    """A fast rise, then a slow fall to between 45% and 75% of the peak."""
    steps = np.arange(n)
    fall = rng.uniform(0.45, 0.75) ** (steps / n)
    return (1 - np.exp(-steps / rng.uniform(10, 40))) * fall


SHAPES: Mapping[str, Callable[[int, Generator], Curve]] = {
    "saturating": grow_saturating,
    "linear": grow_linear,
    "root": grow_as_root,
    "logistic": grow_logistic,
    "power": grow_by_power,
    "flat": stay_flat,
    "rise_fall": rise_then_fall,
}
SERVO = "servo"
"""An adaptive beta steers KL towards a target: KL follows beta and beta KL, so it has no curve of its own."""
SHAPE_NAMES = (*SHAPES, SERVO)
