import math

import numpy as np
import pytest

from klaudit.frontier import Fit, Form, FrontierPoint, Peak, find_peak, fit_points
from klaudit.frontier.student import find_t_quantile
from tests.frontier.curves import draw_noise, make_points


def find(points: list[FrontierPoint], form: Form = "rl") -> Peak:
    fit = fit_points(points, form)
    assert isinstance(fit, Fit)
    return find_peak(fit, points)


def make(d: list[float], **curve: float | str) -> list[FrontierPoint]:
    return make_points(d, noise=draw_noise(len(d), memory=0.0, sd=0.02, rng=np.random.default_rng(5)), **curve)  # type: ignore[arg-type]


def test_a_peak_that_was_passed_is_inside_with_its_kl() -> None:
    peak = find(make(list(np.linspace(0.1, 6, 40)), alpha=1.0, bend=0.5))
    assert peak.kind == "inside"
    assert peak.d is not None
    assert peak.kl is not None
    assert peak.fall is not None
    assert peak.d.low < math.e < peak.d.high
    assert peak.kl.value == pytest.approx(peak.d.value**2)
    assert peak.fall.high < 0


def test_a_peak_past_the_largest_d_is_an_extrapolation() -> None:
    peak = find(make(list(np.linspace(0.1, 2.0, 40)), alpha=1.0, bend=0.5))
    assert (peak.kind, peak.fall) == ("beyond", None)


def test_a_score_that_falls_from_the_first_point_has_its_peak_before() -> None:
    peak = find(make(list(np.linspace(4, 8, 40)), alpha=1.0, bend=0.5))
    assert peak.kind == "before"


@pytest.mark.parametrize(("alpha", "bend"), [(1.0, 0.0), (0.5, -0.3), (0.0, 0.0)])
def test_a_line_or_a_curve_that_bends_upward_has_none(alpha: float, bend: float) -> None:
    peak = find(make(list(np.linspace(0.1, 3, 40)), alpha=alpha, bend=bend))
    assert (peak.kind, peak.d, peak.kl) == ("none", None, None)


def test_a_score_that_levels_off_is_hardly_ever_taken_for_a_peak() -> None:
    kinds = []
    for seed in range(40):
        noise = draw_noise(60, memory=0.3, sd=0.1, rng=np.random.default_rng(seed))
        points = [FrontierPoint(d=x, step=at, heldout_score=1 - math.exp(-x) + noise[at]) for at, x in enumerate(np.linspace(0.1, 6, 60))]
        kinds += [find(points, form).kind for form in ("rl", "best_of_n")]
    assert kinds.count("plateau") >= 10
    assert kinds.count("inside") <= 4


def test_the_interval_is_fiellers_set() -> None:
    """Every ratio inside it is one that the coefficients cannot refuse, every one outside is refused."""
    points = make_points(
        list(np.linspace(0.1, 4, 30)), alpha=1.0, bend=0.5, noise=draw_noise(30, memory=0, sd=0.1, rng=np.random.default_rng(8))
    )
    fit = fit_points(points, "rl")
    assert isinstance(fit, Fit)
    peak = find_peak(fit, points)
    assert peak.d is not None
    t = find_t_quantile(fit.degrees_of_freedom)

    def is_refused(d: float) -> bool:
        ratio = 1 + math.log(d)
        variance = fit.covariance[1][1] - 2 * ratio * fit.covariance[1][2] + ratio**2 * fit.covariance[2][2]
        return abs(fit.alpha - ratio * fit.bend) > t * math.sqrt(variance)

    assert [is_refused(d) for d in (0.99 * peak.d.low, 1.01 * peak.d.low, peak.d.value, 0.99 * peak.d.high, 1.01 * peak.d.high)] == [
        True,
        False,
        False,
        False,
        True,
    ]
