import json

import numpy as np
import pytest

from klaudit.detectors.kl_change import LINES
from klaudit.detectors.trend_break import LEAST_VALUES, TrendBreakDetector

WINDOW, DELAY = LINES[0]


def observe_all(detector: TrendBreakDetector, values: list[float]) -> list[float]:
    departures = [detector.observe(value, position=step) for step, value in enumerate(values)]
    return [0.0 if one is None else one.t for one in departures]


def test_nothing_is_judged_before_the_line_has_its_values() -> None:
    rng = np.random.default_rng(0)
    detector = TrendBreakDetector(WINDOW, DELAY)
    judged = [detector.observe(value, position=step) is not None for step, value in enumerate(rng.standard_normal(100))]
    assert judged.index(True) == LEAST_VALUES + DELAY


@pytest.mark.parametrize(("window", "delay"), LINES)
def test_a_series_that_goes_on_is_no_departure(window: int, delay: int) -> None:
    rng = np.random.default_rng(1)
    for slope in (0.0, 0.05, 0.3):
        detector = TrendBreakDetector(window, delay)
        values = [slope * step + noise for step, noise in enumerate(rng.standard_normal(2000))]
        departures = [detector.observe(value, position=step) for step, value in enumerate(values)]
        t = [one.t for one in departures if one is not None]
        assert len(t) > 1900
        assert np.mean(np.array(t) > 4) < 0.001


def test_a_slope_of_a_third_of_the_noise_is_found_within_twenty_steps() -> None:
    rng = np.random.default_rng(2)
    n_found = 0
    for _ in range(50):
        values = rng.standard_normal(140) + 0.02 * np.arange(140)
        values[100:] += 0.3 * np.arange(1, 41)
        n_found += max(observe_all(TrendBreakDetector(WINDOW, DELAY), list(values))[100:121]) > 3.4
    assert n_found >= 45


def test_a_line_sees_nothing_of_the_values_after_it() -> None:
    rng = np.random.default_rng(6)
    values = list(rng.standard_normal(140))
    expected = []
    for height in (0.0, 30.0):
        detector = TrendBreakDetector(50, 40)
        departures = [detector.observe(value + height * (step >= 100), position=step) for step, value in enumerate(values)]
        last = departures[-1]
        assert last is not None
        expected.append(last.expected)
    assert expected[0] == expected[1]


def test_growth_that_flattens_stands_below_its_line() -> None:
    rng = np.random.default_rng(7)
    values = [0.1 * noise + 8 * (1 - np.exp(-step / 60)) for step, noise in enumerate(rng.standard_normal(300))]
    for window, delay in LINES:
        assert max(observe_all(TrendBreakDetector(window, delay), values)) < 3.4


def count_alarms(memory: float, *, rng: np.random.Generator) -> int:
    """Runs of 400 with an alarm, of 20."""
    n_alarms = 0
    for _ in range(20):
        wander, values = 0.0, []
        for noise in rng.standard_normal(400):
            wander = memory * wander + noise
            values.append(wander)
        n_alarms += int((np.array(observe_all(TrendBreakDetector(WINDOW, DELAY), values)) > 3.4).any())
    return n_alarms


def test_a_level_that_wanders_is_allowed_its_wandering() -> None:
    rng = np.random.default_rng(3)
    assert count_alarms(0.7, rng=rng) <= 1
    # A level that wanders by nothing but its last value has trends that nobody can tell from real ones.
    assert count_alarms(0.9, rng=rng) <= 10


def test_outliers_do_not_bend_the_line() -> None:
    rng = np.random.default_rng(4)
    values = rng.standard_normal(WINDOW + DELAY + 20)
    values[5:40:6] += 30.0
    assert max(observe_all(TrendBreakDetector(WINDOW, DELAY), list(values))) < 3.4


def test_one_spike_among_the_last_values_is_no_departure() -> None:
    rng = np.random.default_rng(8)
    for _ in range(20):
        values = rng.standard_normal(WINDOW + DELAY + 20)
        values[-15] += 30.0
        assert max(observe_all(TrendBreakDetector(WINDOW, DELAY), list(values))) < 3.4


@pytest.mark.parametrize(("growth", "fewest", "most"), [(0.0, 0, 3), (0.4, 48, 50)])
def test_a_level_that_was_told_is_not_told_again_and_growth_from_it_is(growth: float, fewest: int, most: int) -> None:
    rng = np.random.default_rng(9)
    n_told = 0
    for _ in range(50):
        values = rng.standard_normal(200)
        values[100:] += 6.0 + growth * np.arange(100)
        detector = TrendBreakDetector(WINDOW, DELAY)
        observe_all(detector, list(values[:104]))
        detector.settle(float(np.median(values[101:104])))
        departures = [detector.observe(value, position=step) for step, value in enumerate(values[104:130], start=104)]
        n_told += max(one.t for one in departures if one is not None) > 3.4
    assert fewest <= n_told <= most


def test_state_is_json_and_goes_on_where_it_was() -> None:
    rng = np.random.default_rng(5)
    values = list(rng.standard_normal(150))
    whole, first, second = TrendBreakDetector(WINDOW, DELAY), TrendBreakDetector(WINDOW, DELAY), TrendBreakDetector(WINDOW, DELAY)
    for detector in (whole, first):
        observe_all(detector, values[:90])
        detector.settle(0.3)
    expected = [whole.observe(value, position=step) for step, value in enumerate(values[90:], start=90)]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    departures = [second.observe(value, position=step) for step, value in enumerate(values[90:], start=90)]
    assert None not in expected
    t, expected_t = ([one.t for one in told if one is not None] for told in (departures, expected))
    np.testing.assert_allclose(t, expected_t, rtol=1e-6)
