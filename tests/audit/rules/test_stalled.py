"""Runs that learn slowly, and runs that do not, simulated."""

from collections.abc import Callable
from typing import Any

import numpy as np

from klaudit.audit import Policy, audit_run
from klaudit.audit.policy import RuleSettings
from klaudit.audit.rules.stalled import StalledParameters
from klaudit.records import Finding, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]

ALONE = Policy(rules={"KLA607": RuleSettings(parameters=StalledParameters())})


def find_stalls(build_run: BuildRun, steps: list[StepRecord]) -> list[Finding]:
    return list(audit_run(build_run(), steps, policy=ALONE).findings)


def make_steps(build_step: BuildStep, kl: Any, scores: Any) -> list[StepRecord]:
    return [build_step(step, float(one), score=float(score)) for step, (one, score) in enumerate(zip(kl, scores, strict=True))]


def test_a_learning_rate_a_thousandth_of_what_was_meant_is_found_after_fifty_steps(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(1)
    found = [
        find_stalls(build_run, make_steps(build_step, 1e-8 * rng.lognormal(size=120), rng.normal(0.4, 0.05, size=120))) for _ in range(20)
    ]
    assert all(len(one) >= 1 for one in found)
    assert np.median([one[0].detected_step for one in found]) <= 55


def test_slow_starts_that_move_are_quiet(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        kl = 1e-8 * 10 ** (np.arange(200) / 20) * rng.lognormal(sigma=0.5, size=200)
        assert find_stalls(build_run, make_steps(build_step, kl, rng.normal(0.4, 0.05, size=200))) == []


def test_two_groups_a_step_of_which_most_are_all_right_or_all_wrong_are_quiet(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(3)
    shares = rng.binomial(2, 0.8, size=2000) / 2
    steps = [build_step(step, None, metrics={"frac_reward_zero_std": float(share)}) for step, share in enumerate(shares)]
    assert find_stalls(build_run, steps) == []


def test_zeros_between_tiny_readings_neither_count_nor_end_anything(build_run: BuildRun, build_step: BuildStep) -> None:
    kl = [0.0 if step % 2 else 1e-9 for step in range(130)]
    (finding,) = find_stalls(build_run, make_steps(build_step, kl, [0.5] * 130))
    assert (finding.first_step, finding.detected_step, finding.evidence["n_steps"]) == (2, 100, 64)
