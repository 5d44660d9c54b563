import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from klaudit.detectors.departure import Departure, DepartureDetector, Excursion
from klaudit.errors import InvalidRecord


def score_all(detector: DepartureDetector, values: list[float], *, first: int = 0) -> list[Departure | None]:
    return [detector.observe(value, position=first + index) for index, value in enumerate(values)]


def make_departure(level: float, *, expected: float = 1.0, z: float = 0.0) -> Departure:
    return Departure(level=level, expected=expected, usual=expected, z=z, noise=0.1, t=0.0)


def make_noise(n: int, *, sd: float, seed: int) -> list[float]:
    return list(np.exp(np.random.default_rng(seed).normal(0, sd, size=n)))


def test_nothing_is_judged_before_the_window_has_enough_values() -> None:
    scores = score_all(DepartureDetector(window=30, delay=5, least=10), make_noise(20, sd=0.1, seed=1))
    assert [one is None for one in scores] == [True] * 14 + [False] * 6


def test_level_and_expectation_are_those_of_the_definition() -> None:
    values = [*make_noise(40, sd=0.1, seed=2), 0.5, 0.4, 0.6]
    score = score_all(DepartureDetector(window=30, delay=10), values)[-1]
    assert score is not None
    window = np.log(values[3:33])
    assert score.level == pytest.approx(0.5)
    assert score.usual == pytest.approx(math.exp(window.mean()))
    slope, _ = np.polyfit(np.arange(30), window, 1)
    assert score.t == pytest.approx(slope / math.sqrt(residual_variance(window) / (30 * (30**2 - 1) / 12)))
    # the slope is within two standard errors of 0, so the mean is what is expected
    assert abs(score.t) < 2
    assert score.expected == pytest.approx(score.usual)
    noise = math.sqrt(residual_variance(window)) * 30 / 24
    latest = np.log(values[-10:]).mean() - window.mean()
    last = np.log(values[-3:]).mean() - window.mean()
    assert score.noise == pytest.approx(noise)
    assert score.z == pytest.approx(min(last / (noise * math.sqrt(1 / 3 + 1 / 30)), latest / (noise * math.sqrt(2 / 10 + 1 / 30))))


def residual_variance(values: NDArray[np.float64]) -> float:
    steps = np.arange(len(values))
    return float(np.sum((values - np.polyval(np.polyfit(steps, values, 1), steps)) ** 2)) / (len(values) - 2)


def test_a_steady_decline_is_what_was_expected() -> None:
    values = [math.exp(-0.03 * step) * one for step, one in enumerate(make_noise(120, sd=0.02, seed=3))]
    scores = [one for one in score_all(DepartureDetector(), values)[40:] if one is not None]
    assert min(one.level / one.expected for one in scores) > 0.9
    assert max(one.level / one.usual for one in scores) < 0.6


def test_a_fall_after_a_rise_is_held_against_the_mean_and_not_against_the_rise_carried_on() -> None:
    values = [math.exp(0.03 * step) for step in range(40)] + [math.exp(1.2)] * 3 + [math.exp(0.2)] * 3
    score = score_all(DepartureDetector(), values)[-1]
    assert score is not None
    assert score.expected == pytest.approx(score.usual)


@pytest.mark.parametrize("sd", [0.02, 0.1, 0.3])
def test_noise_alone_is_rarely_beyond_four_and_a_half_standard_errors(sd: float) -> None:
    scores = score_all(DepartureDetector(), make_noise(10_000, sd=sd, seed=4))
    assert sum(one is not None and abs(one.z) > 4.5 for one in scores) <= 2


def test_a_series_without_noise_is_judged_by_the_least_noise() -> None:
    score = score_all(DepartureDetector(), [64.0] * 40 + [66.0] * 3)[-1]
    assert score is not None
    assert 2 < score.z < math.inf


def test_without_logarithms_zero_and_one_are_values_as_any() -> None:
    score = score_all(DepartureDetector(in_logs=False), [1.0, 0.9] * 20 + [0.0] * 3)[-1]
    assert score is not None
    assert score.level == 0.0
    assert score.expected == pytest.approx(0.95, abs=0.02)


