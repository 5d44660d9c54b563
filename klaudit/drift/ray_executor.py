"""Who measures shards: the workers of a Ray cluster, each with its models loaded once."""

import contextlib
import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from klaudit.drift.executor import ShardWorker
from klaudit.drift.identity import identify_model
from klaudit.drift.passages import Passages
from klaudit.drift.plan import ModelIdentity, Progress, ShardTask
from klaudit.errors import ClusterFailed, InvalidConfig, MissingExtra
from klaudit.records import DriftShard, Retention

MOST_LOSSES = 3
"""Workers that one shard may take down with it."""
START_SECONDS = 300.0
"""For the first worker to answer."""
CONNECT_SECONDS = 10.0
"""For a cluster to take a connection."""


class CheckedShardWorker(ShardWorker):
    """Measures on another machine, where a path may hold other weights than it does where the plan was made."""

    def __init__(self) -> None:
        super().__init__()
        self._checked: set[ModelIdentity] = set()

    def answer(self) -> int:
        """Process id of the worker, which is up."""
        return os.getpid()

    def measure_task(self, task: ShardTask) -> DriftShard:
        """As `ShardWorker.measure`.

        Raises:
            InvalidConfig: what lies under a model's name here is not what was planned.
        """
        self._check(task.checkpoint, task.reference, allow_pickle=task.allow_pickle)
        return self.measure(task)

    def measure_loss(self, checkpoint: ModelIdentity, reference: ModelIdentity, passages: Passages, arguments: dict[str, Any]) -> Retention:
        """As `ShardWorker.measure_retention`."""
        self._check(checkpoint, reference, allow_pickle=arguments["allow_pickle"])
        return self.measure_retention(checkpoint, reference, passages=passages, **arguments)

    def _check(self, *models: ModelIdentity, allow_pickle: bool) -> None:
        for model in models:
            if model in self._checked:
                continue
            found = identify_model(model.name, allow_pickle=allow_pickle)
            if found.digest != model.digest:
                raise InvalidConfig(
                    f"A worker found other weights under {model.name!r} than the machine that planned the measurement: "
                    f"expected {model.digest}, got {found.digest}. Give a path or a hub id that means the same on all machines."
                )
            self._checked.add(model)


@dataclass(eq=False)
class _Worker:
    """One actor, and what it loaded last."""

    actor: Any
    checkpoint: ModelIdentity | None = None


@dataclass
class _Work:
    """What is still to be done, and how often it was lost."""

    waiting: deque[ShardTask]
    running: dict[Any, tuple[_Worker, ShardTask]] = field(default_factory=dict)
    losses: Counter[str] = field(default_factory=Counter)

    def take(self, worker: _Worker) -> ShardTask:
        """The next task, one of the checkpoint that the worker has loaded if there is one."""
        known = (index for index, task in enumerate(self.waiting) if task.checkpoint == worker.checkpoint)
        index = next(known, 0)
        task = self.waiting[index]
        del self.waiting[index]
        return task


