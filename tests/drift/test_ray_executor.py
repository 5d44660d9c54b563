"""On a real cluster of this machine, two workers, with models of eight tokens."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from klaudit.drift.executor import LocalExecutor
from klaudit.drift.identity import identify_model
from klaudit.drift.passages import Passages
from klaudit.drift.plan import MeasurementSettings, ShardTask, plan_shards
from klaudit.drift.prompt_set import PromptSet
from klaudit.drift.ray_executor import RayExecutor
from klaudit.errors import ClusterFailed, InvalidConfig
from klaudit.models.language_model import LanguageModel
from klaudit.records import DriftShard, MeasuredSequence
from tests.drift.tiny_models import add_weight_noise

PROMPTS = PromptSet(name="six", prompts=("a b", "c", "d e f", "b b", "f", "e a"))
SETTINGS = MeasurementSettings(max_new_tokens=5, samples_per_prompt=2, shard_prompts=1)
NUMBERS = ("full", "policy_logprobs", "reference_logprobs", "policy_entropy")

Save = Callable[[LanguageModel, str], Path]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayExecutor]:
    with RayExecutor(n_workers=2) as executor:
        yield executor


@pytest.fixture
def tasks(reference: LanguageModel, save_model: Save) -> tuple[ShardTask, ...]:
    """Of two checkpoints."""
    base = identify_model(save_model(reference, "reference"))
    paths = [save_model(add_weight_noise(reference, relative=relative), f"checkpoint-{relative}") for relative in (0.1, 0.3)]
    return tuple(task for path in paths for task in plan_shards(identify_model(path), base, prompts=PROMPTS, settings=SETTINGS))


def list_sequences(shards: list[DriftShard]) -> dict[tuple[str, int, int], MeasuredSequence]:
    return {(shard.key, one.prompt_index, one.sample): one for shard in shards for one in shard.sequences}


def require_equal(found: list[DriftShard], wanted: list[DriftShard]) -> None:
    ours, theirs = list_sequences(found), list_sequences(wanted)
    assert ours.keys() == theirs.keys()
    for place, one in ours.items():
        assert one.token_ids == theirs[place].token_ids
        for name in NUMBERS:
            assert getattr(one, name) == pytest.approx(getattr(theirs[place], name), abs=1e-6)


def test_a_cluster_that_is_not_there_is_named_with_what_to_do(tasks: tuple[ShardTask, ...]) -> None:
    """First, since a process has one connection to Ray, and the others keep theirs."""
    with RayExecutor("127.0.0.1:1") as executor, pytest.raises(ClusterFailed, match=r"No Ray cluster at '127.0.0.1:1': .*Leave --ray out"):
        next(executor.execute(tasks))


def test_a_cluster_and_this_machine_agree_and_every_sequence_is_counted(cluster: RayExecutor, tasks: tuple[ShardTask, ...]) -> None:
    told: list[tuple[int, int]] = []
    found = list(cluster.execute(tasks, on_progress=lambda done, total: told.append((done, total))))
    require_equal(found, list(LocalExecutor().execute(tasks)))
    n_sequences = sum(task.n_sequences for task in tasks)
    assert told[-1] == (n_sequences, n_sequences)
    assert len(told) == len(tasks)


def test_the_death_of_a_worker_loses_nothing(cluster: RayExecutor, tasks: tuple[ShardTask, ...]) -> None:
    running = cluster.execute(tasks)
    found = [next(running)]
    before = list(cluster._workers)
    os.kill(cluster._ray.get(before[0].actor.answer.remote()), signal.SIGKILL)
    found += running
    assert before[0] not in cluster._workers
    require_equal(found, list(LocalExecutor().execute(tasks)))


def test_a_shard_that_takes_every_worker_with_it_is_given_up(
    cluster: RayExecutor, tasks: tuple[ShardTask, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    give = RayExecutor._give

    def give_and_kill(self: RayExecutor, work: object, worker: object) -> None:
        give(self, work, worker)  # type: ignore[arg-type]
        self._ray.kill(worker.actor)  # type: ignore[attr-defined]

    monkeypatch.setattr(RayExecutor, "_give", give_and_kill)
    with pytest.raises(ClusterFailed, match=r"3 workers were lost on one shard of .*checkpoint"):
        list(cluster.execute(tasks[:1]))


def test_an_error_of_the_work_comes_as_it_was_raised_there(cluster: RayExecutor, tasks: tuple[ShardTask, ...], tmp_path: Path) -> None:
    moved = tasks[0].checkpoint.name
    Path(moved).rename(tmp_path / "moved")
    Path(tasks[-1].checkpoint.name).rename(moved)
    with pytest.raises(InvalidConfig, match=r"found other weights under .* expected sha256:.*, got sha256:"):
        list(cluster.execute(tasks[:1]))


def test_retention_of_a_cluster_is_that_of_this_machine(cluster: RayExecutor, tasks: tuple[ShardTask, ...]) -> None:
    passages = Passages(name="three", texts=("a b c d", "e f a a b", "c c d"))
    arguments = {"passages": passages, "batch_size": 2}
    found = cluster.measure_retention(tasks[0].checkpoint, tasks[0].reference, **arguments)  # type: ignore[arg-type]
    wanted = LocalExecutor().measure_retention(tasks[0].checkpoint, tasks[0].reference, **arguments)  # type: ignore[arg-type]
    assert found.rise.value == pytest.approx(wanted.rise.value, abs=1e-6)
    assert found.n_tokens == wanted.n_tokens


def test_no_worker_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="n_workers of 1 or more; got 0"):
        RayExecutor(n_workers=0)
