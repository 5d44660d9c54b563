"""Reward under whatever numbers a trainer may log."""

import math
import random
import warnings
from collections.abc import Callable, Iterator

import pytest

from klaudit.audit.observation import Observation
from klaudit.audit.reward_watch import list_components, measure_rise_of_d
from klaudit.audit.rules.over_constrained import OverConstrained, OverConstrainedParameters
from klaudit.audit.rules.overoptimization import Overoptimization, OveroptimizationParameters
from klaudit.audit.rules.reward_hacking import RewardHacking, RewardHackingParameters
from klaudit.frontier import read_points, study_frontier
from klaudit.records import Run, StepRecord
from klaudit.report.views.frontier import view_frontier

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
HOSTILE = (0.0, 1.0, 0.5, 1e308, -1e308, 1e154, -1e160, 1e16, 1e-8, 5e-324, math.nan, math.inf, -math.inf)


def draw_hostile(seed: int, build_step: BuildStep) -> Iterator[StepRecord]:
    rng = random.Random(seed)
    pool = rng.sample(HOSTILE, rng.randint(1, 6))

    def pick() -> float:
        return rng.choice(pool) if rng.random() < 0.7 else rng.gauss(0, 1)

    for step in range(rng.randint(1, 80)):
        names = ("heldout_score", "score_std", "rewards/a", "rewards/b", "response_length")
        yield build_step(step, pick(), beta=pick(), score=pick(), metrics={name: pick() for name in names if rng.random() < 0.8})


@pytest.mark.parametrize("seed", range(60))
def test_no_number_makes_a_rule_or_a_study_raise_or_overflow(build_run: BuildRun, build_step: BuildStep, seed: int) -> None:
    run, steps = build_run(batch_size=16), list(draw_hostile(seed, build_step))
    rules = (
        RewardHacking(run, parameters=RewardHackingParameters()),
        Overoptimization(run, parameters=OveroptimizationParameters()),
        OverConstrained(run, parameters=OverConstrainedParameters()),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        findings = [
            finding for one in steps for rule in rules for finding in rule.observe(Observation(record=one, governing=one.kl, non_finite={}))
        ]
        view = view_frontier(study_frontier(read_points(run, steps)))
    assert all(math.isfinite(one.value or 0) for one in findings)
    assert all(math.isfinite(d) for series in view.series for d in series.d)


def test_components_are_told_from_their_spreads_and_from_what_dpo_logs() -> None:
    names = ("rewards/format/mean", "rewards/format/std", "rewards/chosen", "rewards/margins", "reward", "rewards/length")
    assert list(list_components(dict.fromkeys(names, 0.1))) == ["rewards/format/mean", "rewards/length"]


def test_d_rises_from_the_earlier_half_to_the_later_one() -> None:
    assert measure_rise_of_d([(at, 0.0, 0.0, float(at)) for at in range(6)]) == pytest.approx(3)
    assert measure_rise_of_d([(at, 0.0, 0.0, None) for at in range(6)]) == 0
