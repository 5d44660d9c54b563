"""What is said of reward against d: never more than the points show, never a number without its unit."""

import re
from dataclasses import replace

import numpy as np
import pytest

from klaudit.frontier import FrontierPoint, Interval, study_frontier
from klaudit.report.views.frontier import FrontierView, propose_command, view_frontier
from tests.frontier.curves import draw_noise, make_points

UNITS = ("estimator", "sqrt(nats)", "nats/sequence", "reward/nat", "reward/sqrt(nat)", "reward", "points", "AICc", "runs")


def make_run(*, reach: float = 6.0, run: str = "demo", beta: float = 0.05, n: int = 60) -> list[FrontierPoint]:
    """Held-out scores with their peak at d = e."""
    noise = draw_noise(n, memory=0.2, sd=0.05, rng=np.random.default_rng(3))
    return make_points(np.linspace(0.1, reach, n), alpha=1.0, bend=0.5, noise=noise, run=run, beta=beta)


def view(points: list[FrontierPoint]) -> FrontierView:
    return view_frontier(study_frontier(points))


def test_a_peak_that_was_seen_is_said_with_its_budget_and_the_command_that_sets_it() -> None:
    shown = view(make_run())
    assert shown.peak is not None
    assert shown.peak.low < shown.peak.d < shown.peak.high
    assert re.match(
        r"The held-out score peaks at d\* = 2\.\d+ \[.+\] sqrt\(nats\), that is KL\* = .+ nats/sequence; past it", shown.sentences[0]
    )
    assert shown.command is not None
    assert shown.command.startswith("klaudit budget set --limit ")
    assert "--unit nats_per_sequence" in shown.command
    assert "--run demo" in shown.command
    assert {one.key: one.value is not None for one in shown.headline} == {"peak": True, "kl": True, "marginal": True, "beta": True}


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (make_run(reach=1.5), "No peak within the data"),
        (make_points(np.linspace(0.1, 3, 40), alpha=0.4, bend=0.0), "No peak within the data"),
        (make_points(np.linspace(4, 8, 40), alpha=1.0, bend=0.5), "its peak lies before the first point"),
        (make_points([1.0, 2.0], alpha=1.0, bend=0.5), "The held-out score could not be fitted: needs 5 points or more"),
        ([replace(one, heldout_score=None) for one in make_run()], "The held-out score could not be fitted"),
        ([], "there are 0"),
    ],
    ids=["short", "straight", "falling", "two points", "no held-out score", "nothing"],
)
def test_without_a_peak_that_was_seen_nothing_is_proposed(points: list[FrontierPoint], said: str) -> None:
    shown = view(points)
    assert said in shown.sentences[0]
    assert (shown.peak, shown.command, shown.advice) == (None, None, ())
    assert [one.text for one in shown.headline if one.key in ("peak", "kl", "beta")] == ["not known"] * 3


def test_an_extrapolated_peak_is_called_one() -> None:
    noise = draw_noise(60, memory=0.0, sd=0.01, rng=np.random.default_rng(3))
    shown = view(make_points(np.linspace(0.1, 2.2, 60), alpha=1.0, bend=0.5, noise=noise))
    assert "past the largest d seen, 2.2 sqrt(nats), and is an extrapolation" in shown.sentences[0]


def test_every_sentence_with_a_number_has_a_unit() -> None:
    shown = view(make_run())
    for sentence in (*shown.sentences, *shown.advice, *(one.formula for one in shown.curves)):
        assert any(unit in sentence for unit in UNITS), sentence
    assert all(one.text == "not known" or one.text.endswith(one.unit) for one in shown.headline)


def test_the_curves_span_the_points_inside_their_bands_and_one_of_each_score_is_better() -> None:
    shown = view(make_run())
    assert [(one.of, one.is_better) for one in shown.curves if one.is_better] == [("score", True), ("heldout_score", True)]
    assert len(shown.curves) == 4
    for curve in shown.curves:
        assert [curve.d[0], curve.d[-1]] == pytest.approx([0.1, 6.0])
        assert all(low <= value <= high for low, value, high in zip(curve.low, curve.value, curve.high, strict=True))


def test_a_sweep_has_a_row_and_a_series_for_each_run() -> None:
    runs = [(0.3, 1.0), (0.03, 2.9), (0.001, 6.0)]
    shown = view([point for beta, reach in runs for point in make_run(reach=reach, run=f"beta {beta}", beta=beta)])
    assert shown.names == ("beta 0.3", "beta 0.03", "beta 0.001")
    assert [one.beta for one in shown.swept] == [0.3, 0.03, 0.001]
    assert shown.series[0].label == "beta 0.3, beta 0.3 reward/nat"
    assert shown.advice[0].startswith("From the sweep: beta = ")
    assert shown.command is not None
    assert "--run RUN" in shown.command


def test_a_long_run_is_thinned_for_the_drawing_only() -> None:
    shown = view(make_run(n=4000))
    (series,) = shown.series
    assert series.n_points == 4000
    assert len(series.d) <= 1500
    assert "4,000 points" in shown.curves[0].formula


def test_d_never_travels_without_its_estimator() -> None:
    full = [replace(one, estimator="full") for one in make_run(run="a")]
    k1 = [replace(one, estimator="k1") for one in make_run(run="b")]
    assert view(full).sentences[-1] == "d is the root of the KL to the reference by the full estimator."
    assert "d comes of different estimators (full: a; k1: b)" in view(full + k1).sentences[-1]


def test_the_command_quotes_a_hostile_name() -> None:
    assert "--run 'x; rm -rf ~'" in propose_command(Interval(4.0, 3.0, 5.0), ["x; rm -rf ~"])
