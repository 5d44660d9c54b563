"""The KL of a run: what it truly is, what the estimator reads, and how far a reading may be from its forecast."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from klaudit.kl.controllers import AdaptiveBeta
from tests.bench.detection.profile import Profile
from tests.bench.detection.shapes import SHAPES

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Noise:
    """Everything random of a trace, so that it can be made twice: healthy, and with something planted."""

    trend: Array
    """Share of the final KL; not used by a servo."""
    wander: Array
    process: Array
    estimator: Array
    beside: Array
    """Of the k1 beside a `full`."""
    error: Array
    """Relative error of the standard error."""
    length: Array
    """Mean tokens of a response."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What is planted in a trace, one value per step."""

    log_gain: Array
    """Added to the true log KL."""
    added: Array
    """Added to the true KL, in nats per sequence."""
    read_added: Array
    """Added to the reading only, in nats per sequence."""
    spread: Array
    """Factor of the noise."""
    beta_factor: Array
    error_sees_spread: bool = False
    """Whether the standard error grows with the noise."""

    @classmethod
    def none(cls, n: int) -> "Effects":
        """Nothing planted."""
        return cls(np.zeros(n), np.zeros(n), np.zeros(n), np.ones(n), np.ones(n))


@dataclass(frozen=True, slots=True)
class Trace:
    """KL in nats per sequence, one value per step."""

    level: Array
    """The true KL, without what differs from step to step."""
    governing: Array
    """What the governing estimator reads."""
    primary: Array
    """What the step's own KL reads: the same, or k1 where `full` is beside it."""
    error: Array
    """Standard error of the governing reading."""
    beta: Array
    divisor: Array
    """Nats per sequence over it are in the series' unit."""
    noise_sd: Array
    """Scale of a reading about its forecast from the true past: on the log scale for log noise, else in nats per sequence."""


def draw_noise(profile: Profile, rng: Generator) -> Noise:
    """All random numbers of a trace."""
    n = profile.n_steps
    memory = profile.wander_memory
    steps = rng.normal(size=n) * profile.wander_sd * np.sqrt(1 - memory**2)
    wander = wander_about(steps, memory, start=rng.normal() * profile.wander_sd)
    trend = SHAPES[profile.shape](n, rng) if profile.servo is None else np.ones(n)
    degrees = max(profile.batch_size - 1, 1)
    return Noise(
        trend=np.maximum(trend, 0.0),
        wander=wander,
        # Log residuals of recorded runs have next to no excess kurtosis where they are large.
        process=rng.standard_t(max(profile.tails, 15), n),
        estimator=rng.standard_t(profile.tails, n),
        beside=rng.standard_t(profile.tails, n),
        error=np.sqrt(rng.chisquare(degrees, n) / degrees),
        length=_draw_length(profile, rng),
    )


def wander_about(steps: Array, memory: float, *, start: float = 0.0) -> Array:
    """AR(1): x <- memory * x + step."""
    values, last = np.empty(len(steps)), start
    for t, step in enumerate(steps):
        last = values[t] = memory * last + step
    return values


def _draw_length(profile: Profile, rng: Generator) -> Array:
    """Grows by up to 20% over the run, and wanders by 1%; the batch adds its own noise."""
    n = profile.n_steps
    growth = 1 + rng.uniform(-0.05, 0.2) * (1 - np.exp(-np.arange(n) / rng.uniform(50, 200)))
    wander = wander_about(rng.normal(size=n) * 0.003, 0.95)
    batch = rng.normal(size=n) * rng.uniform(0.05, 0.3) / np.sqrt(profile.batch_size)
    return np.asarray(profile.length * growth * np.exp(wander + np.clip(batch, -0.3, 0.3)))


def make_trace(profile: Profile, noise: Noise, effects: Effects) -> Trace:
    """Step by step, because an adaptive beta answers what it reads."""
    n = profile.n_steps
    level, governing, primary, error, beta = (np.empty(n) for _ in range(5))
    servo = profile.servo
    controller = AdaptiveBeta(profile.beta, servo.target_kl, servo.horizon) if servo else None
    steered = 0.0
    for t in range(n):
        now = controller.beta if controller else profile.beta
        if servo:
            # The first rollouts precede the first update.
            steered += (servo.resting_kl * profile.beta / now - steered) / servo.lag_steps if t else 0.0
        healthy = steered if servo else profile.final_kl * noise.trend[max(t - profile.n_zeros, 0)]
        level[t] = 0.0 if t < profile.n_zeros else healthy * np.exp(noise.wander[t] + effects.log_gain[t]) + effects.added[t]
        true = level[t] * np.exp(profile.process_sd * effects.spread[t] * noise.process[t])
        reading = _read(profile, true, noise.estimator[t] * effects.spread[t])
        governing[t] = reading + effects.read_added[t]
        primary[t] = _read_k1(profile, true, noise.beside[t]) if profile.has_full_beside else governing[t]
        spread = effects.spread[t] if effects.error_sees_spread else 1.0
        error[t] = abs(governing[t]) * profile.relative_sd * noise.error[t] * spread
        beta[t] = now * effects.beta_factor[t]
        if controller:
            controller.update(primary[t], n_sequences=profile.batch_size)
    divisor = noise.length if profile.unit == "nats_per_token" else np.ones(n)
    return Trace(level, governing, primary, error, beta, divisor, _find_noise_sd(profile, level))


def _read_k1(profile: Profile, true: float, noise: float) -> float:
    """Unbiased, with variance 2 KL / B."""
    return float(true + np.sqrt(2 * true / profile.batch_size) * noise)


def _read(profile: Profile, true: float, noise: float) -> float:
    if profile.scale == "additive":
        return _read_k1(profile, true, noise)
    if profile.scale == "proportional":
        # k3 and full cannot be negative.
        return abs(true * (1 + profile.relative_sd * noise))
    return float(true * np.exp(profile.relative_sd * noise))


def _find_noise_sd(profile: Profile, level: Array) -> Array:
    shares = find_log_variances(profile, level)
    relative = np.sqrt(sum(shares))
    return np.asarray(relative if profile.scale == "log" else relative * level)


def find_log_variances(profile: Profile, level: Array) -> tuple[Array, Array]:
    """Relative variance of a reading about its forecast: that of estimator and process, and that of the wander's last step."""
    floor = np.maximum(level, 1e-9)
    estimator = 2 / (profile.batch_size * floor) if profile.scale == "additive" else np.full(level.shape, profile.relative_sd**2)
    innovation = profile.wander_sd**2 * (1 - profile.wander_memory**2)
    return estimator + profile.process_sd**2, np.full(level.shape, innovation)


def find_scatter(profile: Profile, level: Array) -> float:
    """What is seen around the curve at the onset: sd of a reading about the healthy mean, wander included, on the scale of the noise.

    What stays is planted in units of it, because a level that wanders by as much cannot be told from one that has moved.
    """
    own, _ = find_log_variances(profile, level)
    onset = profile.onset
    relative = float(np.sqrt(own[onset] + profile.wander_sd**2))
    return relative if profile.scale == "log" else relative * float(level[onset])
