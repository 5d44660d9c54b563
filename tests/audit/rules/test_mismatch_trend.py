from collections.abc import Callable, Iterable

import numpy as np
import pytest

from klaudit.audit.rules.mismatch_trend import MismatchTrend
from klaudit.records import Finding, KLReading, KLSeries, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
Judge = Callable[..., list[Finding]]
MISMATCH = KLSeries(kind="mismatch", estimator="k3", unit="nats_per_token", direction="forward")


def find_trend(judge_alone: Judge, build_run: BuildRun, build_step: BuildStep, values: Iterable[float]) -> list[Finding]:
    steps = [build_step(step, None, readings={"kl_mismatch": KLReading(MISMATCH, value)}) for step, value in enumerate(values)]
    return judge_alone(MismatchTrend, build_run(series={"kl_mismatch": MISMATCH}), steps)


def draw_noise(rng: np.random.Generator, *, n: int, log_sd: float, autocorrelation: float) -> np.ndarray:
    """Factors: the exponential of Student-t 5 noise, AR(1)."""
    shocks = rng.standard_t(5, n) / np.sqrt(5 / 3) * np.sqrt(1 - autocorrelation**2)
    noise = np.zeros(n)
    for step in range(1, n):
        noise[step] = autocorrelation * noise[step - 1] + shocks[step]
    return np.exp(log_sd * noise)


@pytest.mark.parametrize(("log_sd", "autocorrelation"), [(0.1, 0.6), (0.4, 0.3), (0.8, 0.0)])
def test_a_level_mismatch_warns_on_fewer_than_one_step_in_ten_thousand(
    build_run: BuildRun, build_step: BuildStep, judge_alone: Judge, log_sd: float, autocorrelation: float
) -> None:
    rng, n_runs, n = np.random.default_rng(31), 40, 300
    n_found = 0
    for _ in range(n_runs):
        level = np.exp(rng.uniform(np.log(1e-4), np.log(2e-3)))
        n_found += len(
            find_trend(judge_alone, build_run, build_step, level * draw_noise(rng, n=n, log_sd=log_sd, autocorrelation=autocorrelation))
        )
    assert 1000 * n_found / (n_runs * n) < 0.1


def test_a_rise_to_four_times_in_sixty_steps_is_mostly_found_before_it_ends(
    build_run: BuildRun, build_step: BuildStep, judge_alone: Judge
) -> None:
    rng, steps = np.random.default_rng(32), np.arange(120)
    rise = np.clip(1 + 3 * (steps - 50) / 60, 1, 4)
    detected = []
    for _ in range(30):
        values = 3e-4 * rise * draw_noise(rng, n=120, log_sd=0.2, autocorrelation=0.3)
        detected += [one.detected_step for one in find_trend(judge_alone, build_run, build_step, values)[:1]]
    assert len(detected) >= 26
    assert np.median(detected) <= 90


def test_the_message_tells_level_growth_and_significance(build_run: BuildRun, build_step: BuildStep, judge_alone: Judge) -> None:
    values = [3e-4 + 1e-6 * (step % 3) for step in range(30)] + [3e-4 * 1.05**step for step in range(40)]
    (finding,) = find_trend(judge_alone, build_run, build_step, values)
    assert "rollout-mismatch KL grew to" in finding.message
    assert "times the 0.000301 it began with" in finding.message
    assert finding.value is not None
    assert finding.value > 6e-4
    assert len(finding.evidence["window"]["values"]) == 30
