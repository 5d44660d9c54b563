"""Points along Gao's curves, with noise that depends on itself."""

import numpy as np
from numpy.random import Generator

from klaudit.frontier import FrontierPoint


def draw_noise(n: int, *, memory: float, sd: float, rng: Generator) -> list[float]:
    """AR(1) noise."""
    noise, last = [], rng.normal()
    for _ in range(n):
        last = memory * last + np.sqrt(1 - memory**2) * rng.normal()
        noise.append(float(sd * last))
    return noise


def make_points(
    d: "np.typing.ArrayLike",
    *,
    alpha: float,
    bend: float,
    form: str = "rl",
    offset: float = 0.2,
    noise: list[float] | None = None,
    run: str = "r",
    beta: float | None = None,
) -> list[FrontierPoint]:
    """Held-out scores on the curve, and scores that go on rising by `alpha` reward per sqrt(nat)."""
    distances = [float(one) for one in np.asarray(d)]
    added = noise or [0.0] * len(distances)
    curve = [
        offset + one * (alpha - bend * (np.log(one) if form == "rl" and one else one if form == "best_of_n" else 0)) for one in distances
    ]
    return [
        FrontierPoint(d=one, step=step, heldout_score=float(value + extra), score=offset + alpha * one + extra, run=run, beta=beta)
        for step, (one, value, extra) in enumerate(zip(distances, curve, added, strict=True), start=1)
    ]
