import json
from collections.abc import Iterable

import numpy as np
import pytest

from klaudit.detectors.kl_change import LINES
from klaudit.detectors.trend_break import LEAST_VALUES, Departure, TrendBreakDetector, find_root, restore_root

WINDOW, DELAY = LINES[0].window, LINES[0].delay
LEVEL = 20.0
"""Of roots: far enough from zero for noise of 1 to leave them positive."""


def build(window: int = WINDOW, delay: int = DELAY) -> TrendBreakDetector:
    return TrendBreakDetector([(window, delay)], least=1e-3)


def observe_roots(detector: TrendBreakDetector, roots: Iterable[float], *, start: int = 0) -> list[Departure | None]:
    return [detector.observe(restore_root(LEVEL + float(root)), position=step)[0] for step, root in enumerate(roots, start=start)]


def observe_all(detector: TrendBreakDetector, roots: Iterable[float]) -> list[float]:
    return [0.0 if one is None else one.t for one in observe_roots(detector, roots)]


def is_faster(values: Iterable[float]) -> bool:
    """Whether a series, in its own unit, is ever far above the line of its roots, and above that of its logarithms."""
    detector, told = build(60, 40), False
    for step, value in enumerate(values):
        (departure,) = detector.observe(float(value), position=step)
        on_logs = detector.judge_logarithms(0) if departure is not None and departure.t > 4 else None
        told = told or (on_logs is not None and on_logs.t > 2.5)
    return told


def test_nothing_is_judged_before_the_line_has_its_values() -> None:
    rng = np.random.default_rng(0)
    detector = build()
    judged = [one is not None for one in observe_roots(detector, rng.standard_normal(100))]
    assert judged.index(True) == LEAST_VALUES + DELAY


@pytest.mark.parametrize(("window", "delay"), [(line.window, line.delay) for line in LINES])
def test_a_series_that_goes_on_is_no_departure(window: int, delay: int) -> None:
    rng = np.random.default_rng(1)
    for slope in (0.0, 0.05, 0.3):
        detector = build(window, delay)
        departures = observe_roots(detector, (slope * step + noise for step, noise in enumerate(rng.standard_normal(2000))))
        t = [one.t for one in departures if one is not None]
        assert len(t) > 1900
        assert np.mean(np.array(t) > 4) < 0.001


def test_a_slope_of_a_third_of_the_noise_is_found_within_twenty_steps() -> None:
    rng = np.random.default_rng(2)
    n_found = 0
    for _ in range(50):
        values = rng.standard_normal(140) + 0.02 * np.arange(140)
        values[100:] += 0.3 * np.arange(1, 41)
        n_found += max(observe_all(build(), values)[100:121]) > 3.4
    assert n_found >= 45


def test_a_line_sees_nothing_of_the_values_after_it() -> None:
    rng = np.random.default_rng(6)
    values = list(rng.standard_normal(140))
    expected = []
    for height in (0.0, 30.0):
        detector = build(50, 40)
        departures = observe_roots(detector, (value + height * (step >= 100) for step, value in enumerate(values)))
        last = departures[-1]
        assert last is not None
        expected.append(last.expected)
    assert expected[0] == expected[1]


def test_growth_that_flattens_stands_below_its_line() -> None:
    rng = np.random.default_rng(7)
    values = [0.1 * noise + 8 * (1 - np.exp(-step / 60)) for step, noise in enumerate(rng.standard_normal(300))]
    for line in LINES:
        assert max(observe_all(build(line.window, line.delay), values)) < 3.4


def test_growth_by_as_much_or_by_the_same_share_each_step_is_no_change() -> None:
    rng = np.random.default_rng(10)
    t = np.arange(1, 301)
    for growth in (0.02 * t, 3e-5 * t**2, 0.05 * 1.02**t, 2 * np.sqrt(t / 300), 3 * (1 - np.exp(-t / 60))):
        assert not any(is_faster(growth * np.exp(0.1 * rng.standard_normal(300))) for _ in range(5))


def test_growth_that_becomes_three_times_as_fast_is_a_change() -> None:
    rng = np.random.default_rng(11)
    t = np.arange(1, 301)
    for growth in (0.02 * (t + 2 * np.clip(t - 150, 0, None)), 0.05 * 1.01 ** (t + 2 * np.clip(t - 150, 0, None))):
        assert all(is_faster(growth * np.exp(0.1 * rng.standard_normal(300))) for _ in range(5))


def test_a_root_keeps_the_sign() -> None:
    assert [find_root(value) for value in (4.0, -4.0, 0.0)] == [2.0, -2.0, 0.0]
    assert [restore_root(find_root(value)) for value in (3.0, -3.0, 0.0)] == pytest.approx([3.0, -3.0, 0.0])


def count_alarms(memory: float, *, rng: np.random.Generator) -> int:
    """Runs of 400 with an alarm, of 20."""
    n_alarms = 0
    for _ in range(20):
        wander, values = 0.0, []
        for noise in rng.standard_normal(400):
            wander = memory * wander + noise
            values.append(wander)
        n_alarms += int((np.array(observe_all(build(), values)) > 3.4).any())
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
    assert max(observe_all(build(), values)) < 3.4


def test_one_spike_among_the_last_values_is_no_departure() -> None:
    rng = np.random.default_rng(8)
    for _ in range(20):
        values = rng.standard_normal(WINDOW + DELAY + 20)
        values[-15] += 30.0
        assert max(observe_all(build(), values)) < 3.4


@pytest.mark.parametrize(("growth", "fewest", "most"), [(0.0, 0, 3), (0.4, 48, 50)])
def test_a_level_that_was_told_is_not_told_again_and_growth_from_it_is(growth: float, fewest: int, most: int) -> None:
    rng = np.random.default_rng(9)
    n_told = 0
    for _ in range(50):
        values = rng.standard_normal(200)
        values[100:] += 6.0 + growth * np.arange(100)
        detector = build()
        observe_all(detector, values[:104])
        detector.settle(restore_root(LEVEL + float(np.median(values[101:104]))))
        departures = observe_roots(detector, values[104:130], start=104)
        n_told += max(one.t for one in departures if one is not None) > 3.4
    assert fewest <= n_told <= most


def test_state_is_json_and_goes_on_where_it_was() -> None:
    rng = np.random.default_rng(5)
    values = list(rng.standard_normal(150))
    whole, first, second = build(), build(), build()
    for detector in (whole, first):
        observe_all(detector, values[:90])
        detector.settle(restore_root(LEVEL + 0.3))
    expected = observe_roots(whole, values[90:], start=90)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    departures = observe_roots(second, values[90:], start=90)
    assert None not in expected
    t, expected_t = ([one.t for one in told if one is not None] for told in (departures, expected))
    np.testing.assert_allclose(t, expected_t, rtol=1e-6)
