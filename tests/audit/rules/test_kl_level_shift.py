"""Levels that change within a few steps, up and down."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from klaudit.audit import Policy, audit_run
from klaudit.audit.change_rule import ChangeParameters
from klaudit.audit.change_watch import KLChange
from klaudit.audit.observation import Observation
from klaudit.audit.policy import RuleSettings
from klaudit.audit.rules.kl_level_shift import KLLevelShift
from klaudit.detectors.change import Change
from klaudit.records import Finding, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
ONSET = 50


def shift_level(build_step: BuildStep, *, height: float, factor: float, seed: int, ramp: int = 1) -> list[StepRecord]:
    """Readings that scatter by 20% around `height`, and around `factor` times that from ONSET on, reached within `ramp` steps."""
    after = np.clip((np.arange(80) - ONSET + 1) / ramp, 0, 1)
    noise: npt.NDArray[np.float64] = np.exp(0.2 * np.random.default_rng(seed).standard_normal(80))
    return [build_step(step, float(one)) for step, one in enumerate(height * factor**after * noise)]


def find_shifts(run: Run, steps: Iterable[StepRecord], **parameters: Any) -> list[Finding]:
    alone = Policy(rules={"KLA203": RuleSettings(parameters=ChangeParameters(**parameters))})
    return list(audit_run(run, steps, policy=alone).findings)


@pytest.mark.parametrize("seed", range(5))
def test_a_fall_to_a_third_is_found_within_eight_steps_and_says_where_from(build_run: BuildRun, build_step: BuildStep, seed: int) -> None:
    (finding,) = find_shifts(build_run(), shift_level(build_step, height=2.0, factor=0.33, seed=seed))
    assert ONSET <= finding.detected_step <= ONSET + 8
    assert ONSET - 20 < finding.first_step <= finding.detected_step
    assert finding.severity == "warning"
    assert finding.message.startswith("KL to reference (full, nats/sequence) has fallen to another level: ")
    assert finding.message.endswith(f"nats/sequence was expected, since step {finding.first_step}.")
    assert finding.evidence["direction"] == "down"
    assert finding.unit in ("sum of excess standard deviations", "standard errors")
    assert finding.value == finding.evidence["score"] > finding.evidence["limit"] == finding.threshold
    assert finding.evidence["window"]["steps"] == list(range(finding.detected_step - 20, finding.detected_step))


def test_a_rise_over_three_steps_to_thrice_the_level_is_told_by_one_of_the_rules_on_level_and_trend(
    build_run: BuildRun, build_step: BuildStep
) -> None:
    policy = Policy(rules={code: Policy().rules[code] for code in ("KLA201", "KLA203", "KLA204")})
    waits = []
    for seed in range(10):
        found = audit_run(build_run(), shift_level(build_step, height=0.5, factor=3.0, seed=seed, ramp=3), policy=policy).findings
        waits.append(min((one.detected_step - ONSET for one in found if one.detected_step >= ONSET), default=99))
    assert max(waits) <= 20
    assert np.median(waits) <= 5


@pytest.mark.parametrize(("value", "severity"), [(0.9, "warning"), (1.9, "warning"), (2.1, "critical")])
def test_a_rise_is_critical_at_twice_what_was_expected_from_a_nat_on(
    build_run: BuildRun, build_step: BuildStep, value: float, severity: str
) -> None:
    expected = 0.3 if value < 1 else 1.0
    record = build_step(ONSET, value)
    change = KLChange(
        change=Change("level", 1, score=5.0, limit=4.1, expected=expected, first_position=ONSET - 1),
        detector="klaudit",
        reading=record.kl,
        sd=0.1,
        is_outlier=False,
        expected_per_sequence=expected,
        value_per_sequence=value,
        window=(),
    )
    rule = KLLevelShift(build_run(), parameters=ChangeParameters())
    (finding,) = rule.observe(Observation(record=record, governing=record.kl, non_finite={}, change=change))
    assert (finding.severity, finding.evidence["direction"], finding.first_step) == (severity, "up", ONSET - 1)
    assert "has risen to another level" in finding.message


def test_a_fall_is_never_critical(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_shifts(build_run(), shift_level(build_step, height=50.0, factor=0.1, seed=1), critical_kl=0.0)
    assert finding.severity == "warning"


def test_the_levels_of_two_segments_are_not_compared(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = shift_level(build_step, height=2.0, factor=0.33, seed=1)
    assert len(find_shifts(build_run(), steps)) == 1
    assert find_shifts(build_run(), [replace(one, segment=int(one.step >= ONSET)) for one in steps]) == []


def test_a_shift_that_began_with_a_jump_is_not_told_twice(build_run: BuildRun, build_step: BuildStep) -> None:
    kl = [0.3 * (1 + 0.02 * (-1) ** step) for step in range(40)] + [1.5 * (1 + 0.02 * (-1) ** step) for step in range(30)]
    assert find_shifts(build_run(), [build_step(step, one) for step, one in enumerate(kl)]) == []
