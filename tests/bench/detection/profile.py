"""What one healthy run is like before a single number of it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator

from klaudit.records.series import Estimator, Unit
from tests.bench.detection.kinds import HEALTHY, KINDS
from tests.bench.detection.shapes import SERVO, SHAPE_NAMES

Scale = Literal["additive", "proportional", "log"]

LEAST_BEFORE, LEAST_AFTER = 60, 40
"""Steps before the onset, and from it to the end of the run."""

BATCH_SIZES = (4, 8, 16, 32, 64, 128, 256, 512)
LARGE_BATCHES = (256, 512)
SMOOTH_SHARE = 0.25
"""Of runs, with a large batch: what is left of the noise is a slow wander, as in verl's published curves (log residual sd 0.03 to 0.13)."""
TAILS = (*(6,) * 16, 4, 8, 8, 10, 10, 15, 15, 30)
"""Degrees of freedom of Student's t; t6 is the standard."""


@dataclass(frozen=True, slots=True)
class Servo:
    """KL under an adaptive beta: it moves towards where beta would have it, and beta moves by Ziegler's rule."""

    target_kl: float
    """Nats per sequence."""
    horizon: float
    """Sequences."""
    resting_kl: float
    """Nats per sequence that the first beta would lead to."""
    lag_steps: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything about a run that is not noise."""

    seed: int
    kind: str
    """What is planted; `healthy`: nothing."""
    shape: str
    n_steps: int
    first_step: int
    onset: int
    """Index, not step number; of healthy runs nothing happens there."""
    estimator: Estimator
    """Of the governing series."""
    has_full_beside: bool
    """The governing series is the metric `kl_full`; the step's own KL is k1."""
    has_error: bool
    """The governing series comes with its standard error."""
    unit: Unit
    batch_size: int
    length: float
    """Tokens of a response, at the start."""
    final_kl: float
    """Nats per sequence."""
    scale: Scale
    """On which the estimator's noise has a constant form."""
    relative_sd: float
    """Of the estimator, for the proportional and the log scale."""
    process_sd: float
    """Of what differs from step to step in the true log KL."""
    tails: int
    wander_memory: float
    """AR(1) coefficient of the slow part of the true log KL."""
    wander_sd: float
    """Its stationary standard deviation."""
    n_zeros: int
    """Steps at the start that read exactly 0, before the one at which the policy still is the reference; recorded runs have up to 8."""
    quantum: float | None
    """What the trainer rounds to."""
    beta: float
    servo: Servo | None


def draw_profile(seed: int, kind: str, rng: Generator) -> Profile:
    """The profile of one run."""
    n_steps = int(rng.integers(200, 501))
    shape = SHAPE_NAMES[int(rng.integers(len(SHAPE_NAMES)))]
    estimator = _draw_estimator(kind, rng)
    is_smooth = rng.random() < SMOOTH_SHARE
    batch_size = int(rng.choice(LARGE_BATCHES if is_smooth else BATCH_SIZES))
    length = float(rng.uniform(16, 512))
    final_kl = _draw_log(rng, 0.5, 30)
    beta = _draw_log(rng, 0.005, 0.2)
    scale = _draw_scale(estimator, rng)
    memory, wander_sd = _draw_wander(rng, is_smooth=is_smooth)
    n_zeros = int(rng.integers(1, 7)) if estimator == "k3" and shape != "flat" and rng.random() < 0.5 else 0
    is_per_token = rng.random() < 0.2
    return Profile(
        seed=seed,
        kind=kind,
        shape=shape,
        n_steps=n_steps,
        first_step=int(rng.integers(0, 2)),
        onset=int(rng.integers(LEAST_BEFORE + n_zeros, n_steps - LEAST_AFTER)),
        estimator=estimator,
        has_full_beside=estimator == "full" and rng.random() < 0.5,
        has_error=estimator == "full" and rng.random() < 0.5,
        unit="nats_per_token" if is_per_token else "nats_per_sequence",
        batch_size=batch_size,
        length=length,
        final_kl=final_kl,
        scale=scale,
        relative_sd=_draw_relative_sd(scale, estimator, rng, is_smooth=is_smooth),
        process_sd=0.0 if is_smooth else _draw_process(scale, estimator, rng),
        tails=int(rng.choice(TAILS)),
        wander_memory=memory,
        wander_sd=wander_sd,
        n_zeros=n_zeros,
        quantum=0.001 if shape != SERVO and kind != "penalty" and rng.random() < 0.25 else None,
        beta=beta,
        servo=_draw_servo(final_kl, batch_size, rng) if shape == SERVO else None,
    )


def _draw_log(rng: Generator, low: float, high: float) -> float:
    """Uniform on the log scale."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _draw_estimator(kind: str, rng: Generator) -> Estimator:
    choices: tuple[Estimator, ...] = ("k1", "k3", "full")
    return "k1" if kind == "negative" else choices[int(rng.integers(3))]


def _draw_scale(estimator: Estimator, rng: Generator) -> Scale:
    if estimator == "k1":
        return "additive"
    return "log" if rng.random() < 0.5 else "proportional"


def _draw_wander(rng: Generator, *, is_smooth: bool) -> tuple[float, float]:
    """Memory and stationary sd; none for three runs in ten."""
    if is_smooth:
        return float(rng.uniform(0.6, 0.94)), float(rng.uniform(0.04, 0.13))
    if rng.random() < 0.4:
        return 0.0, 0.0
    return float(rng.uniform(0.3, 0.94)), float(rng.uniform(0.02, 0.15))


def _draw_relative_sd(scale: Scale, estimator: Estimator, rng: Generator, *, is_smooth: bool) -> float:
    if is_smooth:
        return _draw_log(rng, 0.015, 0.05)
    highest = 0.25 if scale == "proportional" else 0.6 if estimator == "k3" else 0.3
    return _draw_log(rng, 0.05, highest)


def _draw_process(scale: Scale, estimator: Estimator, rng: Generator) -> float:
    """None for most runs; large only where the noise is judged on the log scale, on which it is symmetric."""
    if rng.random() < 0.7:
        return 0.0
    largest = 0.15 if scale != "log" else 1.2 if estimator == "k3" else 0.3
    return _draw_log(rng, 0.03, largest)


def _draw_servo(final_kl: float, batch_size: int, rng: Generator) -> Servo:
    largest_change = rng.uniform(0.004, 0.02)
    return Servo(
        target_kl=round(final_kl, 2),
        horizon=round(0.2 * batch_size / largest_change),
        resting_kl=final_kl * float(rng.uniform(0.6, 1.6)),
        lag_steps=float(rng.uniform(6, 20)),
    )


def choose_kind(seed: int, kinds: Sequence[str]) -> str:
    """The kind that a seed stands for: in turn, with one healthy run after every four kinds."""
    chosen = [kind for kind in KINDS if kind in kinds]
    cycle = [one for at, kind in enumerate(chosen) for one in ((kind, HEALTHY) if at % 4 == 3 else (kind,))]
    if HEALTHY in kinds and HEALTHY not in cycle:
        cycle.append(HEALTHY)
    elif HEALTHY not in kinds:
        cycle = chosen
    return cycle[seed % len(cycle)]
