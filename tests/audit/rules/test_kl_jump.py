import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from klaudit.audit import audit_run
from klaudit.records import Finding, KLSeries, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
Floats = npt.NDArray[np.float64]

N_STEPS = 60
FAULT_STEP = 30
GROWTH: dict[str, Callable[[Floats], Floats]] = {
    "saturating": lambda t: 1 - np.exp(-t / 15),
    "d like sqrt(t)": lambda t: t / N_STEPS,
    "d like t": lambda t: (t / N_STEPS) ** 2,
    "slow start": lambda t: (1 - np.exp(-t / 12)) ** 2,
    "rise and fall": lambda t: np.tanh(t / 20) ** 2 * (1 - 0.4 * t / N_STEPS),
}
HEIGHTS = (0.06, 0.3, 1.0, 4.0)
"""Nats per sequence that growth leads to."""


def simulate_growth(shape: str, height: float, *, rng: np.random.Generator) -> Floats:
    """Healthy KL: smooth growth from 0 that wanders by 10% (AR(1) on the log scale)."""
    wander = np.zeros(N_STEPS)
    for step in range(1, N_STEPS):
        wander[step] = 0.6 * wander[step - 1] + rng.normal(0, 0.1 * math.sqrt(1 - 0.36))
    return height * GROWTH[shape](np.arange(N_STEPS, dtype=np.float64)) * np.exp(wander)


def plant_fault(kl: Floats, *, rng: np.random.Generator) -> Floats:
    """KL times 2 to 5 within 1 to 3 steps, then back over some ten steps: a learning rate times 20 for three steps."""
    after = np.arange(N_STEPS, dtype=np.float64) - FAULT_STEP
    rise = np.clip((after + 1) / rng.integers(1, 4), 0, 1)
    fade = np.where(after > 6, np.exp(-(after - 6) / 8), 1.0)
    faulty: Floats = kl * rng.uniform(2.0, 5.0) ** (rise * fade)
    return faulty


def find_jumps(run: Run, steps: list[StepRecord]) -> list[Finding]:
    return [finding for finding in audit_run(run, steps).findings if finding.code == "KLA201"]


def sample_steps(kl: Floats, *, rng: np.random.Generator, build_step: BuildStep) -> list[StepRecord]:
    """Readings with a standard error of 5 to 10% of the KL, itself estimated from 16 sequences."""
    errors = kl * rng.uniform(0.05, 0.10)
    values = np.maximum(kl + errors * rng.standard_normal(N_STEPS), 0.0)
    estimated = errors * np.sqrt(rng.chisquare(15, N_STEPS) / 15)
    return [build_step(step, float(values[step]), se=float(estimated[step]), n_sequences=16) for step in range(N_STEPS)]


@pytest.mark.parametrize("shape", GROWTH)
def test_healthy_growth_is_no_finding(build_run: BuildRun, build_step: BuildStep, shape: str) -> None:
    rng = np.random.default_rng(7)
    runs = [sample_steps(simulate_growth(shape, height, rng=rng), rng=rng, build_step=build_step) for height in HEIGHTS * 3]
    assert [find_jumps(build_run(), steps) for steps in runs] == [[]] * len(runs)


@pytest.mark.parametrize("height", HEIGHTS)
def test_a_learning_rate_fault_is_found_within_three_steps(build_run: BuildRun, build_step: BuildStep, height: float) -> None:
    rng = np.random.default_rng(8)
    n_found = 0
    shapes = list(GROWTH) * 5
    for shape in shapes:
        kl = plant_fault(simulate_growth(shape, height, rng=rng), rng=rng)
        findings = audit_run(build_run(), sample_steps(kl, rng=rng, build_step=build_step)).findings
        changes = [finding for finding in findings if finding.code.startswith("KLA2")]
        n_found += any(FAULT_STEP <= finding.detected_step <= FAULT_STEP + 3 for finding in changes)
    # A rise of 2 over three steps is within what 20 readings of a growing, wandering curve leave open.
    assert n_found >= 0.85 * len(shapes)


def step_up(build_step: BuildStep, *, low: float, high: float, n_high: int = 3) -> list[StepRecord]:
    """Thirty readings around `low`, then `high`."""
    values = [low * (1 + 0.005 * (-1) ** step) for step in range(30)] + [high] * n_high
    return [build_step(step, kl, se=0.05 * kl) for step, kl in enumerate(values, start=1)]


def test_a_jump_is_critical_only_from_one_nat_per_sequence_on(build_run: BuildRun, build_step: BuildStep) -> None:
    (small,) = find_jumps(build_run(), step_up(build_step, low=0.1, high=0.9, n_high=1))
    (large,) = find_jumps(build_run(), step_up(build_step, low=0.1, high=1.1, n_high=1))
    assert (small.severity, large.severity) == ("warning", "critical")
    assert small.detected_step == large.detected_step == 31


