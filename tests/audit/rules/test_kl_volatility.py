"""Scatter that grows, told from scatter."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest

from klaudit.audit import Policy, audit_run
from klaudit.audit.change_rule import ChangeParameters
from klaudit.audit.policy import RuleSettings
from klaudit.records import Finding, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
ALONE = Policy(rules={"KLA205": RuleSettings(parameters=ChangeParameters(critical_kl=0.0))})
ONSET = 60


def scatter(build_step: BuildStep, *, before: float, after: float) -> list[StepRecord]:
    """Readings to and fro around 1 nat/sequence by shares that repeat every five steps, times `after` from ONSET on."""
    shares = np.tile([1.0, -0.8, 0.3, -1.1, 0.6], 16) * np.where(np.arange(80) < ONSET, before, after)
    return [build_step(step, float(1 + one)) for step, one in enumerate(shares)]


def find_scatter(run: Run, steps: Iterable[StepRecord]) -> list[Finding]:
    return list(audit_run(run, steps, policy=ALONE).findings)


def test_four_times_the_scatter_is_a_warning_with_its_range(build_run: BuildRun, build_step: BuildStep) -> None:
    finding = find_scatter(build_run(), scatter(build_step, before=0.05, after=0.2))[0]
    assert ONSET <= finding.first_step <= finding.detected_step <= ONSET + 10
    assert finding.severity == "warning"
    n = finding.detected_step - finding.first_step + 1
    assert f"scatters more since step {finding.first_step}: from 0.78 to 1.2 nats/sequence in {n} readings, around " in finding.message
    assert finding.unit == "sum of excess squared standard deviations"
    assert finding.value == finding.evidence["score"] > finding.evidence["limit"] == finding.threshold


@pytest.mark.parametrize("after", [0.02, 0.05, 0.07])
def test_scatter_that_is_as_it_was_or_hardly_more_is_quiet(build_run: BuildRun, build_step: BuildStep, after: float) -> None:
    assert find_scatter(build_run(), scatter(build_step, before=0.05, after=after)) == []


def test_a_noisier_new_segment_is_held_against_itself(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = scatter(build_step, before=0.05, after=0.2)
    assert find_scatter(build_run(), [replace(one, segment=int(one.step >= ONSET)) for one in steps]) == []


def test_noise_in_proportion_to_a_level_that_grows_is_quiet(build_run: BuildRun, build_step: BuildStep) -> None:
    for seed in range(6):
        kl = 0.02 * np.arange(1, 181) * np.exp(0.2 * np.random.default_rng(seed).standard_normal(180))
        assert find_scatter(build_run(), [build_step(step, float(one)) for step, one in enumerate(kl)]) == []
