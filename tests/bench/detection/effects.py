"""What each kind does to the KL of a run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from tests.bench.detection.profile import Profile
from tests.bench.detection.trace import Array, Effects, Trace, find_log_variances, find_scatter

SLOPE_STEPS = 60
"""How long an accelerated growth goes on, so that the log scale does not overflow."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What was drawn for a planted run beside its effects on KL; the companions follow it."""

    profile: Profile
    effects: Effects
    n_odd_steps: int = 1
    """Of a freeze, a gap, NaNs, or of a ramp from its start to its end."""
    size: float = 0.0
    """In the kind's own terms: what a ramp ends at, or the relative error of an identity."""
    ceiling: float | None = None
    """Where readings are clamped, in the series' unit."""
    budget_limit: float | None = None
    """In the series' unit."""


Planter = Callable[[Profile, Trace, Generator], Plan]


def _since(profile: Profile) -> Array:
    """0 at the onset, 1 a step later; negative before."""
    return np.arange(profile.n_steps, dtype=np.float64) - profile.onset


def _ramp(profile: Profile, n_steps: int) -> Array:
    """0 before the onset, more with each step from it on, 1 after `n_steps`."""
    return np.clip((_since(profile) + 1) / n_steps, 0, 1)


def _move(profile: Profile, noise_sds: Array, *, sd: float) -> Effects:
    """Move KL by so many noise sd of the onset, on the scale on which the noise is natural."""
    effects = Effects.none(profile.n_steps)
    amount = noise_sds * sd
    return replace(effects, log_gain=amount) if profile.scale == "log" else replace(effects, added=amount)


