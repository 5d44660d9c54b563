from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from klaudit.audit.rules.update_kl_high import UpdateKLHigh
from klaudit.records import Finding, KLReading, KLSeries, Run, Severity, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
Judge = Callable[..., list[Finding]]


def warn(judge_alone: Judge, run: Run, steps: list[StepRecord], **parameters: Any) -> list[Finding]:
    """What is more than info."""
    return [one for one in judge_alone(UpdateKLHigh, run, steps, **parameters) if one.severity != Severity.INFO]


def draw_healthy(rng: np.random.Generator, *, n: int, log_sd: float) -> list[float]:
    """A level between 0.001 and 0.05 nats/token that drifts by up to e squared down or e up, with Student-t 5 noise on the log."""
    noise = rng.standard_t(5, n) * log_sd / np.sqrt(5 / 3)
    level = np.log(rng.uniform(1e-3, 0.05)) + rng.uniform(-2, 1) * np.arange(n) / n
    values: list[float] = np.exp(level + noise).tolist()
    return values


@pytest.mark.parametrize("log_sd", [0.2, 0.35, 0.5])
def test_healthy_update_kls_warn_on_fewer_than_one_step_in_ten_thousand(
    build_run: BuildRun, build_step: BuildStep, judge_alone: Judge, log_sd: float
) -> None:
    rng, run, n_runs, n = np.random.default_rng(11), build_run(), 40, 300
    runs = [
        [build_step(step, None, update=value) for step, value in enumerate(draw_healthy(rng, n=n, log_sd=log_sd))] for _ in range(n_runs)
    ]
    assert 1000 * sum(len(warn(judge_alone, run, steps)) for steps in runs) / (n_runs * n) < 0.1


def test_a_learning_rate_times_twenty_is_found_within_three_steps(build_run: BuildRun, build_step: BuildStep, judge_alone: Judge) -> None:
    rng, run = np.random.default_rng(12), build_run()
    found = 0
    for _ in range(30):
        values = np.exp(np.log(6e-4) + 0.6 * rng.normal(size=60))
        values[40:] *= 100
        findings = warn(judge_alone, run, [build_step(step, None, update=value) for step, value in enumerate(values.tolist())])
        found += any(40 <= one.detected_step <= 42 for one in findings)
    assert found >= 28


def test_an_update_kl_that_grows_with_the_learning_rate_of_a_warm_up_is_no_surge(
    build_run: BuildRun, build_step: BuildStep, judge_alone: Judge
) -> None:
    steps = [build_step(step, None, update=2e-5 * min(step, 100) ** 2) for step in range(1, 200)]
    assert warn(judge_alone, build_run(), steps) == []


def test_a_step_without_a_finite_reading_neither_counts_nor_breaks(build_run: BuildRun, build_step: BuildStep, judge_alone: Judge) -> None:
    values = [0.001] * 20 + [0.05, float("nan"), 0.06]
    (finding,) = warn(judge_alone, build_run(), [build_step(step, None, update=value) for step, value in enumerate(values)])
    assert (finding.first_step, finding.detected_step, finding.severity) == (20, 22, Severity.WARNING)
    assert finding.evidence["window"]["nats_per_token"][-2:] == [0.05, 0.06]


def test_a_series_per_sequence_without_a_length_is_judged_by_a_nominal_one(
    build_run: BuildRun, build_step: BuildStep, judge_alone: Judge
) -> None:
    series = KLSeries(kind="update", estimator="k1", unit="nats_per_sequence")
    values = [0.1] * 20 + [5.0, 6.0]
    steps = [build_step(step, None, readings={"kl_update": KLReading(series, value)}) for step, value in enumerate(values)]
    (finding,) = warn(judge_alone, build_run(series={"kl_update": series}), steps, nominal_length=50.0)
    assert finding.value == pytest.approx(0.12)
