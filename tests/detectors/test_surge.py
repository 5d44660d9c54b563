import json
import math

import numpy as np
import pytest

from klaudit.detectors.surge import SurgeDetector
from klaudit.errors import InvalidRecord


def build_detector(*, window: int = 50, warm_up: int = 10, floor: float = 1e-6) -> SurgeDetector:
    return SurgeDetector(window=window, warm_up=warm_up, floor=floor, least_times=5.0)


def test_a_surge_is_told_by_median_crest_and_robust_z_of_the_values_before_it() -> None:
    values = np.random.default_rng(1).lognormal(0.0, 0.6, 50).tolist()
    detector = build_detector()
    for value in values:
        detector.observe(value)
    surge = detector.observe(100.0)
    logs = np.log(values)
    sd = 1.4826 * np.median(np.abs(logs - np.median(logs)))
    assert surge is not None
    assert surge.usual == pytest.approx(math.exp(np.median(logs)))
    assert surge.crest == pytest.approx(math.exp(sorted(logs)[44]))
    assert surge.times == pytest.approx(100.0 / surge.usual)
    assert surge.z == pytest.approx((math.log(100.0) - np.median(logs)) / sd)


def test_nothing_is_judged_during_warm_up() -> None:
    detector = build_detector()
    assert [detector.observe(value) for value in (1.0,) * 9 + (1000.0,)] == [None] * 10
    assert detector.observe(1000.0) is not None


def test_a_series_with_two_levels_has_no_surges_between_them() -> None:
    detector = build_detector()
    values = [0.6 if step % 8 == 7 else 0.001 for step in range(200)]
    assert [detector.observe(value) for value in values][50:] == [None] * 150


def test_a_window_forgets() -> None:
    detector = build_detector(window=10)
    for value in [1.0] * 10 + [100.0] * 10:
        detector.observe(value)
    assert detector.usual == pytest.approx(100.0)
    assert detector.observe(120.0) is None


def test_what_is_not_positive_counts_as_the_floor() -> None:
    detector = build_detector(floor=0.1)
    for value in [0.0, -3.0] * 5:
        detector.observe(value)
    assert detector.usual == pytest.approx(0.1)


def test_it_goes_on_from_its_state() -> None:
    values = np.random.default_rng(2).lognormal(0.0, 1.5, 120).tolist()
    whole, first, second = build_detector(), build_detector(), build_detector()
    expected = [whole.observe(value) for value in values]
    for value in values[:60]:
        first.observe(value)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [second.observe(value) for value in values[60:]] == expected[60:]
    assert any(one is not None for one in expected[60:])


@pytest.mark.parametrize("changed", [{"warm_up": 60}, {"floor": 0.0}])
def test_numbers_that_make_no_sense_are_refused(changed: dict[str, float]) -> None:
    with pytest.raises(InvalidRecord, match="SurgeDetector needs"):
        SurgeDetector(**({"window": 50, "warm_up": 10, "floor": 1e-6, "least_times": 5.0} | changed))  # type: ignore[arg-type]
