import numpy as np
import pytest

from klaudit.records.non_finite import decode_float
from tests.bench.detection.curve import Curve, measure_log_sd, plant_on_curve, read_curves
from tests.bench.detection.kinds import CURVE_KINDS
from tests.bench.detection.trace import Array

CURVES = {curve.name: curve for curve in read_curves()}


def take_kl(steps: object) -> Array:
    assert isinstance(steps, (list, tuple))
    return np.array([decode_float(step["kl"]) for step in steps])


@pytest.fixture(params=["adaptive-beta", "unsloth_grpo", "custom_grpo_failing"])
def curve(request: pytest.FixtureRequest) -> Curve:
    return CURVES[request.param]


@pytest.mark.parametrize("kind", CURVE_KINDS)
def test_nothing_differs_before_the_onset_and_something_at_it(curve: Curve, kind: str) -> None:
    planted = plant_on_curve(curve, kind, 40, np.random.default_rng(1))
    assert planted.planted is not None
    assert planted.planted.onset == curve.steps[40]["step"]
    assert list(planted.steps[:40]) == list(curve.steps[:40])
    assert list(planted.steps[40:44]) != list(curve.steps[40:44])
    planted.read()


def test_a_spike_is_twice_its_reading_at_least_and_one_step_long(curve: Curve) -> None:
    before, after = take_kl(curve.steps), take_kl(plant_on_curve(curve, "spike", 40, np.random.default_rng(1)).steps)
    assert after[40] >= 2 * before[40] > 0
    assert np.array_equal(np.delete(after, 40), np.delete(before, 40))


def test_a_drop_halves_at_least_and_stays(curve: Curve) -> None:
    before, after = take_kl(curve.steps), take_kl(plant_on_curve(curve, "drop", 40, np.random.default_rng(1)).steps)
    assert (after[40:] <= 0.5 * before[40:] + 1e-12).all()


def test_the_penalty_follows_the_kl_that_it_is_made_of() -> None:
    planted = plant_on_curve(CURVES["adaptive-beta"], "level", 40, np.random.default_rng(1))
    for step in planted.steps:
        metrics = step["metrics"]
        assert metrics["kl_penalty"] == pytest.approx(step["beta"] * metrics["kl_k1"], abs=1e-7)
        assert metrics["rlhf_reward"] == pytest.approx(step["score"] - metrics["kl_penalty"], abs=1e-6)


def test_a_run_that_was_broken_is_a_curve_up_to_where_it_broke() -> None:
    assert [step["step"] for step in CURVES["learning-rate-spike"].steps] == list(range(1, 36))


def test_the_noise_of_a_curve_is_measured_about_its_trend() -> None:
    rng = np.random.default_rng(1)
    growing = np.exp(0.02 * np.arange(100) + 0.1 * rng.normal(size=100))
    assert measure_log_sd(growing, 50) == pytest.approx(0.1, rel=0.3)
