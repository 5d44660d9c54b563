"""Shares of ended texts in small batches, simulated."""

from collections.abc import Callable

import numpy as np
import pytest

from klaudit.audit import Policy, audit_run
from klaudit.audit.policy import RuleSettings
from klaudit.audit.rules.eos_missing import EosMissingParameters
from klaudit.records import Finding, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]

ALONE = Policy(rules={"KLA606": RuleSettings(parameters=EosMissingParameters())})


def find_missing(build_run: BuildRun, build_step: BuildStep, shares: list[float], *, name: str = "eos_fraction") -> list[Finding]:
    steps = [build_step(step, None, metrics={name: value}) for step, value in enumerate(shares)]
    return list(audit_run(build_run(), steps, policy=ALONE).findings)


@pytest.mark.parametrize("batch_size", [8, 16, 64])
def test_a_lost_end_of_sequence_token_is_found_within_ten_steps(build_run: BuildRun, build_step: BuildStep, batch_size: int) -> None:
    rng = np.random.default_rng(batch_size)
    n_found = 0
    for _ in range(40):
        expected = np.where(np.arange(70) < 50, rng.uniform(0.6, 1.0), 0.05)
        found = find_missing(build_run, build_step, (rng.binomial(batch_size, expected) / batch_size).tolist())
        n_found += any(50 <= one.detected_step <= 60 for one in found)
    assert n_found >= 38


@pytest.mark.parametrize("batch_size", [4, 16, 64])
def test_a_steady_share_is_quiet_in_five_thousand_steps(build_run: BuildRun, build_step: BuildStep, batch_size: int) -> None:
    rng = np.random.default_rng(batch_size)
    runs = [rng.binomial(batch_size, rng.uniform(0.3, 1.0), size=250) / batch_size for _ in range(20)]
    assert [one.message for run in runs for one in find_missing(build_run, build_step, run.tolist())] == []


def test_a_number_that_is_no_share_is_left_out(build_run: BuildRun, build_step: BuildStep) -> None:
    assert find_missing(build_run, build_step, [0.9] * 40 + [-3.0, 7.0] * 10) == []
    assert find_missing(build_run, build_step, [0.1] * 40 + [-3.0, 7.0] * 10, name="completions/clipped_ratio") == []
