"""What a PPO run is told. Standard library only: a bad file is refused before torch loads."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin

from klaudit.errors import InvalidConfig

Schedule = Literal["constant", "linear"]

AT_LEAST_ONE = ("max_steps", "batch_size", "response_length", "epochs", "minibatches", "horizon")
AT_LEAST_ZERO = (
    "beta", "learning_rate", "warmup_steps", "weight_decay", "value_coefficient", "save_steps", "sample_every", "n_samples", "seed",
)  # fmt: skip
ABOVE_ZERO = ("temperature", "clip_range", "value_clip_range", "max_grad_norm", "adam_epsilon")


@dataclass(frozen=True, slots=True, kw_only=True)
class PPOConfig:
    """Settings of `PPOTrainer`. One step samples a batch of completions, scores them, and updates the policy on them.

    Raises:
        InvalidConfig: a value of the wrong type or out of its range.
    """

    max_steps: int = 60
    """Steps of the run."""
    batch_size: int = 16
    """Sequences a step."""
    response_length: int = 16
    """Most tokens a completion."""
    temperature: float = 1.0
    """Of sampling and of scoring alike: all KLs are those of the tempered policies."""
    seed: int = 0
    """Same seed, same machine, same run."""

    beta: float = 0.05
    """KL penalty coefficient, reward/nat; with `target_kl` only where it starts."""
    target_kl: float | None = None
    """Set-point of the adaptive controller, nats per sequence; None keeps beta fixed."""
    horizon: int = 10_000
    """Of the adaptive controller, in sequences; larger is slower."""
    missing_eos_penalty: float | None = None
    """Taken from the score of a completion that the token limit cut; None takes nothing (TRL 1.12.0 ppo_trainer.py:754)."""

    learning_rate: float = 1e-5
    """Of AdamW, for policy and value head alike."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly to its value."""
    schedule: Schedule = "constant"
    """After the warm-up: stay, or fall linearly and reach zero just after the last step."""
    learning_rate_spikes: tuple[tuple[int, int, float], ...] = ()
    """Planted faults, each (first step, number of steps, factor): what a sample run uses to hold the audit to its word."""
    weight_decay: float = 0.0
    """Of AdamW."""
    adam_epsilon: float = 1e-5
    """As in openai/baselines (Huang 2022, The 37 Implementation Details of PPO, detail 3)."""
    max_grad_norm: float = 1.0
    """Gradients with a larger norm are scaled down to it."""

    epochs: int = 2
    """Passes over the batch within a step."""
    minibatches: int = 1
    """Optimizer steps a pass; must not exceed `batch_size`."""
    clip_range: float = 0.2
    """Of the probability ratio."""
    value_clip_range: float = 0.2
    """Of the values, reward."""
    value_coefficient: float = 0.1
    """Weight of the value loss, as in lm-human-preferences (vf_coef)."""
    gamma: float = 1.0
    """Discount, from 0 to 1; completions are short, so nothing is discounted."""
    lam: float = 0.95
    """Of generalised advantage estimation, from 0 (trust the values) to 1 (trust the sampled return)."""
    whiten_rewards: bool = False
    """Scale rewards to unit variance, mean kept, before the advantages."""

    save_steps: int = 20
    """A checkpoint after every so many steps, and at the end; 0: only at the end."""
    save_optimizer: bool = True
    """Whether checkpoints can be resumed: value head, optimizer, generator and controller, twice the size of the weights."""
    sample_every: int = 10
    """Hand text samples to the callbacks every so many steps, the first included; 0: never."""
    n_samples: int = 2
    """Completions a hand-over."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not _fits(value, field.type):
                raise InvalidConfig(f"{field.name} must be {inspect.formatannotation(field.type)}, and finite; got {value!r}")
        for name in AT_LEAST_ONE:
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in AT_LEAST_ZERO:
            self._require(name, getattr(self, name) >= 0, "0 or more")
        for name in ABOVE_ZERO:
            self._require(name, getattr(self, name) > 0, "above 0")
        for name in ("gamma", "lam"):
            self._require(name, 0 <= getattr(self, name) <= 1, "between 0 and 1")
        self._require("target_kl", self.target_kl is None or self.target_kl > 0, "above 0, or left out")
        self._require("beta", self.target_kl is None or self.beta > 0, "above 0 to be adaptive: scaling never leaves 0")
        self._require("minibatches", self.minibatches <= self.batch_size, f"{self.batch_size} (batch_size) or less")
        object.__setattr__(self, "learning_rate_spikes", tuple(_read_spike(spike) for spike in self.learning_rate_spikes))

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise InvalidConfig(f"{name} must be {wanted}; got {getattr(self, name)!r}")

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> "PPOConfig":
        """A config from what a file says.

        Raises:
            InvalidConfig: a key that does not exist, or a value that cannot be.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise InvalidConfig(f"unknown PPO setting {', '.join(map(repr, unknown))}; known are: {', '.join(known)}")
        return cls(**settings)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the update that makes step `step`, counted from 1: warm-up, schedule, then the planted spikes."""
        rate = self.learning_rate
        if step <= self.warmup_steps:
            rate *= step / (self.warmup_steps + 1)
        elif self.schedule == "linear":
            rate *= (self.max_steps - step + 1) / (self.max_steps - self.warmup_steps)
        for first_step, n_steps, factor in self.learning_rate_spikes:
            if first_step <= step < first_step + n_steps:
                rate *= factor
        return rate


def _fits(value: Any, declared: Any) -> bool:
    """Whether a value is of a field's declared type; whole numbers are floats too, booleans are no numbers."""
    members = get_args(declared) or (declared,)
    if get_origin(declared) is tuple:
        return isinstance(value, tuple | list)
    if get_origin(declared) is Literal:
        return value in members
    if isinstance(value, bool):
        return bool in members
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, members) or (float in members and isinstance(value, int))


def _read_spike(spike: Any) -> tuple[int, int, float]:
    match spike:
        case [int() as first_step, int() as n_steps, (int() | float()) as factor] if first_step >= 1 and n_steps >= 1 and factor > 0:
            return first_step, n_steps, float(factor)
    raise InvalidConfig(f"a learning rate spike must be [first step from 1, number of steps, factor above 0]; got {spike!r}")
