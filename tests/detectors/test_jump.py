import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klaudit.detectors import JumpDetector, JumpScore
from klaudit.detectors.jump import Baseline
from klaudit.errors import InvalidRecord

NOISE = 1 / math.sqrt(2 * 64)
"""Noise of d for k1 at 64 sequences, for which the published figures were measured."""

BASELINES: tuple[Baseline, ...] = ("level", "trend")


def score_all(detector: JumpDetector, values: list[float], *, noise_floor: float) -> list[JumpScore | None]:
    return [detector.observe(value, position=position, noise_floor=noise_floor) for position, value in enumerate(values)]


def count_alarms(*, n_steps: int, noise_floor: float, baseline: Baseline, seed: int) -> int:
    """Scores of 3.5 or more in either direction, on noise and nothing else."""
    values = np.random.default_rng(seed).normal(0, NOISE, size=n_steps).tolist()
    scores = score_all(JumpDetector(baseline=baseline), values, noise_floor=noise_floor)
    return sum(score is not None and abs(score.z) >= 3.5 for score in scores)


def find_power(jump: float, *, baseline: Baseline, n_trials: int = 2000) -> float:
    rng = np.random.default_rng(11)
    n_found = 0
    for _ in range(n_trials):
        detector = JumpDetector(baseline=baseline)
        detector.load_state_dict({"positions": list(range(20)), "values": rng.normal(0, NOISE, size=20).tolist()})
        score = detector.observe(float(rng.normal(jump * NOISE, NOISE)), position=20, noise_floor=NOISE)
        assert score is not None
        n_found += score.z >= 3.5
    return n_found / n_trials


def test_the_score_is_the_modified_z_score_of_the_window() -> None:
    detector = JumpDetector()
    score_all(detector, [float(value) for value in range(1, 11)], noise_floor=0.0)
    score = detector.observe(20.0, position=10, noise_floor=0.0)
    assert score is not None
    # median 5.5, absolute deviations .5 .5 1.5 1.5 2.5 2.5 3.5 3.5 4.5 4.5 with median 2.5
    assert score.expected == 5.5
    assert score.z == pytest.approx((20 - 5.5) / (1.4826 * 2.5))


def test_the_trend_carries_the_line_on_and_widens_the_scale_as_regression_does() -> None:
    detector = JumpDetector(baseline="trend")
    score_all(detector, [0.1 * step for step in range(10)], noise_floor=1.0)
    score = detector.observe(1.0, position=10, noise_floor=1.0)
    assert score is not None
    assert score.expected == pytest.approx(1.0)
    # n = 10, mean of 0..9 is 4.5, Sxx = 82.5
    assert score.scale == pytest.approx(math.sqrt(1 + 0.1 + 5.5**2 / 82.5))


def test_with_the_noise_floor_noise_alarms_once_in_two_thousand_steps() -> None:
    # 0.49 per 1,000 steps; 40,000 steps give 19.6, and three Poisson standard deviations are 13
    n_alarms = count_alarms(n_steps=40_000, noise_floor=NOISE, baseline="level", seed=1)
    assert n_alarms == pytest.approx(19.6, abs=13)


def test_without_the_noise_floor_noise_alarms_once_in_a_hundred_steps() -> None:
    # 10.3 per 1,000 steps; 20,000 steps give 206, and three Poisson standard deviations are 43
    n_alarms = count_alarms(n_steps=20_000, noise_floor=0.0, baseline="level", seed=2)
    assert n_alarms == pytest.approx(206, abs=43)


def test_against_the_trend_noise_alarms_less_than_once_in_five_thousand_steps() -> None:
    assert count_alarms(n_steps=30_000, noise_floor=NOISE, baseline="trend", seed=3) <= 6


@pytest.mark.parametrize(("jump", "power"), [(4, 0.58), (5, 0.86), (6, 0.97)])
def test_jumps_of_four_to_six_noise_sds_are_found_as_often_as_published(jump: float, power: float) -> None:
    # three binomial standard deviations at 2,000 trials are at most 0.033
    assert find_power(jump, baseline="level") == pytest.approx(power, abs=0.035)


def test_the_trend_baseline_costs_power_only_for_small_jumps() -> None:
    assert find_power(6, baseline="trend", n_trials=800) > 0.88


@pytest.mark.parametrize("baseline", BASELINES)
def test_nothing_is_scored_during_warm_up(baseline: Baseline) -> None:
    scores = score_all(JumpDetector(warm_up=10, baseline=baseline), [0.0] * 5 + [9.0] * 6, noise_floor=0.1)
    assert [score is None for score in scores] == [True] * 10 + [False]


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_non_finite_value_is_not_scored_and_leaves_no_trace(baseline: Baseline, broken: float) -> None:
    detector = JumpDetector(baseline=baseline)
    score_all(detector, [0.1 * step for step in range(12)], noise_floor=0.1)
    before = detector.state_dict()
    assert detector.observe(broken, position=12, noise_floor=0.1) is None
    assert detector.state_dict() == before


def test_a_constant_series_scores_infinite_only_without_a_floor() -> None:
    with_floor, without_floor = JumpDetector(), JumpDetector()
    score_all(with_floor, [0.0] * 10, noise_floor=0.1)
    score_all(without_floor, [0.0] * 10, noise_floor=0.0)
    bounded, unbounded = (one.observe(0.05, position=10, noise_floor=floor) for one, floor in ((with_floor, 0.1), (without_floor, 0.0)))
    assert bounded is not None
    assert unbounded is not None
    assert (bounded.z, unbounded.z) == (0.5, math.inf)


def test_a_window_shorter_than_its_warm_up_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="warm_up=10, window=5"):
        JumpDetector(window=5, warm_up=10)


VALUES = st.lists(st.floats(-100, 100), min_size=12, max_size=40)


@settings(max_examples=30, deadline=None)
@given(values=VALUES, cut=st.integers(0, 40), baseline=st.sampled_from(BASELINES))
def test_a_detector_goes_on_from_its_saved_state(values: list[float], cut: int, baseline: Baseline) -> None:
    whole = score_all(JumpDetector(baseline=baseline), values, noise_floor=0.5)
    first, second = JumpDetector(baseline=baseline), JumpDetector(baseline=baseline)
    scores = score_all(first, values[:cut], noise_floor=0.5)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    scores += [
        second.observe(value, position=position, noise_floor=0.5) for position, value in enumerate(values[cut:], start=len(values[:cut]))
    ]
    assert scores == whole


@settings(max_examples=30, deadline=None)
@given(values=VALUES, baseline=st.sampled_from(BASELINES))
def test_scores_do_not_depend_on_the_unit_of_the_series(values: list[float], baseline: Baseline) -> None:
    plain = score_all(JumpDetector(baseline=baseline), values, noise_floor=0.5)
    scaled = score_all(JumpDetector(baseline=baseline), [8 * value for value in values], noise_floor=4.0)
    assert [one.z if one else None for one in scaled] == pytest.approx([one.z if one else None for one in plain], abs=1e-9)
