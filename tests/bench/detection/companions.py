"""The other series of a run: what a trainer logs beside KL, in agreement with it."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator

from tests.bench.detection.effects import Plan
from tests.bench.detection.trace import Array, Noise, Trace, wander_about

Columns = dict[str, Array]

KL_COLUMNS = ("kl", "kl_se", "kl_full", "kl_full_se")
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "hacking": ("score", "heldout_score"),
    "entropy": ("entropy",),
    "length": ("response_length",),
    "beta_collapse": ("beta",),
    "penalty": ("beta", "score", "kl_penalty", "rlhf_reward"),
}
"""Without them the kind could not be seen."""


def draw_columns(plan: Plan, trace: Trace, noise: Noise, rng: Generator) -> Columns:
    """All series of a run, one value per step, before what a kind does to them."""
    profile = plan.profile
    n = profile.n_steps
    columns: Columns = {"beta": trace.beta, "response_length": noise.length}
    governing = trace.governing / trace.divisor
    columns["kl"] = trace.primary / trace.divisor
    if profile.has_full_beside:
        columns["kl_full"] = governing
    if profile.has_error:
        columns["kl_full_se" if profile.has_full_beside else "kl_se"] = trace.error / trace.divisor
    columns |= _draw_rewards(n, profile.batch_size, rng) | _draw_optimisation(n, rng) | _draw_text(n, profile.batch_size, rng)
    return columns


def _settle(n: int, n_steps: float) -> Array:
    return np.asarray(1 - np.exp(-np.arange(n) / n_steps))


def _draw_rewards(n: int, batch_size: int, rng: Generator) -> Columns:
    """A score that rises and saturates; a held-out score that follows it at a distance which grows."""
    start, gain = rng.uniform(-1, 2), rng.uniform(0.3, 3)
    spread = gain * rng.uniform(0.2, 1) / np.sqrt(batch_size)
    growth = _settle(n, rng.uniform(40, 200))
    score = start + gain * growth + spread * rng.standard_t(10, n)
    heldout = start - rng.uniform(0, 0.3) + gain * rng.uniform(0.6, 0.9) * growth + spread * rng.uniform(0.5, 1.5) * rng.standard_t(10, n)
    return {"score": score, "heldout_score": heldout}


def _draw_optimisation(n: int, rng: Generator) -> Columns:
    """What the optimiser and PPO's trust region log."""
    steps = np.arange(n)
    base = np.exp(rng.uniform(np.log(1e-6), np.log(2e-5)))
    schedules = (np.ones(n), 1 - steps / n, 0.5 * (1 + np.cos(np.pi * steps / n)), np.minimum((steps + 1) / rng.uniform(5, 40), 1))
    return {
        "learning_rate": base * schedules[int(rng.integers(len(schedules)))],
        "kl_update": np.exp(rng.uniform(np.log(5e-4), np.log(5e-3)) + 0.3 * rng.normal(size=n)),
        "clip_fraction": np.clip(rng.uniform(0, 0.18) * np.exp(0.15 * rng.normal(size=n)), 0, 1),
        "ratio": 1 + rng.uniform(0.0005, 0.01) * rng.normal(size=n),
        "grad_norm": np.exp(rng.uniform(-1.5, 2) + rng.uniform(0.1, 0.5) * rng.normal(size=n)),
    }


def _draw_text(n: int, batch_size: int, rng: Generator) -> Columns:
    """How the sampled text is."""
    entropy = rng.uniform(0.5, 3.5) * (1 - rng.uniform(0.1, 0.4) * np.arange(n) / n)
    wander = wander_about(rng.normal(size=n) * 0.005, 0.9)
    eos = np.clip(rng.uniform(0.75, 1.0) + wander_about(rng.normal(size=n) * 0.003, 0.9), 0, 1)
    distinct = rng.uniform(0.7, 0.97) * (1 - rng.uniform(0, 0.1) * np.arange(n) / n)
    return {
        "entropy": entropy * np.exp(wander + rng.uniform(0.02, 0.1) / np.sqrt(batch_size) * rng.normal(size=n)),
        "eos_fraction": rng.binomial(batch_size, eos) / batch_size,
        "distinct_2": np.clip(distinct + 0.01 * rng.normal(size=n), 0, 1),
    }


