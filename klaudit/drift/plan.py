"""A measurement cut into shards: what each needs, and the key under which its numbers are kept.

No torch in here: a plan is made, counted and compared with a store where nothing can be measured.
"""

import hashlib
import importlib.metadata
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import rfc8785

from klaudit.drift.prompt_set import PromptSet
from klaudit.errors import InvalidConfig
from klaudit.records.drift_shard import Sampler

METHOD = "klaudit-drift/2"
"""Goes into every key: raised when the same settings would give other numbers."""

MOST_SEED = 2**53 - 1
"""The largest integer that every reader of JSON takes for itself."""

DTYPES = ("float32", "bfloat16", "float16")
"""Types that weights can be measured in, the most precise first."""

Progress = Callable[[int, int], None]
"""Called with the sequences done and their total."""


@dataclass(frozen=True, slots=True)
class MeasurementSettings:
    """How to measure.

    Raises:
        InvalidConfig: a count below 1, a temperature that is not a positive finite number, a type that is none of `DTYPES`.
    """

    max_new_tokens: int = 16
    """Tokens a completion."""
    samples_per_prompt: int = 4
    """Completions of each prompt, by each sampler."""
    seed: int = 0
    batch_size: int = 64
    """Sequences sampled and scored together; halved where memory runs out. No number depends on it."""
    temperature: float = 1.0
    """Sampled and scored at; 1 is the model itself."""
    forward: bool = True
    """Whether KL(reference || policy) is measured too, from completions of the reference."""
    n_top: int = 3
    """Largest contributors to the KL that are kept of every token."""
    shard_prompts: int = 16
    """Prompts a shard."""
    dtype: str = "float32"
    """Of the weights, one of `DTYPES`; logits are taken in float32 and KLs summed in float64 whatever it is."""

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "samples_per_prompt", "batch_size", "shard_prompts"):
            if getattr(self, name) < 1:
                raise InvalidConfig(f"MeasurementSettings.{name} must be 1 or more; got {getattr(self, name)!r}")
        if abs(self.seed) > MOST_SEED:
            raise InvalidConfig(f"MeasurementSettings.seed must be from -{MOST_SEED:,} to {MOST_SEED:,}; got {self.seed!r}")
        if self.n_top < 0:
            raise InvalidConfig(f"MeasurementSettings.n_top must be 0 or more; got {self.n_top!r}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InvalidConfig(f"MeasurementSettings.temperature must be a positive finite number; got {self.temperature!r}")
        if self.dtype not in DTYPES:
            raise InvalidConfig(f"MeasurementSettings.dtype must be one of {', '.join(DTYPES)}; got {self.dtype!r}")


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """A model by content."""

    name: str
    """Path, hub id, or the packaged model's name: what loads it."""
    digest: str
    """`sha256:` and 64 hex digits over the weights; of an adapter, over its base model's too."""
    setup_digest: str
    """Over tokenizer and configuration, which decide what the same weights say."""


@dataclass(frozen=True, slots=True)
class TaskPrompt:
    """One prompt of a shard."""

    index: int
    """Place in the prompt set, from 0."""
    text: str
    slice: str | None = None
    weight: float = 1.0
    occurrence: int = 0
    """How often the same text stands before it in the set: a repeated prompt gets completions of its own."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """What one worker needs to measure one shard: plain values, so that it travels as a pickle or as JSON."""

    checkpoint: ModelIdentity
    reference: ModelIdentity
    prompts: tuple[TaskPrompt, ...]
    samples: tuple[int, int]
    """First completion of each prompt, and the one to stop before."""
    sampler: Sampler
    settings: MeasurementSettings
    allow_pickle: bool = False
    """Whether weights that run code when they are loaded may be."""

    @property
    def n_sequences(self) -> int:
        """Completions in the shard."""
        return len(self.prompts) * (self.samples[1] - self.samples[0])

    @property
    def key(self) -> str:
        """`sha256:` and 64 hex digits over everything that decides the shard's content, as canonical JSON (RFC 8785).

        Names and paths of models have no part in it, nor has the batch size.
        """
        settings = self.settings
        content: Any = {
            "method": METHOD,
            "checkpoint": [self.checkpoint.digest, self.checkpoint.setup_digest],
            "reference": [self.reference.digest, self.reference.setup_digest],
            "prompts": [asdict(prompt) for prompt in self.prompts],
            "samples": list(self.samples),
            "sampler": self.sampler,
            "sampling": {"max_new_tokens": settings.max_new_tokens, "seed": settings.seed, "temperature": settings.temperature},
            "n_top": settings.n_top,
        }
        # What was measured before other types could be chosen was measured in float32, and keeps its keys.
        if settings.dtype != "float32":
            content["dtype"] = settings.dtype
        return "sha256:" + hashlib.sha256(rfc8785.dumps(content)).hexdigest()


def plan_shards(
    checkpoint: ModelIdentity,
    reference: ModelIdentity,
    *,
    prompts: PromptSet,
    settings: MeasurementSettings,
    samples: tuple[int, int] | None = None,
    allow_pickle: bool = False,
) -> tuple[ShardTask, ...]:
    """The tasks of one checkpoint: the policy's completions, then the reference's where the forward direction is asked for.

    Args:
        checkpoint: from `identify_model`.
        reference: likewise.
        prompts: at least two different ones.
        settings: of the measurement.
        samples: which completions of each prompt, first and stop; None: the first `samples_per_prompt`. Later ones add to what is measured.
        allow_pickle: as in `ShardTask`.

    Raises:
        InvalidConfig: fewer than two different prompts, no samples.
    """
    if len(set(prompts.prompts)) < 2:
        raise InvalidConfig(f"A confidence interval over prompts needs at least 2 different ones; prompt set {prompts.name!r} holds 1")
    first, stop = samples or (0, settings.samples_per_prompt)
    if not 0 <= first < stop:
        raise InvalidConfig(f"Expected samples (first, stop) with 0 <= first < stop; got {samples!r}")
    samplers: tuple[Sampler, ...] = ("policy", "reference") if settings.forward else ("policy",)
    listed = tuple(_list_prompts(prompts))
    size = settings.shard_prompts
    return tuple(
        ShardTask(checkpoint, reference, listed[start : start + size], (first, stop), sampler, settings, allow_pickle)
        for sampler in samplers
        for start in range(0, len(listed), size)
    )


def describe_settings(prompts: PromptSet, settings: MeasurementSettings) -> dict[str, Any]:
    """What is needed to measure again, as JSON: the `settings` of a DriftMeasurement and of a DriftProfile."""
    return {
        "prompt_set": prompts.name,
        "prompt_set_digest": prompts.digest,
        "n_prompts": len(prompts.prompts),
        "max_new_tokens": settings.max_new_tokens,
        "samples_per_prompt": settings.samples_per_prompt,
        "seed": settings.seed,
        "temperature": settings.temperature,
        "dtype": settings.dtype,
        "method": METHOD,
        "klaudit": importlib.metadata.version("klaudit"),
    }


def _list_prompts(prompts: PromptSet) -> Iterator[TaskPrompt]:
    seen: Counter[str] = Counter()
    for index, text in enumerate(prompts.prompts):
        yield TaskPrompt(index, text, prompts.slice_of(index), prompts.weight_of(index), occurrence=seen[text])
        seen[text] += 1
