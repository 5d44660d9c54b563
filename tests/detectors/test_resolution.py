import math

import numpy as np
import pytest

from klaudit.detectors.resolution import count_decimals, estimate_repeat_share, find_resolution


@pytest.mark.parametrize(
    ("value", "decimals"), [(0.125, 3), (0.12, 2), (16.0, 0), (-0.001, 3), (1.2e-06, 7), (1e22, 0), (0.0, 0), (0.1 + 0.2, 17)]
)
def test_decimals_are_those_of_the_shortest_text(value: float, decimals: int) -> None:
    assert count_decimals(value) == decimals


def test_a_printed_series_has_the_decimal_grid_of_its_finest_value() -> None:
    assert find_resolution([0.12, 0.125, 0.1]) == pytest.approx(1e-3)


def test_a_number_kept_in_bfloat16_has_a_binary_grid() -> None:
    assert find_resolution([0.285400390625, 0.341064453125]) == 2.0**-12


def test_full_precision_has_next_to_no_grid() -> None:
    assert find_resolution([0.1 / 3, 0.2 / 7]) < 1e-15


@pytest.mark.parametrize("sd", [0.3, 1.0, 3.0])
def test_the_share_of_repeats_of_rounded_noise_is_not_underestimated(sd: float) -> None:
    rng = np.random.default_rng(1)
    values = np.round(100 + rng.normal(0, sd, 40_000))
    repeats = np.mean(values[1:] == values[:-1])
    estimates = [estimate_repeat_share(list(values[start : start + 40]), resolution=1.0) for start in range(0, 40_000, 40)]
    assert repeats <= np.mean(estimates) <= min(1.0, 3 * repeats)
    assert np.mean(np.array(estimates) >= repeats) > 0.9


def test_a_value_that_is_logged_several_times_repeats() -> None:
    values = [value for value in (0.1123, 0.2141, 0.1871, 0.2312) for _ in range(3)]
    assert estimate_repeat_share(values, resolution=1e-4) > 8 / 11


def test_a_series_that_stands_still_repeats_surely() -> None:
    assert math.isclose(estimate_repeat_share([0.5] * 10, resolution=0.1), 1.0)