class RayExecutor:
    """Measures shards on Ray: a cluster by its address, or one that is started on this machine.

    A task goes to a worker that has its checkpoint loaded where there is one. A worker that dies is replaced and its task given out
    again; a task that took MOST_LOSSES workers with it is given up. What a task gives does not depend on the worker, so the numbers are
    those of LocalExecutor up to the rounding of another number of threads.

    Models are found by name on every machine: a shared directory or a hub id. Weights never travel through Ray.

    Raises:
        MissingExtra: Ray is not installed.
        InvalidConfig: fewer than one worker.
    """

    def __init__(self, address: str | None = None, *, n_workers: int = 2) -> None:
        """Start nothing yet.

        Args:
            address: of a cluster, such as `ray://host:10001` or `auto`; None: a cluster of this machine that ends with this object.
            n_workers: models that are loaded side by side.
        """
        if n_workers < 1:
            raise InvalidConfig(f"Expected n_workers of 1 or more; got {n_workers!r}")
        try:
            import ray
        except ImportError as error:
            raise MissingExtra("Measuring on Ray", "ray") from error
        self.address = address
        self.n_workers = n_workers
        self._ray: Any = ray
        self._workers: list[_Worker] = []
        self._has_connected = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def execute(self, tasks: Sequence[ShardTask], *, on_progress: Progress | None = None) -> Iterator[DriftShard]:
        """As `Executor.execute`; shards come in the order in which they are done.

        Raises:
            ClusterFailed: no cluster answers, none of its workers starts, or a shard was lost too often.
        """
        if not tasks:
            return
        n_total, n_done = sum(task.n_sequences for task in tasks), 0
        self._start()
        work, idle = _Work(deque(tasks)), list(self._workers)
        while work.waiting or work.running:
            while idle and work.waiting:
                self._give(work, idle.pop())
            shard = self._collect(work, idle)
            if shard is None:
                continue
            n_done += len(shard.sequences)
            if on_progress is not None:
                on_progress(n_done, n_total)
            yield shard

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
        """As `Executor.measure_retention`, on the worker that has the checkpoint loaded.

        Raises:
            ClusterFailed: as `execute`.
        """
        self._start()
        arguments = {"batch_size": batch_size, "dtype": dtype, "allow_pickle": allow_pickle}
        for _ in range(MOST_LOSSES):
            worker = next((one for one in self._workers if one.checkpoint == checkpoint), self._workers[0])
            worker.checkpoint = checkpoint
            try:
                retention: Retention = self._fetch(worker.actor.measure_loss.remote(checkpoint, reference, passages, arguments))
            except self._losses:
                self._replace(worker)
            else:
                return retention
        raise ClusterFailed(
            f"{MOST_LOSSES} workers were lost on the retention of {checkpoint.name}: is there enough memory for two models?"
        )

    def close(self) -> None:
        """End the workers, and the cluster if it was started here."""
        for worker in self._workers:
            with contextlib.suppress(Exception):
                self._ray.kill(worker.actor)
        self._workers.clear()
        if self._has_connected:
            self._ray.shutdown()
            self._has_connected = False

    @property
    def _losses(self) -> tuple[type[Exception], ...]:
        """What tells that a worker is gone, rather than that its work was wrong."""
        lost = self._ray.exceptions
        return (lost.RayActorError, lost.WorkerCrashedError, lost.OutOfMemoryError, lost.NodeDiedError)

    def _start(self) -> None:
        """Connect and start the workers, once."""
        if self._workers:
            return
        if not self._ray.is_initialized():
            self._connect()
        self._workers = [_Worker(self._start_actor()) for _ in range(self.n_workers)]
        ready, _ = self._ray.wait([worker.actor.answer.remote() for worker in self._workers], timeout=START_SECONDS)
        if not ready:
            resources = self._ray.cluster_resources()
            self.close()
            raise ClusterFailed(
                f"No worker started within {START_SECONDS:.0f} s; each needs 1 CPU, and the cluster has {resources.get('CPU', 0):.0f} CPUs."
            )

    def _connect(self) -> None:
        # Ray would report its use to its makers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
        try:
            _require_listener(self.address)
            if self.address is None:
                # Ray's own 15 lets workers starve where anything else runs on this machine.
                os.environ.setdefault("RAY_worker_niceness", "0")
                self._ray.init(address="local", num_cpus=self.n_workers, include_dashboard=False, **quiet)
            else:
                self._ray.init(address=self.address, **quiet)
        except (Exception, SystemExit) as error:
            # Ray raises of every kind, an exit among them: a bad address, another version, no network, no room for its shared memory.
            place = "on this machine" if self.address is None else f"at {self.address!r}"
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ClusterFailed(f"No Ray cluster {place}: {first_line}. Leave --ray out to measure in this process.") from error
        self._has_connected = True

    def _start_actor(self) -> Any:
        n_gpus = 1 if self._ray.cluster_resources().get("GPU", 0) >= self.n_workers else 0
        return self._ray.remote(num_cpus=1, num_gpus=n_gpus, max_restarts=0)(CheckedShardWorker).remote()

    def _give(self, work: _Work, worker: _Worker) -> None:
        task = work.take(worker)
        worker.checkpoint = task.checkpoint
        work.running[worker.actor.measure_task.remote(task)] = (worker, task)

    def _collect(self, work: _Work, idle: list[_Worker]) -> DriftShard | None:
        """The next shard that is done; None where a worker was lost with it."""
        done, _ = self._ray.wait(list(work.running), num_returns=1)
        worker, task = work.running.pop(done[0])
        try:
            shard: DriftShard = self._fetch(done[0])
        except self._losses as error:
            work.losses[task.key] += 1
            if work.losses[task.key] >= MOST_LOSSES:
                raise ClusterFailed(
                    f"{MOST_LOSSES} workers were lost on one shard of {task.checkpoint.name} ({type(error).__name__}): is there enough memory "
                    f"for two models? What was measured before is kept."
                ) from error
            work.waiting.appendleft(task)
            idle.append(self._replace(worker))
            return None
        idle.append(worker)
        return shard

    def _fetch(self, reference: Any) -> Any:
        """What a worker gave, or its error as it was raised there."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, Exception) else error) from None

    def _replace(self, worker: _Worker) -> _Worker:
        with contextlib.suppress(Exception):
            self._ray.kill(worker.actor)
        fresh = _Worker(self._start_actor())
        self._workers[self._workers.index(worker)] = fresh
        return fresh


def _require_listener(address: str | None) -> None:
    """Raise OSError where nothing listens at `host:port`; Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
