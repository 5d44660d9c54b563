"""Saved policies on disk."""

import re
from dataclasses import dataclass
from pathlib import Path

from klaudit.errors import ModelNotFound

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
