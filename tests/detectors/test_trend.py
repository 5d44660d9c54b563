import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from klaudit.detectors.trend import RollingTrend, Trend
from klaudit.errors import InvalidRecord

Numbers = NDArray[np.float64]


def fit_each(trend: RollingTrend, values: Numbers, positions: Numbers) -> list[Trend | None]:
    fits = []
    for value, position in zip(values.tolist(), positions.tolist(), strict=True):
        trend.observe(value, position=position)
        fits.append(trend.fit())
    return fits


def fit_with_numpy(values: Numbers, positions: Numbers) -> dict[str, Any]:
    """Slope, its standard error and the residual sd of ordinary least squares, by polyfit about the mean position."""
    centred = positions - positions.mean()
    slope, mean = np.polyfit(centred, values, 1)
    residual_sd = math.sqrt(float(np.sum((values - mean - slope * centred) ** 2)) / (len(values) - 2))
    return {
        "mean": mean,
        "slope": slope,
        "center": positions.mean(),
        "residual_sd": residual_sd,
        "standard_error": residual_sd / math.sqrt(float(np.sum(centred**2))),
    }


def equals(fit: Trend | None, expected: dict[str, Any]) -> bool:
    return fit is not None and all(getattr(fit, name) == pytest.approx(value, rel=1e-6, abs=1e-9) for name, value in expected.items())


@pytest.mark.parametrize("window", [3, 7, 50])
def test_every_fit_is_that_of_polyfit_over_the_window(window: int) -> None:
    rng = np.random.default_rng(1)
    positions, values = np.arange(200.0), np.cumsum(rng.normal(size=200))
    fits = fit_each(RollingTrend(window), values, positions)
    for end in range(3, 201):
        inside = slice(max(0, end - window), end)
        assert equals(fits[end - 1], fit_with_numpy(values[inside], positions[inside])), end


def test_skipped_steps_count_as_distance() -> None:
    rng = np.random.default_rng(2)
    positions = np.cumsum(rng.integers(1, 40, size=120)).astype(float)
    values = 0.3 * positions + rng.normal(size=120)
    fits = fit_each(RollingTrend(20), values, positions)
    assert all(equals(fits[end - 1], fit_with_numpy(values[end - 20 : end], positions[end - 20 : end])) for end in range(20, 121))


def test_rounding_does_not_add_up_over_a_long_stream_far_from_zero() -> None:
    rng = np.random.default_rng(3)
    positions = 1e7 + np.arange(60_000.0)
    values = 1e5 + 0.02 * np.arange(60_000.0) + rng.normal(size=60_000)
    fits = fit_each(RollingTrend(50), values, positions)
    for end in (30_000, 45_017, 59_999, 60_000):
        assert equals(fits[end - 1], fit_with_numpy(values[end - 50 : end], positions[end - 50 : end]))


def test_the_rounding_of_a_huge_value_is_gone_a_window_after_it_has_left() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=200)
    values[40] = 1e9
    fits = fit_each(RollingTrend(10), values, np.arange(200.0))
    assert all(equals(fits[end - 1], fit_with_numpy(values[end - 10 : end], np.arange(end - 10.0, end))) for end in range(61, 201))


def test_positions_far_from_zero_are_as_good_as_near_ones_from_the_start() -> None:
    values = np.random.default_rng(8).normal(size=20)
    near = fit_each(RollingTrend(30), values, np.arange(20.0))
    trend = RollingTrend(30)
    for step, value in enumerate(values.tolist()):
        trend.observe(value, position=2**62 + step)
    far = trend.fit()
    assert far is not None
    assert near[-1] is not None
    assert (far.slope, far.residual_sd) == pytest.approx((near[-1].slope, near[-1].residual_sd))


def test_values_on_a_line_have_no_noise_and_an_infinite_t() -> None:
    fit = fit_each(RollingTrend(10), np.arange(30.0) * 0.1 + 5, np.arange(30.0))[-1]
    assert fit is not None
    assert fit.slope == pytest.approx(0.1)
    assert (fit.standard_error, fit.residual_sd, fit.t) == (0.0, 0.0, math.inf)
    assert fit.predict(40.0) == pytest.approx(9.0)


def test_a_falling_line_has_a_t_of_minus_infinity_and_a_level_one_of_zero() -> None:
    falling = fit_each(RollingTrend(5), -np.arange(9.0), np.arange(9.0))[-1]
    level = fit_each(RollingTrend(5), np.full(9, 0.3), np.arange(9.0))[-1]
    assert falling is not None
    assert level is not None
    assert (falling.t, level.t) == (-math.inf, 0.0)


def test_t_is_the_slope_over_its_standard_error() -> None:
    values = np.random.default_rng(5).normal(size=30)
    fit = fit_each(RollingTrend(30), values, np.arange(30.0))[-1]
    expected = fit_with_numpy(values, np.arange(30.0))
    assert fit is not None
    assert fit.t == pytest.approx(expected["slope"] / expected["standard_error"])


def test_there_is_no_line_through_two_values() -> None:
    trend = RollingTrend(3)
    assert [fit is None for fit in fit_each(trend, np.arange(3.0), np.arange(3.0))] == [True, True, False]
    trend.clear()
    assert (len(trend), trend.fit(), trend.points) == (0, None, ())


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_not_kept(broken: float) -> None:
    trend = RollingTrend(5)
    fit_each(trend, np.arange(4.0), np.arange(4.0))
    before = trend.fit()
    trend.observe(broken, position=4.0)
    assert trend.fit() == before


def test_a_trend_goes_on_from_its_state_as_json() -> None:
    rng = np.random.default_rng(6)
    values, positions = rng.normal(size=100), np.arange(100.0)
    for split in (0, 2, 13, 57):
        straight, resumed = RollingTrend(20), RollingTrend(20)
        fit_each(straight, values[:split], positions[:split])
        resumed.load_state_dict(json.loads(json.dumps(straight.state_dict())))
        assert resumed.points == straight.points
        rest = fit_each(straight, values[split:], positions[split:])
        again = fit_each(resumed, values[split:], positions[split:])
        for one, other in zip(rest, again, strict=True):
            assert (one is None) == (other is None)
            assert one is None or equals(other, {"slope": one.slope, "mean": one.mean, "residual_sd": one.residual_sd})


def test_a_window_below_three_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="window of 3 or more; got 2"):
        RollingTrend(2)
