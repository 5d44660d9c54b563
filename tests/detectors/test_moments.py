import math
import statistics
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klaudit.detectors.moments import SlidingMoments, scale_up

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -2.5, 5e-324, sys.float_info.max, -sys.float_info.max, 1 / 3])
def test_a_float_times_two_to_the_1074_is_a_whole_number(value: float) -> None:
    assert scale_up(value) / (1 << 1074) == value


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=30), window=st.integers(2, 8), value=st.floats(-1e6, 1e6))
def test_mean_and_score_are_those_of_the_last_values(values: list[float], window: int, value: float) -> None:
    moments = SlidingMoments(window)
    for one in values:
        moments.push(one)
    kept = values[-window:]
    assert moments.values == tuple(kept)
    assert moments.mean == statistics.mean(kept)
    squared, scale = moments.score(value)
    variance = statistics.variance(kept)
    if scale:
        assert squared / scale == pytest.approx((value - statistics.mean(kept)) ** 2 / variance)
    else:
        assert variance == 0


@settings(max_examples=50, deadline=None)
@given(huge=FINITE, later=st.lists(st.floats(0, 1), min_size=4, max_size=12))
def test_a_value_that_left_the_window_leaves_no_trace(huge: float, later: list[float]) -> None:
    moments, fresh = SlidingMoments(4), SlidingMoments(4)
    moments.push(huge)
    for one in later:
        moments.push(one)
    fresh.refill(later[-4:])
    assert (moments.values, moments.mean, moments.score(2.0)) == (fresh.values, fresh.mean, fresh.score(2.0))


def test_what_leaves_the_window_is_given_back() -> None:
    moments = SlidingMoments(2)
    assert [moments.push(one) for one in (1.0, 2.0, 3.0, math.pi)] == [None, None, 1.0, 2.0]
