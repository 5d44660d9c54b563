import math

import numpy as np
import pytest
from numpy.random import Generator

from klaudit.detectors.slope import SlopeTest, find_slope_variance
from klaudit.errors import InvalidRecord


def draw_ar(n: int, memory: float, rng: Generator) -> list[float]:
    values, last = [], rng.normal()
    for _ in range(n):
        last = memory * last + math.sqrt(1 - memory**2) * float(rng.standard_t(6)) / math.sqrt(1.5)
        values.append(last)
    return values


def feed(values: list[float], window: int) -> SlopeTest:
    test = SlopeTest(window)
    for value in values:
        test.observe(value)
    return test


@pytest.mark.parametrize("origin", [0.0, 1e7])
def test_the_line_is_that_of_least_squares_through_the_window(origin: float) -> None:
    values = [origin + one for one in draw_ar(203, 0.5, np.random.default_rng(1))]
    slope = feed(values, 16).fit()
    assert slope is not None
    expected, _ = np.polyfit(range(16), values[-16:], 1)
    assert slope.per_value == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert slope.mean == pytest.approx(np.mean(values[-16:]))


def test_it_is_silent_until_its_window_is_full() -> None:
    assert feed([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 8).fit() is None
    assert feed([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 8).is_ready


def test_values_without_noise_have_no_error() -> None:
    rising, level = feed([0.5 * at for at in range(40)], 8).fit(), feed([3.0] * 40, 8).fit()
    assert rising is not None
    assert level is not None
    assert rising.per_value == pytest.approx(0.5)
    assert (rising.t, level.t) == (99, 0)


def test_values_that_are_not_finite_are_left_out() -> None:
    values = draw_ar(50, 0.0, np.random.default_rng(2))
    with_nan = [one for value in values for one in (value, math.nan)]
    assert feed(with_nan, 16).fit() == feed(values, 16).fit()


@pytest.mark.parametrize(("window", "memory"), [(16, 0.0), (16, 0.6), (32, 0.9)])
def test_the_variance_of_a_slope_is_exact_under_ar_noise(window: int, memory: float) -> None:
    positions = np.arange(window) - (window - 1) / 2
    covariance = memory ** np.abs(np.subtract.outer(np.arange(window), np.arange(window)))
    weights = positions / (positions @ positions)
    design = np.column_stack([np.ones(window), positions])
    left = np.eye(window) - design @ np.linalg.inv(design.T @ design) @ design.T
    residual_variance = np.trace(left @ covariance) / (window - 2)
    assert find_slope_variance(window, memory) == pytest.approx(weights @ covariance @ weights / residual_variance)


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8])
def test_three_standard_errors_are_rare_on_dependent_noise_with_heavy_tails(memory: float) -> None:
    rng = np.random.default_rng(3)
    n_over = n = 0
    for _ in range(6):
        test = SlopeTest(16)
        for value in draw_ar(500, memory, rng):
            test.observe(value)
            if test.is_ready:
                slope = test.fit()
                assert slope is not None
                n_over += abs(slope.t) > 3
                n += 1
    assert n_over / n < 0.02


def test_it_goes_on_from_its_state() -> None:
    values = draw_ar(120, 0.4, np.random.default_rng(4))
    whole, first = feed(values, 16), feed(values[:77], 16)
    second = SlopeTest(16)
    second.load_state_dict(first.state_dict())
    for value in values[77:]:
        second.observe(value)
    ended, expected = second.fit(), whole.fit()
    assert ended is not None
    assert expected is not None
    assert (ended.per_value, ended.t) == pytest.approx((expected.per_value, expected.t), rel=1e-9)


def test_a_window_that_holds_no_line_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="window of 5 or more; got 3"):
        SlopeTest(3)
