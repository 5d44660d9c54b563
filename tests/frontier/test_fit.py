import math
from dataclasses import replace

import numpy as np
import pytest

from klaudit.frontier import Fit, Form, FrontierPoint, NoFit, find_peak, fit_points
from tests.frontier.curves import draw_noise, make_points

D = np.linspace(0.1, 6.0, 40)


def fit(points: list[FrontierPoint], form: Form = "rl", *, offset: float | None = None) -> Fit:
    found = fit_points(points, form, offset=offset)
    assert isinstance(found, Fit), found
    return found


@pytest.mark.parametrize("form", ["rl", "best_of_n"])
def test_the_coefficients_of_a_curve_without_noise_are_found(form: Form) -> None:
    found = fit(make_points(D, alpha=1.0, bend=0.25, form=form), form)
    assert (found.offset, found.alpha, found.bend) == pytest.approx((0.2, 1.0, 0.25))
    assert found.residual_sd == pytest.approx(0, abs=1e-6)


def test_gaos_rl_curve_peaks_where_its_formula_says() -> None:
    found = fit(make_points(np.linspace(0.5, 40, 60), alpha=1.0, bend=0.25, offset=0.0))
    peak = find_peak(found)
    assert peak.d is not None
    assert peak.d.value == pytest.approx(math.exp(3), rel=1e-6)
    assert found.predict(peak.d.value).value == pytest.approx(0.25 * math.exp(3), rel=1e-6)
    assert found.measure_slope(peak.d.value).value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("form", ["rl", "best_of_n"])
def test_slope_and_marginal_are_derivatives_of_the_curve_in_d_and_in_kl(form: Form) -> None:
    found = fit(make_points(D, alpha=1.0, bend=0.3, form=form, noise=draw_noise(40, memory=0, sd=0.1, rng=np.random.default_rng(3))), form)
    h = 1e-5
    by_d = (found.predict(2 + h).value - found.predict(2 - h).value) / (2 * h)
    by_kl = (found.predict(math.sqrt(4 + h)).value - found.predict(math.sqrt(4 - h)).value) / (2 * h)
    assert found.measure_slope(2.0).value == pytest.approx(by_d, rel=1e-6)
    assert found.measure_marginal(2.0).value == pytest.approx(by_kl, rel=1e-6)


@pytest.mark.parametrize("form", ["rl", "best_of_n"])
def test_without_dependence_it_is_ordinary_least_squares(form: Form) -> None:
    # The residuals alternate, so that nothing is taken out of them.
    noise = [0.1 * (-1) ** at for at in range(40)]
    points = make_points(D, alpha=1.0, bend=0.25, form=form, noise=noise)
    found = fit(points, form)
    bend = D * np.log(D) if form == "rl" else D**2
    design = np.column_stack([np.ones(40), D, -bend])
    expected, squares, _, _ = np.linalg.lstsq(design, np.array([one.heldout_score for one in points]), rcond=None)
    covariance = np.linalg.inv(design.T @ design) * squares[0] / 37
    assert found.memory == 0
    assert (found.offset, found.alpha, found.bend) == pytest.approx(tuple(expected))
    assert np.array(found.covariance) == pytest.approx(covariance)


def test_a_given_offset_is_kept_and_narrows_the_rest() -> None:
    points = make_points(D, alpha=1.0, bend=0.25, noise=draw_noise(40, memory=0, sd=0.1, rng=np.random.default_rng(1)))
    free, given = fit(points), fit(points, offset=0.2)
    assert given.offset == 0.2
    assert given.covariance[0] == (0, 0, 0)
    assert given.covariance[1][1] < free.covariance[1][1]
    assert given.alpha == pytest.approx(1.0, abs=0.1)


def test_scores_far_from_zero_lose_no_digits() -> None:
    points = make_points(D, alpha=1.0, bend=0.25, noise=draw_noise(40, memory=0.3, sd=0.1, rng=np.random.default_rng(2)))
    shifted = [replace(one, heldout_score=(one.heldout_score or 0) + 1e6) for one in points]
    near, far = fit(points), fit(shifted)
    assert (far.alpha, far.bend, far.residual_sd) == pytest.approx((near.alpha, near.bend, near.residual_sd), rel=1e-5)
    assert far.offset - 1e6 == pytest.approx(near.offset, abs=1e-4)


def test_the_autocorrelation_of_the_residuals_is_found_and_widens_the_interval() -> None:
    rng = np.random.default_rng(4)
    d = np.linspace(0.1, 6, 300)
    alone = fit(make_points(d, alpha=1.0, bend=0.25, noise=draw_noise(300, memory=0.0, sd=0.1, rng=rng)))
    bound = fit(make_points(d, alpha=1.0, bend=0.25, noise=draw_noise(300, memory=0.8, sd=0.1, rng=rng)))
    assert alone.memory < 0.2
    assert bound.memory == pytest.approx(0.8, abs=0.1)
    assert bound.residual_sd == pytest.approx(0.1, rel=0.3)
    assert bound.covariance[2][2] > 4 * alone.covariance[2][2]


@pytest.mark.parametrize(
    ("d", "scores", "reason"),
    [
        ([1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.3, 0.2], "needs 5 points or more with a score and a KL per sequence; there are 4"),
        ([], [], "there are 0"),
        ([2.0] * 8, [0.1 * at for at in range(8)], "d hardly moved: it stayed between 2 and 2 sqrt(nats)"),
        ([0.0] * 8, [0.1] * 8, "d hardly moved"),
        ([1.0, 2.0] * 4, [0.1, 0.2] * 4, "d took too few different values between 1 and 2 sqrt(nats)"),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1e200, -1e200, 1e200, -1e200, 1e200, 0.0], "too"),
    ],
)
def test_points_that_cannot_be_fitted_get_a_reason(d: list[float], scores: list[float], reason: str) -> None:
    points = [FrontierPoint(d=x, step=at, heldout_score=y) for at, (x, y) in enumerate(zip(d, scores, strict=True))]
    with np.errstate(all="ignore"):
        for form in ("rl", "best_of_n"):
            found = fit_points(points, form)
            assert isinstance(found, NoFit)
            assert reason in found.reason


def test_points_without_the_score_are_left_out() -> None:
    points = make_points(D, alpha=1.0, bend=0.25)
    sparse = [replace(one, heldout_score=one.heldout_score if one.step % 4 == 0 else None) for one in points]
    assert fit(sparse).n == 10


@pytest.mark.parametrize("form", ["rl", "best_of_n"])
@pytest.mark.parametrize(("n", "memory"), [(40, 0.0), (40, 0.6), (60, 0.8)])
def test_the_interval_of_the_peak_holds_it_as_often_as_it_says(form: Form, n: int, memory: float) -> None:
    """95% is claimed; points that depend on their neighbours cost a little of it. An interval without an end holds everything."""
    rng = np.random.default_rng(7)
    alpha, bend = (1.0, 0.5) if form == "rl" else (1.0, 0.25)
    true = math.exp(alpha / bend - 1) if form == "rl" else alpha / (2 * bend)
    held, n_bounded = 0, 0
    for _ in range(120):
        d = np.linspace(0.05, 1.7 * true, n) * np.exp(0.05 * rng.normal(size=n))
        peak = find_peak(fit(make_points(d, alpha=alpha, bend=bend, form=form, noise=draw_noise(n, memory=memory, sd=0.1, rng=rng)), form))
        held += peak.d is None or peak.d.low <= true <= peak.d.high
        n_bounded += peak.d is not None
    assert held / 120 >= 0.91
    assert n_bounded > 60
