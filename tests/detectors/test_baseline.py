import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klaudit.detectors.baseline import MAD_TO_SD, FirstValues, RollingMedian, find_median
from klaudit.errors import InvalidRecord


def find_sd_with_numpy(values: list[float]) -> float:
    return MAD_TO_SD * float(np.median(np.abs(np.asarray(values) - np.median(values))))


def feed(baseline: FirstValues | RollingMedian, values: list[float]) -> None:
    for value in values:
        baseline.observe(value)


@pytest.mark.parametrize("n", [1, 2, 9, 10])
def test_the_first_values_give_the_median_and_the_scaled_mad_of_numpy(n: int) -> None:
    values = np.random.default_rng(n).lognormal(size=40).tolist()
    first = FirstValues(n)
    feed(first, values)
    assert first.level == pytest.approx(np.median(values[:n]))
    assert first.sd == pytest.approx(find_sd_with_numpy(values[:n]))


def test_there_is_no_level_before_there_are_enough_finite_values() -> None:
    first = FirstValues(3)
    feed(first, [1.0, math.nan, 2.0, math.inf, -math.inf])
    assert (first.level, first.sd) == (None, 0.0)
    feed(first, [6.0, 100.0])
    assert first.level == 2.0


def test_for_gaussian_noise_the_spread_is_its_standard_deviation() -> None:
    first = FirstValues(20_000)
    feed(first, np.random.default_rng(1).normal(5, 0.3, size=20_000).tolist())
    assert first.sd == pytest.approx(0.3, rel=0.03)


@pytest.mark.parametrize("window", [1, 2, 5, 20])
def test_the_rolling_median_is_that_of_numpy_over_the_window(window: int) -> None:
    values = np.random.default_rng(window).normal(size=300).round(1).tolist()  # rounded, so that there are ties
    rolling = RollingMedian(window)
    for end, value in enumerate(values, 1):
        rolling.observe(value)
        inside = values[max(0, end - window) : end]
        assert len(rolling) == len(inside)
        assert rolling.find() == pytest.approx(np.median(inside), abs=1e-12)
        assert rolling.find_sd() == pytest.approx(find_sd_with_numpy(inside), abs=1e-12)


def test_the_rolling_median_is_right_at_the_end_of_a_long_stream() -> None:
    values = np.random.default_rng(7).lognormal(sigma=3, size=50_000).tolist()
    rolling = RollingMedian(31)
    feed(rolling, values)
    assert rolling.find() == pytest.approx(np.median(values[-31:]))


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_not_in_the_median(broken: float) -> None:
    rolling = RollingMedian(3)
    feed(rolling, [1.0, 2.0, broken, 3.0])
    assert (rolling.find(), len(rolling)) == (2.0, 3)


def test_an_empty_median_is_none_without_spread() -> None:
    rolling = RollingMedian(3)
    assert (rolling.find(), rolling.find_sd()) == (None, 0.0)
    feed(rolling, [4.0])
    rolling.clear()
    assert (rolling.find(), rolling.find_sd(), len(rolling)) == (None, 0.0, 0)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-1e6, 1e6), max_size=40), split=st.integers(0, 40))
def test_both_go_on_from_their_state_as_json(values: list[float], split: int) -> None:
    first, rolling = FirstValues(8), RollingMedian(6)
    resumed_first, resumed_rolling = FirstValues(8), RollingMedian(6)
    feed(first, values[:split])
    feed(rolling, values[:split])
    resumed_first.load_state_dict(json.loads(json.dumps(first.state_dict())))
    resumed_rolling.load_state_dict(json.loads(json.dumps(rolling.state_dict())))
    for baseline in (first, rolling, resumed_first, resumed_rolling):
        feed(baseline, values[split:])
    assert (resumed_first.level, resumed_first.sd) == (first.level, first.sd)
    assert (resumed_rolling.find(), resumed_rolling.find_sd()) == (rolling.find(), rolling.find_sd())


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    assert find_median([5.0, 1.0, 2.0, 100.0]) == 3.5
    assert find_median([7.0]) == 7.0


@pytest.mark.parametrize("make", [FirstValues, RollingMedian])
def test_less_than_one_value_is_refused(make: type[FirstValues] | type[RollingMedian]) -> None:
    with pytest.raises(InvalidRecord, match="or more; got 0"):
        make(0)
