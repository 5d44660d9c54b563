"""Growth that speeds up, told from growth."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from klaudit.audit import Policy, audit_run
from klaudit.audit.change_rule import ChangeParameters
from klaudit.audit.policy import RuleSettings
from klaudit.records import Finding, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
ONSET = 80


def grow(build_step: BuildStep, *, rate: float, seed: int, height: float = 0.8) -> list[StepRecord]:
    """Readings that scatter by 10%, around `height` until ONSET, and around what grows by `rate` a step from there on."""
    after = np.maximum(0, np.arange(140) - ONSET)
    kl = height * np.exp(rate * after + 0.1 * np.random.default_rng(seed).standard_normal(140))
    return [build_step(step, float(one)) for step, one in enumerate(kl)]


def find_breaks(run: Run, steps: Iterable[StepRecord], **parameters: Any) -> list[Finding]:
    alone = Policy(rules={"KLA204": RuleSettings(parameters=ChangeParameters(**parameters))})
    return list(audit_run(run, steps, policy=alone).findings)


def find_levels_and_breaks(run: Run, steps: Iterable[StepRecord]) -> list[Finding]:
    """What KLA203 and KLA204 tell, in the order of the steps: noise decides which of them is the first to tell of steep growth."""
    both = Policy(rules={code: RuleSettings(parameters=ChangeParameters()) for code in ("KLA203", "KLA204")})
    return sorted(audit_run(run, steps, policy=both).findings, key=lambda one: one.detected_step)


@pytest.mark.parametrize("seed", range(5))
def test_growth_by_three_hundredths_a_step_is_found_before_the_kl_has_doubled(
    build_run: BuildRun, build_step: BuildStep, seed: int
) -> None:
    told = find_levels_and_breaks(build_run(), grow(build_step, rate=0.03, seed=seed))
    assert ONSET < told[0].detected_step <= ONSET + 23
    finding = next(one for one in told if one.code == "KLA204")
    assert finding.detected_step <= max(ONSET + 23, told[0].detected_step + 15)
    assert finding.first_step == finding.detected_step - 9
    assert finding.message.startswith(
        f"KL to reference (full, nats/sequence) has left its trend upward since about step {finding.first_step}: "
    )
    assert finding.message.endswith("nats/sequence was expected.")
    assert finding.unit == "standard errors"
    assert finding.value == finding.evidence["score"] > finding.evidence["limit"] == finding.threshold
    levels = [0.8, *(one.evidence["kl"] for one in told if one.code == "KLA203")]
    assert any(finding.evidence["expected"] == pytest.approx(level, rel=0.25) for level in levels)


def test_growth_that_was_first_told_as_a_level_is_told_as_it_goes_on(build_run: BuildRun, build_step: BuildStep) -> None:
    n_first = 0
    for seed in range(12):
        told = find_levels_and_breaks(build_run(), grow(build_step, rate=0.05, seed=seed))
        breaks = [one.detected_step for one in told if one.code == "KLA204"]
        assert breaks[0] <= ONSET + 28
        n_first += told[0].code == "KLA203"
    assert n_first >= 4


def test_only_twice_what_was_expected_and_a_nat_is_critical(build_run: BuildRun, build_step: BuildStep) -> None:
    (slow, *_) = find_breaks(build_run(), grow(build_step, rate=0.02, seed=1))
    (small, *_) = find_breaks(build_run(), grow(build_step, rate=0.03, seed=1, height=0.04))
    (eager, *_) = find_breaks(build_run(), grow(build_step, rate=0.02, seed=1), critical_kl=0.0)
    assert (slow.severity, small.severity, eager.severity) == ("warning", "warning", "warning")
    noisy = 0.8 * np.exp(0.08 * np.maximum(0, np.arange(140) - ONSET) + 0.35 * np.random.default_rng(2).standard_normal(140))
    policy = Policy(rules={"KLA204": RuleSettings(parameters=ChangeParameters())})
    severities = {
        one.severity for one in audit_run(build_run(), [build_step(s, float(x)) for s, x in enumerate(noisy)], policy=policy).findings
    }
    assert severities == {"critical"}


@pytest.mark.parametrize("shape", ["line", "square root", "saturating", "falling"])
def test_growth_that_does_not_speed_up_is_quiet(build_run: BuildRun, build_step: BuildStep, shape: str) -> None:
    t = np.arange(1, 241)
    curve = {"line": 0.01 * t, "square root": 0.2 * np.sqrt(t), "saturating": 2 * (1 - np.exp(-t / 40)), "falling": 2 * np.exp(-t / 150)}
    for seed in range(4):
        kl = curve[shape] * np.exp(0.1 * np.random.default_rng(seed).standard_normal(240))
        assert find_breaks(build_run(), [build_step(step, float(one)) for step, one in enumerate(kl)]) == []


def test_a_new_segment_begins_its_own_trend(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = grow(build_step, rate=0.03, seed=1)
    assert find_breaks(build_run(), [replace(one, segment=int(one.step >= ONSET + 5)) for one in steps]) == []


def test_a_run_too_short_to_have_a_trend_says_so(build_run: BuildRun, build_step: BuildStep) -> None:
    why = {
        n: [
            one.why for one in audit_run(build_run(), grow(build_step, rate=0.0, seed=1)[:n]).coverage.rules_not_run if one.code == "KLA204"
        ]
        for n in (40, 41)
    }
    assert why == {40: ["needs more than 40 finite readings of 'kl' in one segment; the most was 40"], 41: []}


def test_the_first_reading_that_is_judged_is_the_one_that_it_says_it_needs(build_run: BuildRun, build_step: BuildStep) -> None:
    kl = 0.8 * np.exp(0.1 * np.random.default_rng(3).standard_normal(41) + 0.06 * np.maximum(0, np.arange(41) - 23))
    steps = [build_step(step, float(one)) for step, one in enumerate(kl)]
    assert [one.detected_step for one in find_breaks(build_run(), steps)] == [40]