def _since(plan: Plan) -> Array:
    return np.asarray(np.arange(plan.profile.n_steps, dtype=np.float64) - plan.profile.onset)


def _ramp(plan: Plan) -> Array:
    return np.clip((_since(plan) + 1) / plan.n_odd_steps, 0, 1)


def freeze_kl(plan: Plan, columns: Columns, rng: Generator) -> None:
    """Every KL, with its standard error, stays what it was at the onset."""
    del rng
    onset = plan.profile.onset
    for name in KL_COLUMNS:
        if name in columns:
            columns[name] = columns[name].copy()
            columns[name][onset : onset + plan.n_odd_steps] = columns[name][onset]


def lose_kl(plan: Plan, columns: Columns, rng: Generator) -> None:
    """Every KL is NaN; half the time the gradient is too."""
    onset = plan.profile.onset
    for name in (*KL_COLUMNS, *(("grad_norm",) if rng.random() < 0.5 else ())):
        if name in columns:
            columns[name] = columns[name].copy()
            columns[name][onset : onset + plan.n_odd_steps] = np.nan


def hack_reward(plan: Plan, columns: Columns, rng: Generator) -> None:
    """The score climbs on, the held-out score falls, by at least six times its noise."""
    ramp, score, heldout = _ramp(plan), columns["score"], columns["heldout_score"]
    amplitude = max(float(np.ptp(score)), 1e-6)
    noise = float(np.std(np.diff(heldout))) / np.sqrt(2)
    columns["score"] = score + amplitude * rng.uniform(0.3, 1) * ramp
    columns["heldout_score"] = heldout - max(plan.size * amplitude, 6 * noise) * ramp


def collapse_entropy(plan: Plan, columns: Columns, rng: Generator) -> None:
    """Entropy falls to its share of before; the texts become alike."""
    ramp = _ramp(plan)
    columns["entropy"] = columns["entropy"] * plan.size**ramp
    columns["distinct_2"] = columns["distinct_2"] * rng.uniform(0.4, 0.9) ** ramp


def explode_length(plan: Plan, columns: Columns, rng: Generator) -> None:
    """Responses grow, and fewer of them end by themselves."""
    ramp = _ramp(plan)
    columns["response_length"] = columns["response_length"] * plan.size**ramp
    columns["eos_fraction"] = columns["eos_fraction"] * rng.uniform(0.2, 0.7) ** ramp


def clamp_kl(plan: Plan, columns: Columns, rng: Generator) -> None:
    """No reading is above the ceiling."""
    del rng
    if plan.ceiling is not None:
        planted = _since(plan) >= 0
        for name in ("kl", "kl_full"):
            if name in columns:
                columns[name] = np.where(planted, np.minimum(columns[name], plan.ceiling), columns[name])


EDITS: Mapping[str, Callable[[Plan, Columns, Generator], None]] = {
    "freeze": freeze_kl,
    "nan": lose_kl,
    "hacking": hack_reward,
    "entropy": collapse_entropy,
    "length": explode_length,
    "clamp": clamp_kl,
}
"""What a kind does to the columns, beyond what follows from the KL."""


def complete_rewards(plan: Plan, columns: Columns, rng: Generator) -> None:
    """kl_penalty = beta * KL and rlhf_reward = score - kl_penalty; or not, if that is what is planted."""
    penalty = columns["beta"] * columns["kl"]
    off = np.where(_since(plan) >= 0, plan.size, 0.0) if plan.profile.kind == "penalty" else np.zeros(len(penalty))
    is_penalty_wrong = rng.random() < 0.5
    columns["kl_penalty"] = penalty * (1 + off * is_penalty_wrong)
    columns["rlhf_reward"] = columns["score"] - columns["kl_penalty"] * (1 + off * (not is_penalty_wrong))
