from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from klaudit.drift.executor import LocalExecutor
from klaudit.drift.identity import identify_model
from klaudit.drift.matrix import plan_matrix
from klaudit.drift.passages import Passages
from klaudit.drift.plan import MeasurementSettings, ModelIdentity, ShardTask, plan_shards
from klaudit.drift.summary import list_sequences
from klaudit.errors import InvalidConfig, ModelNotFound
from klaudit.models.language_model import LanguageModel, load_language_model
from klaudit.models.perplexity import measure_nats
from klaudit.models.sampling import sample_completions
from tests.drift.tasks import PROMPTS
from tests.drift.tiny_models import WORDS, add_weight_noise, build_model

SETTINGS = MeasurementSettings(max_new_tokens=3, samples_per_prompt=2, shard_prompts=3)
SaveModel = Callable[[LanguageModel, str], Path]


@pytest.fixture
def models(reference: LanguageModel, policy: LanguageModel, save_model: SaveModel) -> list[ModelIdentity]:
    """Reference and two checkpoints, on disk."""
    other = add_weight_noise(reference, relative=0.5, seed=2)
    return [identify_model(save_model(model, name)) for model, name in ((reference, "base"), (policy, "first"), (other, "second"))]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that are loaded, as they are."""
    names: list[str] = []

    def count(name: str, **options: Any) -> LanguageModel:
        names.append(Path(name).name)
        return load_language_model(name, **options)

    monkeypatch.setattr("klaudit.drift.executor.load_language_model", count)
    return names


def plan(models: list[ModelIdentity]) -> list[ShardTask]:
    base, *checkpoints = models
    return [task for one in checkpoints for task in plan_shards(one, base, prompts=PROMPTS, settings=SETTINGS)]


def test_every_task_gives_its_shard_and_each_model_is_loaded_once(models: list[ModelIdentity], loads: list[str]) -> None:
    tasks = plan(models)
    mixed = tasks[::2] + tasks[1::2]
    shards = list(LocalExecutor().execute(mixed))
    assert {shard.key for shard in shards} == {task.key for task in tasks}
    assert sorted(loads) == ["base", "first", "second"]
    assert {shard.key: shard for shard in shards} == {shard.key: shard for shard in LocalExecutor().execute(tasks)}


def test_at_most_two_models_are_in_memory(models: list[ModelIdentity], monkeypatch: pytest.MonkeyPatch) -> None:
    executor = LocalExecutor()
    held: list[int] = []

    def count(name: str, **options: Any) -> LanguageModel:
        held.append(len(executor._worker._loaded))
        return load_language_model(name, **options)

    monkeypatch.setattr("klaudit.drift.executor.load_language_model", count)
    list(executor.execute(plan(models)))
    assert held == [0, 1, 1]


def test_reference_writes_its_completions_once_for_all_checkpoints(models: list[ModelIdentity], monkeypatch: pytest.MonkeyPatch) -> None:
    writers: list[str] = []

    def count(language_model: LanguageModel, **options: Any) -> Any:
        writers.append(Path(language_model.name).name)
        return sample_completions(language_model, **options)

    monkeypatch.setattr("klaudit.drift.shard.sample_completions", count)
    shards = list(LocalExecutor().execute(plan(models)))
    assert [writers.count(name) for name in ("base", "first", "second")] == [3, 3, 3]
    # hidden states that are not kept are computed again, and are the same
    monkeypatch.setattr("klaudit.drift.loaded_model.MOST_HIDDEN_BYTES", 0)
    again = list_sequences(list(LocalExecutor().execute(plan(models))))
    for one, other in zip(list_sequences(shards), again, strict=True):
        assert one.full == pytest.approx(other.full, abs=1e-5)


def test_matrix_writes_the_completions_of_a_checkpoint_once(models: list[ModelIdentity], monkeypatch: pytest.MonkeyPatch) -> None:
    writers: list[str] = []

    def count(language_model: LanguageModel, **options: Any) -> Any:
        writers.append(Path(language_model.name).name)
        return sample_completions(language_model, **options)

    monkeypatch.setattr("klaudit.drift.shard.sample_completions", count)
    tasks = plan_matrix(models, prompts=PROMPTS, settings=SETTINGS)
    shards = list(LocalExecutor().execute(tasks))
    assert len(shards) == 6 * 3
    assert [writers.count(name) for name in ("base", "first", "second")] == [3, 3, 3]


def test_progress_runs_over_all_tasks_to_their_total(models: list[ModelIdentity]) -> None:
    seen: list[tuple[int, int]] = []
    list(LocalExecutor().execute(plan(models), on_progress=lambda *done: seen.append(done)))
    assert seen[-1] == (64, 64)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_shards_are_given_out_as_they_are_measured(models: list[ModelIdentity], loads: list[str]) -> None:
    shards = LocalExecutor().execute(plan(models))
    next(shards)
    assert "second" not in loads


def test_retention_reads_the_text_with_the_reference_once(models: list[ModelIdentity], monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[str] = []

    def count(language_model: LanguageModel, *given: Any, **options: Any) -> Any:
        readers.append(Path(language_model.name).name)
        return measure_nats(language_model, *given, **options)

    monkeypatch.setattr("klaudit.drift.loaded_model.measure_nats", count)
    executor, passages = LocalExecutor(), Passages("text", ("a b c", "d e f g", "b b a"))
    first, second = (executor.measure_retention(one, models[0], passages=passages, batch_size=2) for one in models[1:])
    assert readers == ["first", "base", "second"]
    assert first.reference_nats == second.reference_nats
    assert first.policy_nats != second.policy_nats


def test_model_that_is_gone_and_other_vocabularies_are_refused_by_name(models: list[ModelIdentity], save_model: SaveModel) -> None:
    gone = ModelIdentity("./no/such/model", models[1].digest, models[1].setup_digest)
    with pytest.raises(ModelNotFound, match="no/such/model"):
        list(LocalExecutor().execute(plan_shards(gone, models[0], prompts=PROMPTS, settings=SETTINGS)))
    longer = identify_model(save_model(build_model(words=(*WORDS, "h")), "longer"))
    with pytest.raises(InvalidConfig, match=r"longer and .*base must share a vocabulary; they have 9 and 8 tokens"):
        list(LocalExecutor().execute(plan_shards(longer, models[0], prompts=PROMPTS, settings=SETTINGS)))
