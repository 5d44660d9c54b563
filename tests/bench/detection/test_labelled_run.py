import functools
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from klaudit.exchange import read_steps_file
from klaudit.kl.controllers import AdaptiveBeta
from klaudit.records import StepRecord
from tests.bench.detection.kinds import HEALTHY, KINDS
from tests.bench.detection.labelled_run import LabelledRun, generate_run
from tests.bench.detection.profile import LEAST_AFTER, LEAST_BEFORE, choose_kind
from tests.bench.detection.shapes import SHAPE_NAMES
from tests.bench.detection.trace import Array

SEEDS = range(4)


@functools.cache
def generate(seed: int, kind: str) -> LabelledRun:
    return generate_run(seed, kind)


@functools.cache
def read(seed: int, kind: str) -> tuple[StepRecord, ...]:
    return generate(seed, kind).read()[1]


def take_kl(run: LabelledRun) -> Array:
    """The governing readings as a trainer logged them."""
    key = "kl_full" if "kl_full" in run.header["series"] else "kl"
    values = [step["metrics"][key] if key != "kl" else step["kl"] for step in run.steps]
    return np.array([float(value) for value in values])


def find_at(run: LabelledRun) -> int:
    """Position of the onset."""
    assert run.planted is not None
    return [step["step"] for step in run.steps].index(run.planted.onset)


@pytest.mark.parametrize("kind", [HEALTHY, *KINDS])
def test_a_seed_and_a_kind_always_give_the_same_run(kind: str) -> None:
    assert json.dumps(generate_run(3, kind).steps) == json.dumps(generate(3, kind).steps)


