import numpy as np
import pytest

from klaudit.frontier import Fit, FrontierPoint, fit_points
from klaudit.frontier.rise import measure_rise


def make_line(n: int, *, slope: float, sd: float = 0.0) -> list[FrontierPoint]:
    rng = np.random.default_rng(2)
    return [FrontierPoint(d=1 + 0.1 * at, step=at, heldout_score=0.5 + slope * 0.1 * at + sd * rng.normal()) for at in range(n)]


def test_the_slope_of_a_line_is_found_with_an_interval() -> None:
    points = make_line(30, slope=-0.4, sd=0.05)
    fit = fit_points(points, "rl")
    assert isinstance(fit, Fit)
    rise = measure_rise(points, fit=fit, of="heldout_score")
    assert rise is not None
    assert rise.low < -0.4 < rise.high < 0
    assert rise.value == pytest.approx(-0.4, abs=0.05)


@pytest.mark.parametrize("points", [make_line(3, slope=1.0), [], [FrontierPoint(d=2.0, step=at, heldout_score=0.1) for at in range(9)]])
def test_too_few_points_or_one_d_have_no_slope(points: list[FrontierPoint]) -> None:
    fit = fit_points(make_line(30, slope=-0.4, sd=0.05), "rl")
    assert isinstance(fit, Fit)
    assert measure_rise(points, fit=fit, of="heldout_score") is None
