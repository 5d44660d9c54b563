import functools
from dataclasses import replace

import numpy as np
import pytest

from klaudit.assets import locate_asset
from klaudit.exchange.recorded_run import read_recorded_run
from klaudit.frontier import FrontierPoint, FrontierStudy, read_points, study_frontier
from tests.frontier.curves import draw_noise, make_points


@functools.cache
def read_sample(name: str) -> tuple[FrontierPoint, ...]:
    recorded = read_recorded_run(locate_asset("sample_runs") / name)
    return read_points(recorded.run, recorded.steps)


def test_the_run_without_an_anchor_has_a_peak_far_before_its_end() -> None:
    points = read_sample("beta-near-zero")
    study = study_frontier(points)
    assert study.heldout.peak is not None
    assert study.heldout.peak.kind == "inside"
    assert study.target is not None
    assert study.proposed_kl is not None
    assert 1.2 < study.target.low < study.target.value < study.target.high < 3.5
    assert study.proposed_kl.value == study.target.value**2
    assert study.marginal is not None
    assert study.marginal.high < 0
    (advice,) = study.advice
    assert advice.beta is not None
    assert advice.beta.low > 100 * 0.0001


def test_the_healthy_run_has_no_peak_within_its_data_and_so_no_budget_and_no_advice() -> None:
    study = study_frontier(read_sample("adaptive-beta"))
    assert study.heldout.peak is not None
    assert study.heldout.peak.kind != "inside"
    assert (study.proposed_kl, study.advice) == (None, ())


def test_the_better_form_is_the_one_that_the_points_were_drawn_from() -> None:
    d = np.linspace(0.1, 8, 60)
    for form in ("rl", "best_of_n"):
        noise = draw_noise(60, memory=0.2, sd=0.03, rng=np.random.default_rng(11))
        study = study_frontier(make_points(d, alpha=1.0, bend=0.3, form=form, noise=noise))
        assert study.heldout.best is not None
        assert (study.heldout.best.form, study.heldout.advantage > 10) == (form, True)


def test_forms_that_are_not_told_apart_share_their_interval() -> None:
    study = study_frontier(read_sample("beta-near-zero"))
    assert study.heldout.advantage < 2
    peaks = [one.d for one in study.heldout.peaks.values() if one.d is not None]
    assert study.target is not None
    assert (study.target.low, study.target.high) == (min(one.low for one in peaks), max(one.high for one in peaks))


def make_sweep() -> list[FrontierPoint]:
    """Five betas, each run further out on one curve with its peak at e."""
    rng = np.random.default_rng(12)
    runs = []
    for beta, end in ((0.3, 0.9), (0.1, 1.6), (0.03, 2.9), (0.01, 4.2), (0.001, 6.0)):
        d = end * (1 - np.exp(-np.arange(36) / 8))
        noise = draw_noise(36, memory=0.3, sd=0.05, rng=rng)
        runs += make_points(d, alpha=1.0, bend=0.5, noise=noise, run=f"beta-{beta}", beta=beta)
    return runs


def test_a_sweep_gives_one_curve_and_a_beta_between_its_runs() -> None:
    study = study_frontier(make_sweep())
    assert study.target is not None
    assert study.target.low < np.e < study.target.high
    assert [one.beta for one in study.swept] == [0.3, 0.1, 0.03, 0.01, 0.001]
    sweep, trade_off = study.advice
    assert sweep.beta is not None
    assert 0.03 < sweep.beta.value < 0.1
    assert (sweep.basis, trade_off.basis) == ("sweep", "trade_off")


def test_without_a_held_out_score_there_is_a_reason_and_the_score_is_fitted() -> None:
    study = study_frontier([replace(one, heldout_score=None) for one in make_sweep()])
    assert study.score.fits
    assert study.heldout.fits == ()
    assert "there are 0" in study.heldout.reason
    assert (study.target, study.marginal, study.advice) == (None, None, ())


@pytest.mark.parametrize("n", [0, 1, 4])
def test_too_few_points_are_no_exception(n: int) -> None:
    study: FrontierStudy = study_frontier(make_points([1.0 + at for at in range(n)], alpha=1, bend=0.1))
    assert study.heldout.fits == ()
    assert f"there are {n}" in study.heldout.reason


def test_five_points_are_enough_to_fit_and_too_few_to_be_sure() -> None:
    study = study_frontier(make_points([0.5, 1.0, 2.0, 3.5, 5.0], alpha=1, bend=0.4, noise=[0.02, -0.03, 0.01, 0.02, -0.02]))
    assert len(study.heldout.fits) == 2
    assert study.heldout.fits[0].degrees_of_freedom <= 2
