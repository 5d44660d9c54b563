import json
import math

import numpy as np
import pytest

from klaudit.detectors.forecast import FARTHEST, ForecastBank, Surprise, find_quantile, find_tail


def judge_all(bank: ForecastBank, values: list[float], *, least_sd: float = 1e-6) -> list[Surprise | None]:
    judged = []
    for value in values:
        judged.append(bank.judge(value, least_sd=least_sd, widening=1.0))
        bank.absorb(trust=1.0)
    return judged


def test_the_tail_is_that_of_student_noise_with_five_degrees_of_freedom() -> None:
    # Quantiles of Student's t with 5 degrees of freedom, from any table.
    table = {0.5: 0.0, 0.1: 1.475884, 0.05: 2.015048, 0.01: 3.364930, 0.001: 5.893430, 0.0005: 6.868827}
    assert [find_tail(z) for z in table.values()] == pytest.approx(list(table), rel=1e-5)
    assert find_tail(-2.015048) == pytest.approx(0.95, rel=1e-6)


def test_the_far_tail_joins_the_near_one_and_never_overflows() -> None:
    assert find_tail(29.999) == pytest.approx(find_tail(30.001), rel=0.05)
    assert find_tail(FARTHEST) == 0.0
    assert find_quantile(1e-300) > 1e50


def test_the_quantile_undoes_the_tail() -> None:
    for z in (0.5, 2.0, 4.0, 12.0, 50.0):
        assert find_quantile(find_tail(z)) == pytest.approx(z, rel=1e-6)


def test_a_straight_line_is_expected_to_go_on() -> None:
    surprise = judge_all(ForecastBank(noise="proportional", least=1e-3), [1.0 + 0.05 * step for step in range(80)])[-1]
    assert surprise is not None
    assert surprise.expected == pytest.approx(1.0 + 0.05 * 79, rel=0.02)


def test_noise_that_multiplies_and_noise_that_is_added_are_both_judged_on_their_scale() -> None:
    rng = np.random.default_rng(1)
    multiplied = judge_all(ForecastBank(noise="proportional", least=1e-4), list(np.exp(0.8 * rng.standard_normal(400))))
    added = judge_all(ForecastBank(noise="sampling", least=1e-3), list(1.0 + 0.25 * rng.standard_normal(400)))
    for judged in (multiplied, added):
        z = np.array([one.z for one in judged[60:] if one is not None])
        assert 0.75 < z.std() < 1.25
        assert (np.abs(z) > 5).sum() <= 2


def test_the_scale_is_found_under_the_tails_of_student_noise() -> None:
    rng = np.random.default_rng(6)
    noise = 0.1 * rng.standard_t(6, 2000) / math.sqrt(1.5)
    judged = judge_all(ForecastBank(noise="sampling", least=1e-3), list(1.0 + noise))
    sds = np.array([one.sd for one in judged[150:] if one is not None])
    assert np.median(sds) == pytest.approx(0.1, rel=0.12)
    # The spread of a plain root mean square of a hundred such values is a seventh larger.
    assert sds.std() < 0.013


def test_a_chance_is_worked_out_wherever_it_may_be_rare() -> None:
    rng = np.random.default_rng(7)
    values = list(np.exp(0.3 * rng.standard_t(4, 1000)))
    every = judge_all(ForecastBank(noise="proportional", least=1e-3), values)
    rare = judge_all(ForecastBank(noise="proportional", least=1e-3, rare=0.01), values)
    assert [one and one.z for one in every] == [one and one.z for one in rare]
    chances = [(one.p_up, other.p_up) for one, other in zip(every, rare, strict=True) if one is not None and other is not None]
    assert sum(p < 0.01 for p, _ in chances) > 5
    assert all(q == p if p < 0.01 else q in (p, 1.0) for p, q in chances)
    assert sum(q == 1.0 for _, q in chances) > 800


def test_an_outlier_moves_neither_forecast_nor_scale_far() -> None:
    rng = np.random.default_rng(2)
    values = list(1.0 + 0.1 * rng.standard_normal(100))
    bank = ForecastBank(noise="proportional", least=1e-3)
    before = judge_all(bank, values)[-1]
    after = judge_all(bank, [50.0, 1.0])[-1]
    assert before is not None
    assert after is not None
    assert after.expected < 1.3
    assert after.sd < 1.5 * before.sd


def test_a_forecast_never_claims_less_noise_than_it_is_told() -> None:
    judged = judge_all(ForecastBank(noise="proportional", least=1e-3), [1.0] * 40, least_sd=0.2)
    assert judged[-1] is not None
    assert judged[-1].sd == pytest.approx(0.2, rel=1e-3)


def test_state_is_json_and_goes_on_where_it_was() -> None:
    rng = np.random.default_rng(3)
    values = list(np.exp(0.3 * rng.standard_normal(120)))
    whole, first = ForecastBank(noise="sampling", least=1e-2), ForecastBank(noise="sampling", least=1e-2)
    expected = judge_all(whole, values)[70:]
    judge_all(first, values[:70])
    second = ForecastBank(noise="sampling", least=1e-2)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for one, other in zip(expected, judge_all(second, values[70:]), strict=True):
        assert one is not None
        assert other is not None
        assert (other.z, other.expected, other.sd) == pytest.approx((one.z, one.expected, one.sd), rel=1e-9)


@pytest.mark.parametrize("values", [[0.0] * 50, [-1.0] * 50, [1e50, -1e50] * 25, [1e-50] * 50, [0.0, 1e50] * 25])
def test_hostile_values_give_numbers(values: list[float]) -> None:
    for one in judge_all(ForecastBank(noise="proportional", least=1e-5), values)[1:]:
        assert one is not None
        assert all(math.isfinite(number) for number in (one.z, one.z_up, one.z_down, one.p_up, one.expected, one.sd))


def test_a_series_that_is_not_negative_is_not_expected_to_be_after_a_huge_spike() -> None:
    rng = np.random.default_rng(3)
    values = 0.02 * np.exp(0.3 * rng.standard_normal(80))
    values[3] = 5.0
    bank = ForecastBank(noise="proportional", least=2.25e-6)
    expected = []
    for value in values:
        surprise = bank.judge(float(value), least_sd=7e-6, widening=1.0)
        bank.absorb(trust=1.0)
        expected.append(0.0 if surprise is None else surprise.expected)
    assert min(expected) >= 0