def test_the_drift_from_the_start_is_scored_by_the_noise_of_both() -> None:
    detector = DepartureDetector(window=30, delay=10)
    score = score_all(detector, make_noise(60, sd=0.2, seed=5))[-1]
    assert score is not None
    expected = math.log(score.usual / 2.0) / (score.noise * math.sqrt(math.pi / 2 / 10 + 1 / 30))
    assert detector.score_drift(score, start=2.0, n=10) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60), in_logs=st.booleans())
def test_no_value_breaks_it(values: list[float], in_logs: bool) -> None:
    detector, excursion = DepartureDetector(window=10, delay=3, least=7, in_logs=in_logs), Excursion(factor=0.5, z=4.5, steps=2)
    for position, value in enumerate(values):
        score = detector.observe(value, position=position)
        assert math.isfinite(value) or score is None
        if score is not None:
            excursion.observe(score, position=position)
            assert not math.isnan(score.expected) or not in_logs


@pytest.mark.parametrize("split", [0, 7, 25, 45])
def test_both_go_on_from_their_state_as_json(split: int) -> None:
    values = make_noise(50, sd=0.1, seed=6) + [0.3] * 10
    straight, resumed = (
        (DepartureDetector(), Excursion(factor=0.5, z=4.5, steps=3)),
        (DepartureDetector(), Excursion(factor=0.5, z=4.5, steps=3)),
    )
    told: list[list[tuple[bool, float | None]]] = [[], []]
    score_all(straight[0], values[:split])
    resumed[0].load_state_dict(json.loads(json.dumps(straight[0].state_dict())))
    for position, value in enumerate(values[split:], split):
        for (detector, excursion), said in zip((straight, resumed), told, strict=True):
            score = detector.observe(value, position=position)
            if score is not None:
                said.append((excursion.observe(score, position=position), excursion.before))
        resumed[1].load_state_dict(json.loads(json.dumps(resumed[1].state_dict())))
    assert [one for one, _ in told[0]] == [one for one, _ in told[1]]
    assert any(one for one, _ in told[0])
    assert straight[0].list_values()["steps"] == resumed[0].list_values()["steps"] == list(range(20, 60))


def test_an_excursion_begins_with_departures_in_a_row_and_lasts_until_the_level_is_back() -> None:
    excursion = Excursion(factor=0.5, z=4.0, steps=2)
    told = [
        excursion.observe(departure, position=position)
        for position, departure in enumerate(
            [
                make_departure(0.4, z=-5),
                make_departure(0.4, z=-3),  # within noise: the row is broken
                make_departure(0.4, z=-5),
                make_departure(0.4, z=-5),
                make_departure(0.4, expected=0.4),  # what is expected has come down; what was expected as it began has not
                make_departure(0.6, expected=0.4),
                make_departure(0.4, z=-5),
            ]
        )
    ]
    assert told == [False, False, False, True, True, False, False]
    assert (excursion.before, excursion.since) == (None, 6)


def test_a_rise_is_no_fall() -> None:
    rise, fall = Excursion(factor=1.5, z=4.0, steps=1), Excursion(factor=0.5, z=4.0, steps=1)
    assert rise.observe(make_departure(2.0, z=5), position=1)
    assert not fall.observe(make_departure(2.0, z=5), position=1)
    assert not rise.observe(make_departure(0.2, z=-5), position=2)
    assert fall.observe(make_departure(0.2, z=-5), position=2)


@pytest.mark.parametrize(("window", "delay", "least"), [(5, 10, 10), (30, 2, 10), (30, 10, 6), (20, 10, 30)])
def test_sizes_that_cannot_be_judged_by_are_refused(window: int, delay: int, least: int) -> None:
    with pytest.raises(InvalidRecord, match="needs window >= least > 6"):
        DepartureDetector(window=window, delay=delay, least=least)


@pytest.mark.parametrize("factor", [1.0, 0.0, -2.0, math.nan])
def test_a_factor_that_is_no_change_is_refused(factor: float) -> None:
    with pytest.raises(InvalidRecord, match="positive factor other than 1"):
        Excursion(factor=factor, z=4.0, steps=1)
