import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from klaudit.drift.checkpoints import CheckpointSource
from klaudit.drift.executor import LocalExecutor
from klaudit.drift.passages import Passages
from klaudit.drift.plan import MeasurementSettings, ModelIdentity, Progress, ShardTask
from klaudit.drift.precision import Precision
from klaudit.drift.prompt_set import PromptSet
from klaudit.errors import InvalidConfig, ModelNotFound, StoreError
from klaudit.models.language_model import LanguageModel
from klaudit.records import Checkpoint, DriftMeasurement, DriftShard, Retention, Run
from klaudit.store import Store, open_store
from klaudit.workflows.drift import DriftRequest, MeasuredDrift, list_run_checkpoints, measure_drift, plan_drift
from klaudit.workflows.ledger import verify_ledger
from tests.drift.tiny_models import WORDS, add_weight_noise, build_model

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
PROMPTS = PromptSet(
    "tiny", ("a", "b c", "d e f", "g", "a a b", "c g", "e", "f d"), slices=("x", "x", "y", "y", "x", "y", "x", "y"), weights=(1, 2) * 4
)
PASSAGES = Passages("short", ("a b c d", "e f g a", "b b d"))
SETTINGS = MeasurementSettings(max_new_tokens=3, samples_per_prompt=2, seed=3, shard_prompts=3)
N_SHARDS = 6
"""Of one checkpoint: three parts of the prompts, both directions."""


def save(store: Store, path: Path | str, *, step: int, segment: int = 0) -> None:
    store.checkpoints.add(Checkpoint("r1", step, str(path), NOW, segment=segment))


@pytest.fixture
def store_with_run(store: Store) -> Store:
    store.runs.add(Run(id="r1", name="run", started_at=NOW))
    return store


def test_a_directory_that_two_segments_saved_to_is_listed_once_as_the_later_left_it(store_with_run: Store, tmp_path: Path) -> None:
    for name in ("first", "last"):
        (tmp_path / name).mkdir()
    save(store_with_run, tmp_path / "last", step=4)
    save(store_with_run, tmp_path / "first", step=5)
    save(store_with_run, tmp_path / "last", step=6, segment=1)
    expected = (CheckpointSource(tmp_path / "first", 5), CheckpointSource(tmp_path / "last", 6))
    assert list_run_checkpoints(store_with_run, "r1") == expected


