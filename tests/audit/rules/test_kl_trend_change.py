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


@pytest.mark.parametrize("seed", range(5))
def test_growth_by_three_hundredths_a_step_is_found_before_the_kl_has_doubled(
    build_run: BuildRun, build_step: BuildStep, seed: int
) -> None:
    finding = find_breaks(build_run(), grow(build_step, rate=0.03, seed=seed))[0]
    assert ONSET < finding.detected_step <= ONSET + 23
    assert finding.first_step == finding.detected_step - 9
    assert finding.message.startswith(
        f"KL to reference (full, nats/sequence) has left its trend upward since about step {finding.first_step}: "
    )
    assert finding.message.endswith("nats/sequence was expected.")
    assert finding.unit == "standard errors"
    assert finding.value == finding.evidence["score"] > finding.evidence["limit"] == finding.threshold
    assert finding.evidence["expected"] == pytest.approx(0.8, rel=0.25)


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
        for n in (55, 56)
    }
    assert why == {55: ["needs more than 55 finite readings of 'kl' in one segment; the most was 55"], 56: []}
