import json

import numpy as np

from klaudit.detectors.trend_break import DELAY, LEAST_VALUES, WINDOW, TrendBreakDetector


def observe_all(detector: TrendBreakDetector, values: list[float]) -> list[float]:
    departures = [detector.observe(value, position=step) for step, value in enumerate(values)]
    return [0.0 if one is None else one.t for one in departures]


def test_nothing_is_judged_before_the_line_has_its_values() -> None:
    rng = np.random.default_rng(0)
    detector = TrendBreakDetector()
    judged = [detector.observe(value, position=step) is not None for step, value in enumerate(rng.standard_normal(100))]
    assert judged.index(True) == LEAST_VALUES + DELAY


def test_a_series_that_goes_on_is_no_departure() -> None:
    rng = np.random.default_rng(1)
    for slope in (0.0, 0.05, 0.3):
        t = observe_all(TrendBreakDetector(), [slope * step + noise for step, noise in enumerate(rng.standard_normal(2000))])
        assert np.mean(np.array(t) > 4) < 0.001


def test_a_slope_of_a_third_of_the_noise_is_found_within_twenty_steps() -> None:
    rng = np.random.default_rng(2)
    n_found = 0
    for _ in range(50):
        values = rng.standard_normal(140) + 0.02 * np.arange(140)
        values[100:] += 0.3 * np.arange(1, 41)
        n_found += max(observe_all(TrendBreakDetector(), list(values))[100:121]) > 3.4
    assert n_found >= 45


def count_alarms(memory: float, *, rng: np.random.Generator) -> int:
    """Runs of 400 with an alarm, of 20."""
    n_alarms = 0
    for _ in range(20):
        wander, values = 0.0, []
        for noise in rng.standard_normal(400):
            wander = memory * wander + noise
            values.append(wander)
        n_alarms += int((np.array(observe_all(TrendBreakDetector(), values)) > 3.4).any())
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
    assert max(observe_all(TrendBreakDetector(), list(values))) < 3.4


def test_state_is_json_and_goes_on_where_it_was() -> None:
    rng = np.random.default_rng(5)
    values = list(rng.standard_normal(150))
    whole, first, second = TrendBreakDetector(), TrendBreakDetector(), TrendBreakDetector()
    expected = observe_all(whole, values)[90:]
    observe_all(first, values[:90])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    departures = [second.observe(value, position=step) for step, value in enumerate(values[90:], start=90)]
    np.testing.assert_allclose([one.t for one in departures if one is not None], expected, rtol=1e-6)