def test_a_bare_name_is_not_a_directory_that_happens_to_be_called_so(
    store_with_run: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoint-20").mkdir()
    monkeypatch.chdir(tmp_path)
    save(store_with_run, "checkpoint-20", step=20)
    with pytest.raises(ModelNotFound, match="none of the run's 1 checkpoints is on disk"):
        list_run_checkpoints(store_with_run, "r1")


def save_model(language_model: LanguageModel, path: Path) -> CheckpointSource:
    language_model.model.save_pretrained(path)
    language_model.tokenizer.save_pretrained(path)
    return CheckpointSource(path, int(path.name.rpartition("-")[2]) if "-" in path.name else None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, and two checkpoints that left it."""
    directory, base = tmp_path_factory.mktemp("models"), build_model()
    save_model(base, directory / "base")
    save_model(add_weight_noise(base, relative=0.1), directory / "checkpoint-2")
    save_model(add_weight_noise(base, relative=0.3), directory / "checkpoint-10")
    return directory


def ask(models: Path, **options: Any) -> DriftRequest:
    checkpoints = tuple(CheckpointSource(models / f"checkpoint-{step}", step) for step in (2, 10))
    asked: dict[str, Any] = {"reference": str(models / "base"), "checkpoints": checkpoints, "prompts": PROMPTS, "settings": SETTINGS}
    return DriftRequest(**asked | {"run_id": "r1"} | options)


class CountingExecutor:
    """This process, in the opposite order, dying before a given shard; remembers what it was asked for."""

    def __init__(self, *, dies_before: int | None = None) -> None:
        self._local = LocalExecutor(device="cpu")
        self._dies_before = dies_before
        self.keys: list[str] = []
        self.n_retentions = 0

    def execute(self, tasks: Sequence[ShardTask], *, on_progress: Progress | None = None) -> Iterator[DriftShard]:
        for shard in self._local.execute(tasks[::-1], on_progress=on_progress):
            if len(self.keys) == self._dies_before:
                raise KeyboardInterrupt
            self.keys.append(shard.key)
            yield shard

    def measure_retention(self, checkpoint: ModelIdentity, reference: ModelIdentity, **options: Any) -> Retention:
        self.n_retentions += 1
        return self._local.measure_retention(checkpoint, reference, **options)


def run(store: Store, request: DriftRequest, executor: CountingExecutor | None = None) -> MeasuredDrift:
    return measure_drift(plan_drift(request), store, executor=executor)


def list_numbers(measured: Sequence[DriftMeasurement]) -> list[DriftMeasurement]:
    """Measurements without the time of the measurement."""
    return [replace(one, measured_at=NOW) for one in measured]


def test_a_request_gives_rows_of_both_directions_and_slices_and_a_profile_and_keeps_them(store_with_run: Store, models: Path) -> None:
    measured = run(store_with_run, ask(models, passages=PASSAGES))
    assert [one.is_known for one in measured.checkpoints] == [False, False]
    assert {(one.step, one.slice, one.series.estimator, one.series.direction) for one in measured.measurements} == {
        (step, part, estimator, direction)
        for step in (2, 10)
        for part in (None, "x", "y")
        for estimator in ("full", "k1", "k3")
        for direction in ("reverse", "forward")
    }
    assert store_with_run.drift.list("r1") == list(measured.measurements)
    assert store_with_run.drift.list_profiles("r1") == list(measured.profiles)
    first, second = measured.profiles
    assert [one.layer for one in first.layers] == ["embedding", "layer 0", "final norm", "head"]
    assert first.layers[0].relative_l2 < second.layers[0].relative_l2
    assert first.retention is not None
    assert second.retention is not None
    assert (first.retention.text, first.retention.text_digest, first.retention.n_passages) == ("short", PASSAGES.digest, 3)
    assert first.retention.reference_nats == second.retention.reference_nats
    assert first.retention.policy_nats != second.retention.policy_nats
    assert {one.slice for one in first.contrasts} == {"x", "y"}
    assert len(first.shards) == N_SHARDS
    assert len(store_with_run.drift.list_shards(first)) == N_SHARDS
    assert verify_ledger(store_with_run).breaks == ()


def test_what_is_measured_is_not_measured_again(store_with_run: Store, models: Path) -> None:
    first = run(store_with_run, ask(models, passages=PASSAGES))
    seen: list[tuple[int, int]] = []
    executor = CountingExecutor()
    again = measure_drift(
        plan_drift(ask(models, passages=PASSAGES)), store_with_run, executor=executor, on_progress=lambda *done: seen.append(done)
    )
    assert (executor.keys, executor.n_retentions, seen) == ([], 0, [(64, 64)])
    assert [one.is_known for one in again.checkpoints] == [True, True]
    assert (again.measurements, again.profiles) == (first.measurements, first.profiles)
    assert store_with_run.drift.list("r1") == list(first.measurements)
    # Without a text, and with another batch size, it is the same measurement.
    request = ask(models, settings=replace(SETTINGS, batch_size=3))
    assert run(store_with_run, request, executor).profiles == first.profiles
    assert executor.keys == []


class OvertakenExecutor(CountingExecutor):
    """Another process measures all that is asked for while this one is at its first text."""

    def __init__(self, store_url: str, request: DriftRequest) -> None:
        super().__init__()
        self._store_url = store_url
        self._request = request

    def measure_retention(self, *arguments: Any, **options: Any) -> Retention:
        if self.n_retentions == 0:
            with open_store(self._store_url) as other:
                run(other, self._request)
        return super().measure_retention(*arguments, **options)


def test_what_another_process_stored_meanwhile_is_given_back_as_it_is_and_not_stored_twice(
    store_with_run: Store, store_url: str, models: Path
) -> None:
    request = ask(models, passages=PASSAGES, with_matrix=True)
    seen: list[tuple[int, int]] = []
    overtaken = OvertakenExecutor(store_url, request)
    measured = measure_drift(plan_drift(request), store_with_run, executor=overtaken, on_progress=lambda *done: seen.append(done))
    # Of the distances nothing was left to measure.
    assert (sorted(seen), seen[-1][0]) == (seen, seen[-1][1])
    assert [one.is_known for one in measured.checkpoints] == [True, True]
    assert store_with_run.drift.list_profiles("r1") == list(measured.profiles)
    assert store_with_run.drift.list("r1") == list(measured.measurements)
    assert sorted(map(repr, store_with_run.drift.list_distances("r1"))) == sorted(map(repr, measured.distances))
    assert verify_ledger(store_with_run).breaks == ()


def test_another_type_of_weights_is_another_measurement_text_and_distances_included(store_with_run: Store, models: Path) -> None:
    whole = run(store_with_run, ask(models, passages=PASSAGES, with_matrix=True))
    executor = CountingExecutor()
    half = run(store_with_run, ask(models, passages=PASSAGES, with_matrix=True, settings=replace(SETTINGS, dtype="bfloat16")), executor)
    assert len(executor.keys) == len(set(executor.keys)) > 2 * N_SHARDS
    assert executor.n_retentions == 2
    assert [one.is_known for one in half.checkpoints] == [False, False]
    assert {one.settings["dtype"] for one in half.measurements} == {one.settings["dtype"] for one in half.distances} == {"bfloat16"}
    for ours, theirs in zip(half.profiles, whole.profiles, strict=True):
        assert ours.retention is not None
        assert theirs.retention is not None
        assert ours.retention.reference_nats != theirs.retention.reference_nats
        assert ours.retention.rise.value == pytest.approx(theirs.retention.rise.value, abs=0.02)
        assert ours.layers == theirs.layers
    again = run(store_with_run, ask(models, passages=PASSAGES, with_matrix=True))
    assert (again.measurements, again.distances) == (whole.measurements, whole.distances)


def test_an_interrupted_measurement_continues_with_the_same_numbers_in_whatever_order(
    store_with_run: Store, models: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    dying = CountingExecutor(dies_before=5)
    with pytest.raises(KeyboardInterrupt):
        run(store_with_run, ask(models), dying)
    assert store_with_run.drift.list_stored(dying.keys) == set(dying.keys)
    assert (store_with_run.drift.list("r1"), store_with_run.drift.list_profiles("r1")) == ([], [])
    rest, seen = CountingExecutor(), []
    continued = measure_drift(
        plan_drift(ask(models)), store_with_run, executor=rest, on_progress=lambda *done: seen.append(done), tell=told.append
    )
    assert len(set(dying.keys) | set(rest.keys)) == len(dying.keys) + len(rest.keys) == 2 * N_SHARDS
    n_before = sum(len(one.sequences) for one in store_with_run.drift.find_shards(dying.keys).values())
    assert told == [f"{n_before} of 64 sequences were measured before: going on from there"]
    assert seen[0] == (n_before, 64)
    assert seen[-1] == (64, 64)
    assert sorted(seen) == seen
    with open_store(f"sqlite:///{tmp_path}/other.db", create=True) as other:
        other.runs.add(Run(id="r1", name="run", started_at=NOW))
        assert list_numbers(run(other, ask(models)).measurements) == list_numbers(continued.measurements)


KILLED = """
import os, signal, sys
from pathlib import Path
from klaudit.store import open_store
from klaudit.store.drift import DriftRepository
from klaudit.workflows.drift import measure_drift, plan_drift
from tests.workflows.test_drift import PASSAGES, ask

add_shard, kept = DriftRepository.add_shard, []

def add_and_die(self, shard, **options):
    add_shard(self, shard, **options)
    kept.append(shard.key)
    if len(kept) == 8:
        os.kill(os.getpid(), signal.SIGKILL)

DriftRepository.add_shard = add_and_die
with open_store(sys.argv[1]) as store:
    measure_drift(plan_drift(ask(Path(sys.argv[2]), passages=PASSAGES)), store)
"""


def test_a_measurement_that_is_killed_goes_on_where_it_was(store_url: str, models: Path, tmp_path: Path) -> None:
    for url in (store_url, f"sqlite:///{tmp_path}/other.db"):
        with open_store(url, create=True) as store:
            store.runs.add(Run(id="r1", name="run", started_at=NOW))
    # Another number of threads rounds otherwise.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", KILLED, store_url, str(models)]
    killed = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    executor, request = CountingExecutor(), ask(models, passages=PASSAGES)
    with open_store(store_url) as store, open_store(f"sqlite:///{tmp_path}/other.db") as other:
        # The first checkpoint was done, the second begun.
        assert [one.step for one in store.drift.list_profiles("r1")] == [2]
        continued = run(store, request, executor)
        assert [one.is_known for one in continued.checkpoints] == [True, False]
        assert (len(executor.keys), executor.n_retentions) == (2 * N_SHARDS - 8, 1)
        whole = run(other, request)
        assert list_numbers(continued.measurements) == list_numbers(whole.measurements)
        assert [replace(one, measured_at=NOW) for one in continued.profiles] == [replace(one, measured_at=NOW) for one in whole.profiles]
        assert verify_ledger(store).breaks == ()


def test_samples_are_added_until_the_interval_is_narrow_enough_and_what_a_round_added_is_measured_once(
    store_with_run: Store, models: Path
) -> None:
    told: list[str] = []
    request, executor = ask(models, within=0.35), CountingExecutor()
    measured = measure_drift(plan_drift(request), store_with_run, executor=executor, tell=told.append)
    rows = {(one.step, one.series.direction): one for one in measured.measurements if one.series.estimator == "full" and one.slice is None}
    assert rows[10, "reverse"].n_sequences > 16, "a second round was needed"
    assert rows[2, "reverse"].n_sequences == 16
    # Rounds are for the policy's samples.
    assert rows[10, "forward"].n_sequences == 16
    for line, step in zip(told, (2, 10), strict=True):
        one = rows[step, "reverse"]
        half_width = (one.high - one.low) / 2 / one.value
        assert half_width <= 0.35
        said = f"half the 95% interval is {100 * half_width:.3g}% of the value with {one.n_sequences // 8} completions a prompt; asked for was 35%"
        assert line == f"checkpoint-{step}: {said}"
        assert one.settings["samples_per_prompt"] == one.n_sequences // 8
    n_measured = len(executor.keys)
    again = measure_drift(plan_drift(request), store_with_run, executor=executor)
    assert (len(executor.keys), again.measurements) == (n_measured, measured.measurements)
    assert [one.is_known for one in again.checkpoints] == [True, True]


@pytest.mark.parametrize(
    ("precision", "said"),
    [
        (
            Precision(0.5, is_reached=False, samples_needed=None, prompts_needed=17),
            "About 17 different prompts would: give them with --prompts",
        ),
        (
            Precision(math.inf, is_reached=True, samples_needed=2, prompts_needed=8),
            "the drift cannot be told from 0 with 2 completions a prompt",
        ),
        (Precision(math.nan, is_reached=False, samples_needed=None, prompts_needed=9), "the drift is no finite number with 2 completions"),
        (
            Precision(0.04, is_reached=True, samples_needed=2, prompts_needed=8),
            "is 4% of the value with 2 completions a prompt; asked for was 45%",
        ),
    ],
)
def test_where_more_samples_are_of_no_use_none_are_drawn_and_the_person_is_told_why(
    store_with_run: Store, models: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, said: str
) -> None:
    monkeypatch.setattr("klaudit.drift.precision.judge_precision", lambda shards, *, within: precision)
    told: list[str] = []
    request, executor = ask(models, within=0.45, settings=replace(SETTINGS, forward=False)), CountingExecutor()
    measure_drift(plan_drift(request), store_with_run, executor=executor, tell=told.append)
    assert len(executor.keys) == N_SHARDS
    assert [line.partition(":")[0] for line in told] == ["checkpoint-2", "checkpoint-10"]
    assert all(said in line for line in told)


def test_rounds_grow_at_most_fourfold_and_end_somewhere(store_with_run: Store, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klaudit.workflows.drift.MOST_SAMPLES", 10)
    monkeypatch.setattr("klaudit.drift.precision.judge_precision", lambda shards, *, within: Precision(0.5, False, 5_000, 17))
    told: list[str] = []
    executor = CountingExecutor()
    request = ask(
        models, within=0.45, checkpoints=(CheckpointSource(models / "checkpoint-2", 2),), settings=replace(SETTINGS, forward=False)
    )
    measured = measure_drift(plan_drift(request), store_with_run, executor=executor, tell=told.append)
    # 2, 8 and 10 completions a prompt.
    assert len(executor.keys) == 3 * N_SHARDS // 2
    assert {one.settings["samples_per_prompt"] for one in measured.measurements} == {10}
    assert told == [
        "checkpoint-2: half the 95% interval is 50% of the value with 10 completions a prompt; "
        "45% would take about 5,000 completions a prompt, and at most 10 are sampled. Be content with --ci 0.5, or give more prompts with "
        "--prompts: about 17 different ones would do with 10 completions each"
    ]


def test_another_text_is_measured_without_a_new_completion(store_with_run: Store, models: Path) -> None:
    run(store_with_run, ask(models))
    executor = CountingExecutor()
    measured = run(store_with_run, ask(models, passages=PASSAGES), executor)
    assert (executor.keys, executor.n_retentions) == ([], 2)
    assert [one.retention is not None for one in measured.profiles] == [True, True]
    # More completions of the same models: the text is not read again.
    more = run(store_with_run, ask(models, passages=PASSAGES, settings=replace(SETTINGS, forward=False)), executor)
    assert executor.n_retentions == 2
    assert [one.retention for one in more.profiles] == [one.retention for one in measured.profiles]


def test_each_of_two_texts_is_found_again_whichever_came_last(store_with_run: Store, models: Path) -> None:
    texts = (PASSAGES, replace(PASSAGES, name="backwards", texts=PASSAGES.texts[::-1]))
    for text in texts:
        run(store_with_run, ask(models, passages=text))
    for text in texts:
        again = run(store_with_run, ask(models, passages=text))
        assert [one.is_known for one in again.checkpoints] == [True, True]
        assert {one.retention.text for one in again.profiles if one.retention} == {text.name}


def test_a_stored_shard_that_lost_a_completion_is_refused(store_with_run: Store, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = store_with_run.drift.find_shards

    def find_fewer(keys: Sequence[str]) -> dict[str, DriftShard]:
        return {key: replace(shard, sequences=shard.sequences[1:]) for key, shard in find(keys).items()}

    monkeypatch.setattr(store_with_run.drift, "find_shards", find_fewer)
    with pytest.raises(StoreError, match=r"completions of its own prompts in the row sha256:.* delete that row and measure again"):
        run(store_with_run, ask(models))


def test_distances_that_are_no_number_are_stored_once(store_with_run: Store, models: Path, tmp_path: Path) -> None:
    broken = build_model()
    for weights in broken.model.parameters():
        weights.data.fill_(math.nan)
    checkpoints = (save_model(broken, tmp_path / "checkpoint-4"), CheckpointSource(models / "checkpoint-2", 2))
    counts = []
    for _ in range(2):
        run(store_with_run, ask(models, checkpoints=checkpoints, with_matrix=True))
        counts.append(len(store_with_run.drift.list_distances("r1")))
    assert counts[0] == counts[1] > 0


def test_a_measurement_outside_of_runs_is_kept_and_serves_a_run_later(store_with_run: Store, models: Path) -> None:
    loose = run(store_with_run, ask(models, run_id=None, passages=PASSAGES))
    assert store_with_run.drift.list(None) == list(loose.measurements)
    executor = CountingExecutor()
    of_run = run(store_with_run, ask(models, passages=PASSAGES), executor)
    assert (executor.keys, executor.n_retentions) == ([], 0)
    assert [replace(one, run_id=None, measured_at=NOW) for one in of_run.measurements] == list_numbers(loose.measurements)
    store_with_run.runs.delete("r1")
    assert len(store_with_run.drift.list_shards(loose.profiles[0])) == N_SHARDS


def test_checkpoints_of_the_same_weights_have_their_completions_in_common_and_a_profile_each(
    store_with_run: Store, models: Path, tmp_path: Path
) -> None:
    same = save_model(build_model(), tmp_path / "checkpoint-1"), save_model(build_model(), tmp_path / "checkpoint-3")
    executor = CountingExecutor()
    measured = run(store_with_run, ask(models, checkpoints=same), executor)
    assert len(executor.keys) == N_SHARDS
    assert [(one.step, one.checkpoint) for one in measured.profiles] == [(1, str(same[0].path)), (3, str(same[1].path))]
    assert all(one.value == pytest.approx(0, abs=1e-6) for one in measured.measurements if one.series.estimator == "full")


def test_distances_between_checkpoints_are_measured_and_stored_once(store_with_run: Store, models: Path) -> None:
    request = ask(models, with_matrix=True, settings=replace(SETTINGS, forward=False))
    measured = run(store_with_run, request)
    names = [str(models / f"checkpoint-{step}") for step in (2, 10)]
    full = {
        (one.checkpoint, one.reference.name): one.value
        for one in measured.distances
        if one.series.estimator == "full" and one.slice is None and one.series.direction == "reverse"
    }
    assert list(full) == [(names[0], names[1]), (names[1], names[0])]
    assert all(value > 0 for value in full.values())
    assert store_with_run.drift.list("r1") == list(measured.measurements)
    assert sorted(map(repr, store_with_run.drift.list_distances("r1"))) == sorted(map(repr, measured.distances))
    executor = CountingExecutor()
    assert run(store_with_run, request, executor).distances == measured.distances
    assert executor.keys == []
    assert len(store_with_run.drift.list_distances("r1")) == len(measured.distances)


def test_a_checkpoint_of_another_vocabulary_leaves_nothing_behind(store_with_run: Store, models: Path, tmp_path: Path) -> None:
    other = save_model(build_model(words=(*WORDS, "h")), tmp_path / "checkpoint-5")
    with pytest.raises(InvalidConfig, match="must share a vocabulary"):
        run(store_with_run, ask(models, checkpoints=(other,)))
    assert (store_with_run.drift.list("r1"), store_with_run.drift.list_profiles("r1")) == ([], [])


@pytest.mark.parametrize(
    "wrong",
    [{"checkpoints": ()}, {"within": 0.0}, {"within": float("nan")}, {"within": float("inf")}, {"prompts": PromptSet("one", ("a", "a"))}],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_loaded(models: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match=r"at least|between 0 and 1"):
        plan_drift(ask(models, **wrong))


def test_a_matrix_of_one_checkpoint_is_refused_before_anything_is_loaded(models: Path) -> None:
    with pytest.raises(InvalidConfig, match="at least 2 different checkpoints"):
        plan_drift(ask(models, checkpoints=(CheckpointSource(models / "checkpoint-2", 2),), with_matrix=True))
