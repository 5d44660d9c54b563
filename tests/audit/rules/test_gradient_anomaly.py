from collections.abc import Callable

import numpy as np
import pytest

from klaudit.audit import audit_run
from klaudit.audit.rules.gradient_anomaly import GradientAnomaly
from klaudit.records import Finding, Run, Severity, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
Judge = Callable[..., list[Finding]]


def draw_norms(rng: np.random.Generator, *, n: int, log_sd: float) -> list[float]:
    """Log-normal with Student-t 5 tails, around a level that drifts by up to e squared either way."""
    level = rng.normal(1.0, 1.0) + rng.uniform(-2, 2) * np.arange(n) / n
    norms: list[float] = np.exp(level + log_sd * rng.standard_t(5, n) / np.sqrt(5 / 3)).tolist()
    return norms


@pytest.mark.parametrize("log_sd", [0.2, 0.5, 1.0])
def test_heavy_tailed_gradients_warn_on_fewer_than_one_step_in_ten_thousand(
    build_run: BuildRun, build_step: BuildStep, judge_alone: Judge, log_sd: float
) -> None:
    rng, run, n_runs, n = np.random.default_rng(21), build_run(), 40, 300
    runs = [
        [build_step(step, None, metrics={"grad_norm": norm}) for step, norm in enumerate(draw_norms(rng, n=n, log_sd=log_sd))]
        for _ in range(n_runs)
    ]
    assert 1000 * sum(len(judge_alone(GradientAnomaly, run, steps)) for steps in runs) / (n_runs * n) < 0.1


def test_gradients_that_stay_twenty_times_the_usual_are_found_within_three_steps(
    build_run: BuildRun, build_step: BuildStep, judge_alone: Judge
) -> None:
    rng, run = np.random.default_rng(22), build_run()
    found = 0
    for _ in range(30):
        norms = np.exp(1.0 + 0.3 * rng.normal(size=60))
        norms[40:] *= 20
        findings = judge_alone(
            GradientAnomaly, run, [build_step(step, None, metrics={"grad_norm": norm}) for step, norm in enumerate(norms.tolist())]
        )
        found += any(40 <= one.detected_step <= 42 for one in findings)
    assert found >= 28


def test_a_nan_gradient_is_told_beside_the_rule_that_lists_all_that_is_broken(
    build_run: BuildRun, build_step: BuildStep, judge_alone: Judge
) -> None:
    nan = float("nan")
    steps = [build_step(1, 0.1, metrics={"grad_norm": 1.0}), build_step(2, 0.1, metrics={"grad_norm": nan}), build_step(3, nan)]
    told = [(one.code, one.severity, one.detected_step, one.last_step) for one in audit_run(build_run(), steps).findings]
    assert ("KLA504", Severity.CRITICAL, 2, 2) in told
    assert ("KLA303", Severity.CRITICAL, 2, 3) in told


def test_a_surge_keeps_the_window_that_it_was_judged_by(build_run: BuildRun, build_step: BuildStep, judge_alone: Judge) -> None:
    norms = [2.0, 2.5, 3.0] * 10 + [60.0, 70.0]
    (finding,) = judge_alone(
        GradientAnomaly, build_run(), [build_step(step, None, metrics={"grad_norm": norm}) for step, norm in enumerate(norms)]
    )
    assert (finding.first_step, finding.detected_step, finding.evidence["usual"]) == (30, 31, pytest.approx(2.5))
    assert finding.evidence["window"]["grad_norm"][-3:] == [3.0, 60.0, 70.0]
