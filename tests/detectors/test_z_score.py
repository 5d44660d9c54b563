import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klaudit.detectors.change import Change
from klaudit.detectors.z_score import ZScoreDetector
from klaudit.errors import InvalidRecord


def judge_all(detector: ZScoreDetector, values: list[float], *, first: int = 0) -> list[Change | None]:
    return [detector.observe(value, position=position) for position, value in enumerate(values, start=first)]


def test_the_score_is_the_distance_from_the_mean_in_sample_standard_deviations() -> None:
    detector = ZScoreDetector(window=5, limit=3.0)
    assert judge_all(detector, [1.0, 2.0, 3.0, 4.0, 5.0]) == [None] * 5
    # mean 3, sample variance 10 / 4
    change = detector.observe(8.0, position=5)
    assert change is not None
    assert replace(change, score=3.16) == Change("jump", 1, 3.16, 3.0, 3.0, 5)
    assert change.score == pytest.approx(5 / math.sqrt(2.5))


@pytest.mark.parametrize(("value", "direction"), [(9.0, 1), (-3.0, -1)])
def test_either_direction_alarms(value: float, direction: int) -> None:
    detector = ZScoreDetector(window=5)
    judge_all(detector, [1.0, 2.0, 3.0, 4.0, 5.0])
    change = detector.observe(value, position=5)
    assert change is not None
    assert change.direction == direction


def test_a_score_at_the_limit_does_not_alarm() -> None:
    detector = ZScoreDetector(window=2, limit=3.0)
    judge_all(detector, [1.0, -1.0])
    # mean 0, sample standard deviation sqrt 2
    assert detector.observe(math.sqrt(2) * 3 * (1 - 1e-12), position=2) is None


def test_noise_alarms_about_six_times_in_a_thousand_steps() -> None:
    # P(|t| > 3 / sqrt(1 + 1/30)) with 29 degrees of freedom is 6.1 per 1,000; 20,000 steps give 122, three standard deviations are 33
    values = np.random.default_rng(5).normal(size=20_000).tolist()
    assert sum(change is not None for change in judge_all(ZScoreDetector(), values)) == pytest.approx(122, abs=33)


def test_in_a_constant_window_every_other_value_is_infinitely_far() -> None:
    detector = ZScoreDetector(window=3)
    judge_all(detector, [0.0, 0.0, 0.0])
    assert detector.observe(0.0, position=3) is None
    change = detector.observe(1e-9, position=4)
    assert change is not None
    assert change.score == math.inf


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_non_finite_value_is_not_judged_and_leaves_no_trace(broken: float) -> None:
    detector = ZScoreDetector(window=3)
    judge_all(detector, [0.1, 0.2, 0.3])
    before = detector.state_dict()
    assert detector.observe(broken, position=3) is None
    assert detector.state_dict() == before


def test_the_largest_floats_are_judged_like_any_other() -> None:
    detector = ZScoreDetector(window=3)
    largest = sys.float_info.max
    changes = judge_all(detector, [largest, -largest, largest, -largest, 5e-324, largest, 0.0])
    assert changes == [None] * 7


@pytest.mark.parametrize(("window", "limit"), [(1, 3.0), (30, 0.0), (30, math.nan)])
def test_what_cannot_score_is_refused(window: int, limit: float) -> None:
    with pytest.raises(InvalidRecord, match="a window of 2 or more and a limit above 0"):
        ZScoreDetector(window=window, limit=limit)


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.floats(allow_nan=True), min_size=6, max_size=40), cut=st.integers(0, 40))
def test_a_detector_goes_on_from_its_saved_state(values: list[float], cut: int) -> None:
    whole = judge_all(ZScoreDetector(window=4, limit=1.0), values)
    first, second = ZScoreDetector(window=4, limit=1.0), ZScoreDetector(window=4, limit=1.0)
    changes = judge_all(first, values[:cut])
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    assert changes + judge_all(second, values[cut:], first=len(values[:cut])) == whole