def test_a_jump_that_goes_back_is_called_a_spike(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = step_up(build_step, low=0.25, high=1.0, n_high=1)
    back = [build_step(step, 0.25, se=0.0125) for step in range(32, 36)]
    (live,) = find_jumps(build_run(), steps)
    (finding,) = find_jumps(build_run(), steps + back)
    assert live.status == "open"
    assert "jumped to 1 nats/sequence at step 31 where 0.25 nats/sequence was expected" in live.message
    assert (finding.id, finding.status, finding.last_step) == (live.id, "ended", 31)
    assert finding.message.endswith("it was back within 1 reading: a spike.")
    assert (finding.evidence["outcome"], finding.evidence["outcome_step"]) == ("spike", 32)
    assert finding.evidence["window"]["steps"] == list(range(11, 31))


def test_a_jump_that_stays_is_called_a_level_shift(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_jumps(build_run(), step_up(build_step, low=0.25, high=1.2, n_high=6))
    assert finding.message.endswith("it has stayed until step 34: a level shift.")
    assert (finding.severity, finding.status, finding.first_step, finding.last_step) == ("critical", "ended", 31, 34)


def test_an_outlier_of_the_batch_is_information_with_a_remedy_of_its_own(build_run: BuildRun, build_step: BuildStep) -> None:
    before, (jump,) = step_up(build_step, low=0.25, high=1.2, n_high=1)[:30], [build_step(31, 1.2, se=0.9)]
    back = [build_step(step, 0.25, se=0.0125) for step in range(32, 36)]
    (finding,) = find_jumps(build_run(), [*before, jump, *back])
    assert (finding.severity, finding.evidence["outcome"]) == ("info", "outlier")
    assert finding.message.endswith("its standard error is 0.9 nats/sequence; it was back within 1 reading: an outlier of the batch.")
    assert finding.remedy.endswith("if that recurs; if the level stays, go back to the checkpoint before it.")


def test_tiny_kl_near_zero_never_alarms(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(5)
    steps = [build_step(step, float(kl), se=1e-6) for step, kl in enumerate(rng.exponential(2e-4, size=200), start=1)]
    assert not find_jumps(build_run(), steps)


def test_a_fall_is_no_jump(build_run: BuildRun, build_step: BuildStep) -> None:
    assert not find_jumps(build_run(), step_up(build_step, low=2.0, high=0.01))


def test_negative_readings_count_as_zero_distance(build_run: BuildRun, build_step: BuildStep) -> None:
    k1 = KLSeries(estimator="k1", unit="nats_per_sequence")
    steps = [build_step(step, -0.05 if step % 2 else 0.05, series=k1) for step in range(1, 40)]
    assert not find_jumps(build_run(series={"kl": k1}, batch_size=16), steps)


@pytest.mark.parametrize("mean_length", [None, 100.0])
def test_a_series_per_token_is_judged_on_the_scale_of_sequences(
    build_run: BuildRun, build_step: BuildStep, mean_length: float | None
) -> None:
    per_token = KLSeries(estimator="full", unit="nats_per_token")
    steps = [
        build_step(record.step, (record.kl.value or 0) / 100, series=per_token, mean_length=mean_length)
        for record in step_up(build_step, low=0.1, high=1.1)
    ]
    (finding,) = find_jumps(build_run(series={"kl": per_token}), steps)
    assert (finding.severity, "0.011 nats/token" in finding.message) == ("critical", True)


def test_a_length_that_comes_late_does_not_look_like_a_jump(build_run: BuildRun, build_step: BuildStep) -> None:
    per_token = KLSeries(estimator="full", unit="nats_per_token")
    steps = [
        build_step(step, 0.01 * (1 + 0.02 * (-1) ** step), series=per_token, mean_length=1000.0 if step > 20 else None)
        for step in range(1, 40)
    ]
    assert not find_jumps(build_run(series={"kl": per_token}), steps)


def test_a_new_segment_warms_up_again(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = step_up(build_step, low=0.1, high=2.0)
    resumed = [replace(record, segment=1) if record.step > 30 else record for record in steps]
    assert not find_jumps(build_run(), resumed)


def test_without_a_governing_series_the_rule_says_why_it_did_not_run(build_run: BuildRun, build_step: BuildStep) -> None:
    result = audit_run(build_run(series={}), [build_step(1, 0.1)])
    assert "no reference KL of known estimator and unit" in [one.why for one in result.coverage.rules_not_run if one.code == "KLA201"]


def test_a_run_shorter_than_the_warm_up_says_so(build_run: BuildRun, build_step: BuildStep) -> None:
    result = audit_run(build_run(), [build_step(step, 0.1) for step in range(8)])
    (why,) = [one.why for one in result.coverage.rules_not_run if one.code == "KLA201"]
    assert why == "needs more than 12 finite readings of 'kl' in one segment; the most was 8"
