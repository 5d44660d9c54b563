"""The checkpoints of a run against the reference, one after the other."""

import importlib.metadata
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from klaudit.digests import digest_weights
from klaudit.drift.measurement import Progress, measure_drift
from klaudit.drift.prompt_set import PromptSet
from klaudit.errors import ModelNotFound
from klaudit.models.language_model import LanguageModel, load_language_model
from klaudit.records import DriftMeasurement, KLSeries, ReferenceModel

CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)")
"""What Hugging Face trainers, TRL and klaudit's own call a saved policy; the number is the updates done."""


@dataclass(frozen=True, slots=True)
class CheckpointSource:
    """Where a saved policy lies."""

    path: Path
    """Directory with config, tokenizer and safetensors."""
    step: int | None
    """Updates done when it was saved; None for a checkpoint of no run."""


def find_checkpoints(directory: str | Path) -> tuple[CheckpointSource, ...]:
    """The directories `checkpoint-N` in a trainer's output directory, by N.

    Raises:
        ModelNotFound: no such directory, or no checkpoint in it.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ModelNotFound(f"Expected a directory with checkpoint-N in it; there is none at {str(directory)!r}")
    found = [
        CheckpointSource(path=path, step=int(match[1]))
        for path in directory.iterdir()
        if path.is_dir() and (match := CHECKPOINT_NAME.fullmatch(path.name))
    ]
    if not found:
        raise ModelNotFound(f"No directory checkpoint-N (such as checkpoint-20) in {str(directory)!r}; give the trainer's output directory")
    return tuple(sorted(found, key=lambda source: (source.step, source.path)))


def measure_checkpoints(
    checkpoints: Sequence[CheckpointSource],
    *,
    reference: str,
    prompts: PromptSet,
    max_new_tokens: int,
    samples_per_prompt: int,
    seed: int,
    batch_size: int,
    run_id: str | None = None,
    on_progress: Progress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[DriftMeasurement]:
    """Measure each checkpoint at temperature 1; three records each (full, k1, k3), given out as soon as a checkpoint is done.

    Every checkpoint is measured with the same seed, prompts and settings. At most two models are in memory. Arguments as for
    `measure_drift`; `reference` is a path, a hub id or the packaged model's name, loaded once.

    Raises:
        ModelNotFound: a checkpoint that is no directory, at the call; a reference or checkpoint that cannot be loaded, when its turn comes.
        InvalidConfig: as `measure_drift`, when its turn comes.
    """
    for source in checkpoints:
        if not source.path.is_dir():
            raise ModelNotFound(
                f"No checkpoint directory at {str(source.path)!r}; expected config.json, a tokenizer and *.safetensors in it"
            )
    sampling = {"max_new_tokens": max_new_tokens, "samples_per_prompt": samples_per_prompt, "seed": seed, "batch_size": batch_size}
    return _measure_each(
        checkpoints, reference=reference, prompts=prompts, sampling=sampling, run_id=run_id, on_progress=on_progress, clock=clock
    )


def _measure_each(
    checkpoints: Sequence[CheckpointSource],
    *,
    reference: str,
    prompts: PromptSet,
    sampling: Mapping[str, int],
    run_id: str | None,
    on_progress: Progress | None,
    clock: Callable[[], datetime],
) -> Iterator[DriftMeasurement]:
    settings = describe_settings(prompts, sampling=sampling)
    reference_model = load_language_model(reference)
    identity = ReferenceModel(name=reference, digest=_digest(reference_model))
    n_sequences = len(prompts.prompts) * sampling["samples_per_prompt"]
    for index, source in enumerate(checkpoints):

        def report(done: int, _: int, before: int = index * n_sequences) -> None:
            if on_progress is not None:
                on_progress(before + done, len(checkpoints) * n_sequences)

        policy = load_language_model(source.path)
        measured = measure_drift(policy, reference_model, prompts=prompts, on_progress=report, **sampling)
        digest, measured_at = _digest(policy), clock()
        # Released before the next one is loaded.
        del policy
        for one in measured:
            series = KLSeries(
                kind="reference", estimator=one.estimator, unit="nats_per_sequence", aggregation="batch_mean", temperature=1.0
            )
            yield DriftMeasurement(
                checkpoint=str(source.path),
                reference=identity,
                series=series,
                value=one.value,
                low=one.low,
                high=one.high,
                n_sequences=one.n_sequences,
                mean_length=one.mean_length,
                measured_at=measured_at,
                run_id=run_id,
                step=source.step,
                checkpoint_digest=digest,
                settings=settings,
            )


def describe_settings(prompts: PromptSet, *, sampling: Mapping[str, int]) -> dict[str, Any]:
    """What is needed to measure again, as JSON."""
    return {
        "prompt_set": prompts.name,
        "prompt_set_digest": prompts.digest,
        "n_prompts": len(prompts.prompts),
        **sampling,
        "temperature": 1.0,
        "klaudit": importlib.metadata.version("klaudit"),
    }


def _digest(model: LanguageModel) -> str | None:
    return None if model.path is None else digest_weights(model.path)
