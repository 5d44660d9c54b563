import math

import numpy as np
import pytest

from klaudit.audit.budget_watch import ExponentialMean, Total


def test_the_ewma_error_is_the_spread_of_the_ewma() -> None:
    rng = np.random.default_rng(4)
    ends: list[float] = []
    for _ in range(4000):
        mean = ExponentialMean(9)
        for value in rng.normal(2.0, 0.3, size=12):
            level, error = mean.observe(float(value), standard_error=0.3)
        ends.append(level)
    assert error == pytest.approx(float(np.std(ends)), rel=0.04)


def test_the_ewma_has_no_error_until_nearly_all_of_its_weight_has_one() -> None:
    mean = ExponentialMean(3)
    mean.observe(1.0, standard_error=None)
    errors = [mean.observe(1.0, standard_error=0.1)[1] for _ in range(8)]
    # half of the unknown weight is left after each step: 2^-6 is 0.016, 2^-7 is 0.008
    assert [error is None for error in errors] == [True] * 6 + [False] * 2


def test_one_unknown_error_leaves_the_sum_without_one() -> None:
    total = Total()
    assert total.observe(1.0, standard_error=0.3)[1] == pytest.approx(0.3)
    assert total.observe(1.0, standard_error=0.4)[1] == pytest.approx(0.5)
    assert total.observe(1.0, standard_error=None) == (3.0, None)
    assert total.observe(1.0, standard_error=0.1) == (4.0, None)


def test_huge_numbers_overflow_to_infinity_and_do_not_raise() -> None:
    for statistic in (ExponentialMean(5), Total()):
        statistic.observe(1e308, standard_error=1e300)
        value, error = statistic.observe(1e308, standard_error=1e300)
        assert value > 1e307
        assert error == math.inf
