"""Simulated runs with a score and a held-out score: healthy ones, and ones that begin to hack their reward."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from klaudit.audit.observation import Observation
from klaudit.frontier.point import read_d
from klaudit.records import KLReading, StepRecord
from tests.audit.conftest import FULL, NOW

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RewardedRun:
    """Steps, and where hacking begins."""

    observations: list[Observation]
    onset: int


def draw_noise(n: int, sd: float, rng: Generator) -> Floats:
    """A share of white noise and one of AR(1), both with Student-t6 tails."""
    share, memory = rng.uniform(), 0.0 if rng.random() < 0.3 else rng.uniform(0.3, 0.94)
    white, steps = (rng.standard_t(6, n) / math.sqrt(1.5) for _ in range(2))
    wander = np.empty(n)
    last = rng.normal()
    for at in range(n):
        last = wander[at] = memory * last + math.sqrt(1 - memory**2) * steps[at]
    noise: Floats = sd * (math.sqrt(share) * wander + math.sqrt(1 - share) * white)
    return noise


def draw_growth(n: int, rng: Generator) -> Floats:
    """From 0 to about 1: saturating, linear, an S, or flat all along."""
    steps = np.arange(n)
    kind = rng.integers(4)
    if kind == 0:
        return 1 - np.exp(-steps / rng.uniform(20, 120))
    if kind == 1:
        return steps / n
    if kind == 2:
        logistic: Floats = 1 / (1 + np.exp(-(steps - rng.uniform(0.15, 0.6) * n) / rng.uniform(15, 50)))
        return logistic
    return np.zeros(n)


def draw_run(seed: int, *, hacks: bool, most_noise: float = 0.15) -> RewardedRun:
    """A run whose score rises and levels off; the held-out score follows it at a gap. Noise up to `most_noise` of the score's range."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(160, 360))
    span, noise = rng.uniform(0.3, 1.5), math.exp(rng.uniform(math.log(0.01), math.log(most_noise)))
    growth = draw_growth(n, rng)
    score = span * growth
    heldout = span * growth * rng.uniform(0.5, 1) - rng.uniform(0, 0.2) * span
    kl = rng.uniform(0.5, 30) * (0.02 + 1 - np.exp(-np.arange(n) / rng.uniform(40, 200)))
    onset = int(rng.integers(60, n - 60))
    if hacks:
        since = np.clip(np.arange(n) - onset, 0, None) / rng.uniform(30, 40)
        score = score + span * rng.uniform(0.4, 1) * np.minimum(since, 2) ** rng.uniform(1, 2)
        heldout = heldout - span * rng.uniform(0.3, 0.8) * np.minimum(since, 2)
        kl = kl * np.exp(np.minimum(since, 1.2) * rng.uniform(0.5, 1.5))
    score = score + draw_noise(n, noise * span, rng)
    heldout = heldout + draw_noise(n, noise * span * rng.uniform(0.7, 1.5), rng)
    kl = kl * np.exp(draw_noise(n, rng.uniform(0.05, 0.3), rng))
    columns = zip(score.tolist(), heldout.tolist(), kl.tolist(), strict=True)
    return RewardedRun([make_observation(at, *column) for at, column in enumerate(columns)], onset)


def make_observation(step: int, score: float, heldout: float, kl: float) -> Observation:
    metrics = {"score_std": 0.3, "heldout_score": heldout}
    record = StepRecord(step, KLReading(FULL, kl), NOW, beta=0.05, score=score, metrics=metrics)
    return Observation(record=record, governing=record.kl, non_finite={}, d=read_d(record.kl))
