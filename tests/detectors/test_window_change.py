import json
import math
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klaudit.detectors.change import Change
from klaudit.detectors.window_change import WindowChangeDetector
from klaudit.errors import InvalidRecord


def judge_all(detector: WindowChangeDetector, values: list[float], *, first: int = 0) -> list[Change | None]:
    return [detector.observe(value, position=position) for position, value in enumerate(values, start=first)]


def test_ten_values_are_held_against_the_fifty_before_them() -> None:
    changes = judge_all(WindowChangeDetector(), [1.0] * 60 + [2.0] * 10)
    alarms = [position for position, change in enumerate(changes) if change is not None]
    # six values of 2 among ten make a mean of 1.6; five make 1.5, which is not above the limit
    assert alarms == [65, 66, 67, 68, 69]
    assert changes[65] is not None
    assert replace(changes[65], score=0.6) == Change("level", 1, 0.6, 0.5, 1.0, 56)
    assert changes[65].score == pytest.approx(0.6)


def test_a_fall_alarms_downward() -> None:
    changes = judge_all(WindowChangeDetector(recent=2, earlier=2), [4.0, 4.0, 1.0, 1.0])
    assert changes[-1] == Change("level", -1, 0.75, 0.5, 4.0, 2)


def test_nothing_is_judged_until_both_windows_are_full() -> None:
    assert judge_all(WindowChangeDetector(recent=2, earlier=3), [0.0, 0.0, 9.0, 9.0]) == [None] * 4


def test_against_a_mean_of_zero_every_other_mean_is_an_infinite_change() -> None:
    changes = judge_all(WindowChangeDetector(recent=1, earlier=2), [0.0, 0.0, 0.0, 1e-9])
    assert [change and change.score for change in changes] == [None, None, None, math.inf]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_non_finite_value_is_not_judged_and_leaves_no_trace(broken: float) -> None:
    detector = WindowChangeDetector(recent=1, earlier=1)
    judge_all(detector, [1.0, 2.0])
    before = detector.state_dict()
    assert detector.observe(broken, position=3) is None
    assert detector.state_dict() == before


def test_the_largest_floats_are_judged_like_any_other() -> None:
    largest = sys.float_info.max
    changes = judge_all(WindowChangeDetector(recent=1, earlier=1), [largest, -largest, 5e-324, largest])
    assert [change and change.score for change in changes] == [None, 2.0, 1.0, math.inf]


@pytest.mark.parametrize("wrong", [{"recent": 0}, {"earlier": 0}, {"limit": 0.0}, {"limit": math.nan}])
def test_what_cannot_judge_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidRecord, match="windows of 1 or more and a limit above 0"):
        WindowChangeDetector(**wrong)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.floats(allow_nan=True), min_size=6, max_size=40), cut=st.integers(0, 40))
def test_a_detector_goes_on_from_its_saved_state(values: list[float], cut: int) -> None:
    whole = judge_all(WindowChangeDetector(recent=2, earlier=3), values)
    first, second = WindowChangeDetector(recent=2, earlier=3), WindowChangeDetector(recent=2, earlier=3)
    changes = judge_all(first, values[:cut])
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    assert changes + judge_all(second, values[cut:], first=len(values[:cut])) == whole
