"""Who measures shards: this machine, one after the other. `ray_executor` has the other member."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch

from klaudit.drift.loaded_model import LoadedModel
from klaudit.drift.passages import Passages
from klaudit.drift.plan import ModelIdentity, Progress, ShardTask
from klaudit.drift.retention import measure_retention
from klaudit.drift.shard import measure_shard
from klaudit.models.language_model import load_language_model
from klaudit.records import DriftShard, Retention


class Executor(Protocol):
    """Measures shards wherever it can."""

    def execute(self, tasks: Sequence[ShardTask], *, on_progress: Progress | None = None) -> Iterator[DriftShard]:
        """Give out each shard as soon as it is measured, in any order; `DriftShard.key` is its task's.

        Args:
            tasks: not measured yet.
            on_progress: called with sequences done and sequences in all, as they are done.

        Raises:
            InvalidConfig: policy and reference that do not share a vocabulary, a prompt that does not fit into the context.
            ModelNotFound: a model is not where its task says.
            UnsupportedModel: pickles that are not allowed.
            OutOfMemory: not even one sequence fits.
        """
        ...

    def measure_retention(
        self,
        checkpoint: ModelIdentity,
        reference: ModelIdentity,
        *,
        passages: Passages,
        batch_size: int,
        dtype: str = "float32",
        allow_pickle: bool = False,
    ) -> Retention:
        """How well the checkpoint still predicts the passages.

        Raises:
            InvalidConfig: models that do not share a tokenizer, passages too short to say anything.
            ModelNotFound: a model is not where its identity says.
            UnsupportedModel: pickles that are not allowed.
            OutOfMemory: not even one passage fits.
        """
        ...


class ShardWorker:
    """Measures one shard after the other, and keeps what the next may need: the two models used last, with what they sampled.

    Args:
        device: what torch calls it; None: the GPU where there is one.
    """

    def __init__(self, *, device: str | None = None) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._loaded: dict[tuple[str, str, str], LoadedModel] = {}

    def measure(self, task: ShardTask, *, on_progress: Progress | None = None) -> DriftShard:
        """Measure one shard; errors as `Executor.execute`.

        Args:
            task: of the shard.
            on_progress: called with the sequences of this shard done, and their total.
        """
        policy, reference = self._load(task.checkpoint, task.reference, dtype=task.settings.dtype, allow_pickle=task.allow_pickle)
        return measure_shard(policy, reference, task, on_progress=on_progress)

    def measure_retention(
        self,
        checkpoint: ModelIdentity,
        reference: ModelIdentity,
        *,
        passages: Passages,
        batch_size: int,
        dtype: str = "float32",
        allow_pickle: bool = False,
    ) -> Retention:
        """As `Executor.measure_retention`; what the reference makes of the passages is measured once."""
        policy, loaded_reference = self._load(checkpoint, reference, dtype=dtype, allow_pickle=allow_pickle)
        return measure_retention(policy, loaded_reference, passages=passages, batch_size=batch_size)

    def _load(self, *wanted: ModelIdentity, dtype: str, allow_pickle: bool) -> list[LoadedModel]:
        """The models, in that order. What is not wanted is released before anything is loaded."""
        keys = [(one.digest, one.setup_digest, dtype) for one in wanted]
        self._loaded = {key: model for key, model in self._loaded.items() if key in keys}
        for key, one in zip(keys, wanted, strict=True):
            if key not in self._loaded:
                language_model = load_language_model(one.name, dtype=getattr(torch, dtype), allow_pickle=allow_pickle)
                model: Any = language_model.model
                model.to(self.device)
                self._loaded[key] = LoadedModel(language_model)
        return [self._loaded[key] for key in keys]


class LocalExecutor:
    """Measures in this process: at most two models in memory, the reference loaded once and each checkpoint once.

    Args:
        device: as for ShardWorker.
    """

    def __init__(self, *, device: str | None = None) -> None:
        self._worker = ShardWorker(device=device)

    def execute(self, tasks: Sequence[ShardTask], *, on_progress: Progress | None = None) -> Iterator[DriftShard]:
        """As `Executor.execute`, the tasks of a checkpoint one after the other, in the order in which checkpoints first appear."""
        n_all, n_before = sum(task.n_sequences for task in tasks), 0
        places = {name: place for place, name in reversed([*enumerate(task.checkpoint.digest for task in tasks)])}

        def report(n_done: int, _: int) -> None:
            if on_progress is not None:
                on_progress(n_before + n_done, n_all)

        for task in sorted(tasks, key=lambda task: places[task.checkpoint.digest]):
            yield self._worker.measure(task, on_progress=report)
            n_before += task.n_sequences

    def measure_retention(
        self,
        checkpoint: ModelIdentity,
        reference: ModelIdentity,
        *,
        passages: Passages,
        batch_size: int,
        dtype: str = "float32",
        allow_pickle: bool = False,
    ) -> Retention:
        """As `Executor.measure_retention`."""
        return self._worker.measure_retention(
            checkpoint, reference, passages=passages, batch_size=batch_size, dtype=dtype, allow_pickle=allow_pickle
        )