def plant_spike(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """One step 7 to 12 noise sd up."""
    sds = np.zeros(profile.n_steps)
    sds[profile.onset] = rng.uniform(7, 12)
    return Plan(profile, _move(profile, sds, sd=float(healthy.noise_sd[profile.onset])))


def plant_level(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """Up by 4 to 8 sd of the scatter and by 30% at least, for good."""
    onset = profile.onset
    least = np.log(1.3) if profile.scale == "log" else 0.3 * healthy.level[onset]
    sd = find_scatter(profile, healthy.level)
    sds = max(rng.uniform(4, 8), least / sd)
    return Plan(profile, _move(profile, sds * (_since(profile) >= 0), sd=sd))


def plant_slope(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """0.3 sd of the scatter more with every step."""
    del rng
    return Plan(profile, _move(profile, 0.3 * np.clip(_since(profile) + 1, 0, SLOPE_STEPS), sd=find_scatter(profile, healthy.level)))


def plant_burst(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """Noise of four times the sd for 20 to 40 steps."""
    since, n_steps = _since(profile), int(rng.integers(20, 41))
    own, wander = (float(one[profile.onset]) for one in find_log_variances(profile, healthy.level))
    factor = np.sqrt((16 * (own + wander) - wander) / own)
    spread = np.where((since >= 0) & (since < n_steps), factor, 1.0)
    effects = replace(Effects.none(profile.n_steps), spread=spread, error_sees_spread=bool(rng.random() < 0.5))
    return Plan(profile, effects, n_steps)


def plant_freeze(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """The same reading for 12 to 30 steps."""
    del healthy
    return Plan(profile, Effects.none(profile.n_steps), int(rng.integers(12, 31)))


def plant_nan(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """NaN for 1 to 3 steps."""
    del healthy
    return Plan(profile, Effects.none(profile.n_steps), int(rng.integers(1, 4)))


def plant_negative(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """Sampling differs from scoring: the mean of k1 is below zero by half to one and a half KL and 5 noise sd."""
    level, noise_sd = healthy.level[profile.onset], healthy.noise_sd[profile.onset]
    fall = (1 + rng.uniform(0.5, 1.5)) * level + 5 * noise_sd
    return Plan(profile, replace(Effects.none(profile.n_steps), read_added=-fall * (_since(profile) >= 0)))


def plant_reset(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """The reference is replaced by a copy of the policy: KL falls to 1% to 5% at once and grows again."""
    del healthy
    left = rng.uniform(0.01, 0.05)
    since = _since(profile)
    regrown = left + (1 - left) * (1 - np.exp(-np.maximum(since, 0) / rng.uniform(40, 120)))
    gain = np.where(since >= 0, np.log(regrown), 0.0)
    return Plan(profile, replace(Effects.none(profile.n_steps), log_gain=gain))


def plant_beta_collapse(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """Beta falls to 1% or to 0; KL grows four to twentyfold from the next step on."""
    del healthy
    factor = 0.0 if rng.random() < 0.3 else 0.01
    since = _since(profile)
    growth = np.log(rng.uniform(4, 20)) * (1 - np.exp(-np.maximum(since, 0) / rng.uniform(8, 25)))
    effects = replace(Effects.none(profile.n_steps), log_gain=growth, beta_factor=np.where(since >= 0, factor, 1.0))
    return Plan(profile, effects)


def plant_hacking(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """Over 30 to 40 steps the score climbs faster, the held-out score falls, KL grows by half to threefold."""
    del healthy
    n_steps = int(rng.integers(30, 41))
    gain = np.log(rng.uniform(1.5, 3)) * _ramp(profile, n_steps)
    return Plan(profile, replace(Effects.none(profile.n_steps), log_gain=gain), n_steps, float(rng.uniform(0.4, 1)))


def plant_entropy(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """Entropy falls to 10% to 30% within 10 to 20 steps."""
    del healthy
    return Plan(profile, Effects.none(profile.n_steps), int(rng.integers(10, 21)), float(rng.uniform(0.1, 0.3)))


def plant_length(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """Responses of 2 to 4 times the length within 10 to 20 steps; a KL per sequence grows with them."""
    del healthy
    n_steps, factor = int(rng.integers(10, 21)), float(rng.uniform(2, 4))
    share = 1.0 if profile.unit == "nats_per_token" else rng.uniform(0.3, 1)
    gain = share * np.log(factor) * _ramp(profile, n_steps)
    return Plan(profile, replace(Effects.none(profile.n_steps), log_gain=gain), n_steps, factor)


def plant_gap(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """5 to 30 steps that nobody recorded."""
    del healthy
    return Plan(profile, Effects.none(profile.n_steps), int(rng.integers(5, 31)))


def plant_clamp(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """KL runs into a ceiling and stays there: 10 nats a token, or a little over where KL was."""
    onset = profile.onset
    per_unit = float(healthy.divisor[onset])
    own, wander = (float(one[onset]) for one in find_log_variances(profile, healthy.level))
    log_sd = min(float(np.sqrt(own + wander + profile.wander_sd**2)), 1.0)
    if profile.unit == "nats_per_token" and rng.random() < 0.5:
        ceiling = 10.0
        rise = np.log(ceiling * per_unit / healthy.level[onset]) + 6 * log_sd
    else:
        ceiling = float(f"{healthy.level[onset] / per_unit * np.exp(log_sd):.3g}")
        rise = 7 * log_sd
    gain = rise * _ramp(profile, int(rng.integers(4, 9)))
    return Plan(profile, replace(Effects.none(profile.n_steps), log_gain=gain), ceiling=ceiling)


def plant_penalty(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """The penalty is 5% to 50% off beta * KL, either way, or the reward off score - penalty by as much."""
    del healthy
    return Plan(profile, Effects.none(profile.n_steps), size=float(rng.uniform(0.05, 0.5) * rng.choice((-1, 1))))


def plant_budget(profile: Profile, healthy: Trace, rng: Generator) -> Plan:
    """A budget that the healthy run keeps, and a KL that goes over it by 20% to 50%."""
    level, seen = healthy.level / healthy.divisor, (healthy.governing / healthy.divisor)[: profile.onset]
    limit = max(rng.uniform(1.6, 2.2) * level.max(), 1.3 * seen.max())
    over = np.log(limit * rng.uniform(1.2, 1.5) / np.maximum(level, 1e-9))
    gain = np.where(_since(profile) >= 0, over, 0.0)
    return Plan(profile, replace(Effects.none(profile.n_steps), log_gain=gain), budget_limit=float(f"{limit:.4g}"))


PLANTERS: Mapping[str, Planter] = {
    "spike": plant_spike,
    "level": plant_level,
    "slope": plant_slope,
    "burst": plant_burst,
    "freeze": plant_freeze,
    "nan": plant_nan,
    "negative": plant_negative,
    "reset": plant_reset,
    "beta_collapse": plant_beta_collapse,
    "hacking": plant_hacking,
    "entropy": plant_entropy,
    "length": plant_length,
    "gap": plant_gap,
    "clamp": plant_clamp,
    "penalty": plant_penalty,
    "budget": plant_budget,
}
