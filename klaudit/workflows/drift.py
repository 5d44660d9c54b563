"""Measure the drift of a run's checkpoints, and keep it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from klaudit.errors import InvalidConfig, MissingExtra, ModelNotFound
from klaudit.records import DriftMeasurement
from klaudit.store import Store

if TYPE_CHECKING:
    from klaudit.drift.checkpoints import CheckpointSource
    from klaudit.drift.prompt_set import PromptSet

Progress = Callable[[int, int], None]
"""Called with sequences done and sequences in all, over all checkpoints."""


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """How to measure."""

    max_new_tokens: int = 16
    """Tokens a completion."""
    samples_per_prompt: int = 4
    seed: int = 0
    batch_size: int = 32
    """Sequences at a time."""


def list_run_checkpoints(store: Store, run_id: str) -> tuple["CheckpointSource", ...]:
    """The run's checkpoints whose files are still there, by step; of one directory that was saved twice, the later.

    Only an absolute path says where files are: a replayed run knows bare names.

    Raises:
        ModelNotFound: the run saved none, or none is left on disk.
    """
    from klaudit.drift.checkpoints import CheckpointSource

    saved = store.checkpoints.list(run_id)
    if not saved:
        raise ModelNotFound("the run has no checkpoints: let its trainer save some, or name a directory with --checkpoints")
    latest = {Path(one.path): one.step for one in saved}
    present = [CheckpointSource(path, step) for path, step in latest.items() if path.is_absolute() and path.is_dir()]
    if not present:
        raise ModelNotFound(f"none of the run's {len(saved)} checkpoints is on disk any more; the first was {saved[0].path}")
    return tuple(sorted(present, key=lambda one: (one.step or 0, one.path)))


def measure_drift(
    *,
    reference: str,
    checkpoints: Sequence["CheckpointSource"],
    prompts: "PromptSet",
    settings: DriftSettings,
    run_id: str | None = None,
    store: Store | None = None,
    on_progress: Progress | None = None,
) -> tuple[DriftMeasurement, ...]:
    """Measure each checkpoint against the reference; with a store, each is kept as soon as it is measured.

    Raises:
        MissingExtra: torch or transformers is not installed.
        ModelNotFound: a model is not where it was said to be.
        InvalidConfig: a checkpoint has another tokenizer or vocabulary than the reference.
    """
    try:
        from klaudit.drift.checkpoints import measure_checkpoints
    except ImportError as error:
        raise MissingExtra("Measuring drift", "train") from error
    if not checkpoints:
        raise InvalidConfig("expected at least one checkpoint to measure; got none")
    measured: list[DriftMeasurement] = []
    for one in measure_checkpoints(
        checkpoints,
        reference=reference,
        prompts=prompts,
        max_new_tokens=settings.max_new_tokens,
        samples_per_prompt=settings.samples_per_prompt,
        seed=settings.seed,
        batch_size=settings.batch_size,
        run_id=run_id,
        on_progress=on_progress,
    ):
        if store is not None:
            store.drift.add_all([one])
        measured.append(one)
    return tuple(measured)