def test_a_generated_run_is_a_file_that_can_be_imported(tmp_path: Path) -> None:
    run = generate(1, "nan")
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in (run.header, *run.steps)), encoding="utf-8")
    assert repr(read_steps_file(path).steps) == repr(read(1, "nan"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_an_onset_has_healthy_steps_before_it_and_enough_after_it(seed: int, kind: str) -> None:
    run = generate(seed, kind)
    at = find_at(run)
    assert at >= LEAST_BEFORE
    assert len(run.steps) - at >= (LEAST_AFTER - 30 if kind == "gap" else LEAST_AFTER)


@pytest.mark.parametrize("kind", [HEALTHY, *(kind for kind in KINDS if kind != "penalty")])
def test_penalty_and_reward_are_what_they_are_made_of(kind: str) -> None:
    checked = 0
    for seed in SEEDS:
        for record in read(seed, kind):
            penalty, kl = record.metrics.get("kl_penalty"), record.kl.value
            if penalty is not None and record.beta is not None and kl is not None and math.isfinite(kl):
                assert penalty == pytest.approx(record.beta * kl, rel=1e-9, abs=1e-15)
                checked += 1
            reward = record.metrics.get("rlhf_reward")
            if reward is not None and penalty is not None and record.score is not None and math.isfinite(penalty):
                assert reward == pytest.approx(record.score - penalty, rel=1e-9, abs=1e-12)
    assert checked > 100


def test_a_planted_penalty_is_wrong_from_the_onset_on_and_not_before() -> None:
    for seed in SEEDS:
        run = generate(seed, "penalty")
        at = find_at(run)
        wrong = [
            not math.isclose(record.metrics["kl_penalty"], record.beta * record.kl.value, rel_tol=1e-6)
            or not math.isclose(record.metrics["rlhf_reward"], record.score - record.metrics["kl_penalty"], abs_tol=1e-12)
            for record in read(seed, "penalty")
            if record.beta is not None and record.kl.value is not None and record.score is not None
        ]
        assert not any(wrong[:at])
        assert all(wrong[at:])


def test_an_adaptive_beta_follows_the_controller_of_the_embedded_trainer() -> None:
    checked = 0
    for seed in range(40):
        run = generate(seed, HEALTHY)
        if run.about["shape"] != "servo" or run.about["unit"] == "token":
            continue
        config = run.header["run"]["config"]
        controller = AdaptiveBeta(config["beta"], config["target_kl"], config["horizon"])
        for record in read(seed, HEALTHY):
            if record.beta is not None and record.kl.value is not None:
                assert record.beta == pytest.approx(controller.beta)
                controller.update(record.kl.value, n_sequences=run.header["batch_size"])
                checked += 1
    assert checked > 500


def test_a_healthy_run_has_no_spike_freeze_or_nan_planted() -> None:
    for seed in range(20):
        run = generate(seed, HEALTHY)
        values = take_kl(run)
        assert run.planted is None
        assert np.isfinite(values).all()
        late = values[LEAST_BEFORE:]
        assert not any(len(set(late[at : at + 12])) == 1 for at in range(len(late) - 12))


def test_a_spike_stands_out_for_one_step() -> None:
    for seed in SEEDS:
        run = generate(seed, "spike")
        at, values = find_at(run), take_kl(run)
        near = np.delete(values[at - 10 : at + 11], 10)
        assert values[at] > np.median(near)
        assert values[at] > np.quantile(near, 0.9)


def test_a_level_shift_stays() -> None:
    for seed in SEEDS:
        run = generate(seed, "level")
        at, values = find_at(run), take_kl(run)
        assert np.median(values[at : at + 20]) > 1.2 * np.median(values[at - 20 : at])


def test_a_freeze_repeats_the_reading_of_the_onset() -> None:
    for seed in SEEDS:
        run = generate(seed, "freeze")
        at, values = find_at(run), take_kl(run)
        assert len(set(values[at : at + 12])) == 1
        assert len(set(values[at - 12 : at])) > 1


def test_nan_stands_at_the_onset_and_not_before() -> None:
    for seed in SEEDS:
        values, at = take_kl(generate(seed, "nan")), find_at(generate(seed, "nan"))
        assert np.isnan(values[at])
        assert np.isfinite(values[:at]).all()


def test_a_negative_kl_is_negative_in_the_mean() -> None:
    for seed in SEEDS:
        run = generate(seed, "negative")
        assert run.header["kl"]["estimator"] == "k1"
        assert take_kl(run)[find_at(run) :].mean() < 0


def test_a_reset_falls_to_next_to_nothing_at_once() -> None:
    for seed in SEEDS:
        run = generate(seed, "reset")
        at, values = find_at(run), take_kl(run)
        assert abs(np.median(values[at : at + 3])) < 0.3 * np.median(values[at - 10 : at])


def test_a_clamped_kl_reads_the_ceiling_at_most_steps_until_a_controller_pulls_it_down() -> None:
    for seed in SEEDS:
        run = generate(seed, "clamp")
        at = find_at(run)
        late = take_kl(run)[at + 10 : at + 30]
        value, n = Counter(late).most_common(1)[0]
        assert value == late.max()
        assert n > 0.8 * len(late)


def test_a_gap_is_seen_at_the_first_step_after_it() -> None:
    for seed in SEEDS:
        run = generate(seed, "gap")
        numbers, at = [step["step"] for step in run.steps], find_at(run)
        distances = np.diff(numbers)
        assert 6 <= distances[at - 1] <= 31
        assert set(np.delete(distances, at - 1)) == {1}


def test_a_budget_is_kept_before_the_onset_and_broken_after_it() -> None:
    for seed in SEEDS:
        run = generate(seed, "budget")
        values, at, limit = take_kl(run), find_at(run), run.budgets[0].limit
        assert values[:at].max() < limit
        assert np.median(values[at : at + 10]) > limit


@pytest.mark.parametrize(
    ("kind", "name", "low", "high"),
    [("entropy", "entropy", 0.05, 0.4), ("length", "response_length", 1.7, 5), ("beta_collapse", "beta", 0, 0.02)],
)
def test_a_companion_ends_where_its_kind_says(kind: str, name: str, low: float, high: float) -> None:
    for seed in SEEDS:
        run = generate(seed, kind)
        at = find_at(run)
        values = np.array([step["beta"] if name == "beta" else step["metrics"][name] for step in run.steps])
        assert low <= np.median(values[at + 20 :]) / np.median(values[at - 20 : at]) <= high


def test_under_reward_hacking_the_scores_part() -> None:
    for seed in SEEDS:
        run = generate(seed, "hacking")
        at = find_at(run)
        score, heldout = (
            np.array([float(value) for value in values])
            for values in zip(*((step["score"], step["metrics"]["heldout_score"]) for step in run.steps), strict=True)
        )
        assert score[at + 40 :].mean() > score[at - 20 : at].mean()
        assert heldout[at + 40 :].mean() < heldout[at - 20 : at].mean()


def test_seeds_go_through_all_kinds_with_a_healthy_run_after_every_four() -> None:
    assert Counter(choose_kind(seed, [HEALTHY, *KINDS]) for seed in range(20)) == dict.fromkeys(KINDS, 1) | {HEALTHY: 4}
    assert {choose_kind(seed, ["spike"]) for seed in range(3)} == {"spike"}


def test_seeds_bring_every_shape_and_estimator() -> None:
    runs = [generate(seed, HEALTHY) for seed in range(45)]
    assert {run.about["shape"] for run in runs} == set(SHAPE_NAMES)
    assert {run.about["estimator"] for run in runs} == {"k1", "k3", "full", "full+se", "full+k1", "full+se+k1"}
