import math

import numpy as np
import pytest

from klaudit.frontier import Fit, FrontierPoint, Interval, SweptRun, advise_from_run, advise_from_sweep, fit_points
from klaudit.frontier.beta_advice import summarise_run
from tests.frontier.curves import draw_noise, make_points

TARGET = Interval(2.0, 1.8, 2.3)
D = list(np.linspace(0.1, 5, 50))


def fit_score(points: list[FrontierPoint]) -> Fit:
    fit = fit_points(points, "rl", of="score")
    assert isinstance(fit, Fit)
    return fit


def test_a_score_of_slope_alpha_rests_at_d_under_alpha_over_two_d() -> None:
    """max over d of alpha d - beta d^2 lies at alpha / (2 beta)."""
    points = make_points(D, alpha=1.2, bend=0.3, noise=draw_noise(50, memory=0.3, sd=0.05, rng=np.random.default_rng(1)), beta=0.05)
    (advice,) = advise_from_run(points, proxy=fit_score(points), target=TARGET)
    assert advice.basis == "trade_off"
    assert advice.beta is not None
    assert advice.beta.value == pytest.approx(1.2 / (2 * 2.0), rel=0.05)
    assert advice.beta.low <= 1.2 / (2 * 2.3) * 1.02
    assert advice.beta.high >= 1.2 / (2 * 1.8) * 0.98


def test_a_score_that_does_not_rise_there_has_no_beta() -> None:
    points = make_points(D, alpha=-0.5, bend=0.1, noise=draw_noise(50, memory=0, sd=0.01, rng=np.random.default_rng(2)))
    (advice,) = advise_from_run(points, proxy=fit_score(points), target=TARGET)
    assert advice.beta is None
    assert "does not rise at d*" in advice.reason


def test_an_adapted_beta_is_read_where_d_crossed() -> None:
    points = [one for at, d in enumerate(D) for one in make_points([d], alpha=1.0, bend=0.3, beta=0.1 * 0.98**at)]
    trade_off, crossing = advise_from_run(points, proxy=None, target=TARGET)
    assert trade_off.beta is None
    assert crossing.beta is not None
    first = next(one for one in points if one.d >= 2.0)
    assert crossing.beta.value == first.beta
    assert crossing.beta.low < crossing.beta.value < crossing.beta.high


def test_a_run_that_never_came_there_says_so() -> None:
    points = [one for at, d in enumerate(D[:10]) for one in make_points([d], alpha=1.0, bend=0.3, beta=0.1 * 0.9**at)]
    assert "never reached d* = 2 sqrt(nats)" in advise_from_run(points, proxy=None, target=TARGET)[1].reason


def make_sweep(betas: tuple[float, ...]) -> list[SweptRun]:
    """Runs that end at d = 0.4 beta^(-1/2)."""
    return [SweptRun(f"beta-{beta}", beta, 0.4 / math.sqrt(beta)) for beta in betas]


def test_a_sweep_is_interpolated_on_log_scales() -> None:
    advice = advise_from_sweep(make_sweep((0.3, 0.1, 0.03, 0.01, 0.001)), target=TARGET)
    assert advice.beta is not None
    assert advice.beta.value == pytest.approx(0.16 / 4, rel=1e-9)
    assert advice.beta.low == pytest.approx(0.16 / 2.3**2)
    assert advice.beta.high == pytest.approx(0.16 / 1.8**2)


def test_runs_out_of_order_are_pooled() -> None:
    runs = [SweptRun("a", 0.1, 1.0), SweptRun("b", 0.03, 3.0), SweptRun("c", 0.02, 2.6), SweptRun("d", 0.001, 6.0)]
    advice = advise_from_sweep(runs, target=Interval(2.8, 2.8, 2.8))
    assert advice.beta is not None
    assert advice.beta.low <= advice.beta.value <= advice.beta.high
    assert 0.02 < advice.beta.value < 0.03


@pytest.mark.parametrize(
    ("betas", "reason"),
    [
        ((0.1, 0.01), "needs runs of 3 betas or more; there are 2"),
        ((0.9, 0.6, 0.3), "try a smaller beta"),
        ((0.01, 0.003, 0.001), "try a larger beta"),
        ((0.0, 0.0, 0.0), "there are 0"),
    ],
)
def test_nothing_is_said_outside_the_sweep(betas: tuple[float, ...], reason: str) -> None:
    runs = [SweptRun("x", beta, 0.4 / math.sqrt(beta) if beta else 3.0) for beta in betas]
    advice = advise_from_sweep(runs, target=TARGET)
    assert advice.beta is None
    assert reason in advice.reason


def test_where_a_run_ended_is_the_median_of_its_last_quarter() -> None:
    swept = summarise_run(make_points([0.1] * 6 + [5.0, 3.0], alpha=1, bend=0, beta=0.1))
    assert swept is not None
    assert (swept.beta, swept.final_d) == (0.1, 4.0)
    assert summarise_run(make_points([1.0], alpha=1, bend=0)) is None
