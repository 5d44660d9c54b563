"""A KL below zero: an error where it cannot be, a sign of another sampler where noise may take it there."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from klaudit.audit import Policy, audit_run
from klaudit.audit.policy import RuleSettings
from klaudit.audit.rules.kl_negative import KLNegative, KLNegativeParameters
from klaudit.records import Finding, KLSeries, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
Judge = Callable[..., list[Finding]]
Floats = npt.NDArray[np.float64]

K1 = KLSeries(estimator="k1", unit="nats_per_sequence")
SD = 0.02
"""Nats per sequence; more than sampling noise of 64 sequences at a KL of zero, so that it has to be learnt."""


def make_steps(build_step: BuildStep, kl: Iterable[float], *, series: KLSeries = K1, **fields: Any) -> list[StepRecord]:
    return [build_step(step, float(one), series=series, **fields) for step, one in enumerate(kl)]


def find_negative(run: Run, steps: Iterable[StepRecord], **parameters: Any) -> list[Finding]:
    alone = Policy(rules={"KLA206": RuleSettings(parameters=KLNegativeParameters(**parameters))})
    return list(audit_run(run, steps, policy=alone).findings)


@pytest.fixture(name="k1_run")
def build_k1_run(build_run: BuildRun) -> Run:
    return build_run(series={"kl": K1}, batch_size=64)


@pytest.mark.parametrize(("n_runs", "n"), [(40, 400), (160, 100)])
def test_k1_of_a_policy_that_has_not_moved_gives_a_false_alarm_in_ten_thousand_readings(
    k1_run: Run, build_step: BuildStep, judge_alone: Judge, n_runs: int, n: int
) -> None:
    rng = np.random.default_rng(21)
    n_false = 0
    for index in range(n_runs):
        noise = rng.standard_normal(n) if index % 2 else rng.standard_t(6, n)
        n_false += len(judge_alone(KLNegative, k1_run, make_steps(build_step, SD * noise)))
    assert 1000 * n_false / (n_runs * n) <= 0.1


def test_a_mean_two_standard_deviations_below_zero_is_found_within_eight_readings(
    k1_run: Run, build_step: BuildStep, judge_alone: Judge
) -> None:
    rng = np.random.default_rng(22)
    waits = []
    for _ in range(100):
        kl = SD * rng.standard_normal(60)
        kl[40:] -= 2 * SD
        found = [one.detected_step for one in judge_alone(KLNegative, k1_run, make_steps(build_step, kl)) if one.detected_step >= 40]
        waits.append(found[0] - 39 if found else 99)
    assert np.median(waits) <= 8
    assert np.mean(np.array(waits) <= 20) >= 0.98


def test_a_finding_says_since_when_and_how_far_and_grows(k1_run: Run, build_step: BuildStep) -> None:
    kl = [0.05, -0.02, 0.03, 0.01, -0.01, 0.04, 0.02, 0.05, *[-0.2, -0.24] * 8]
    (early,) = find_negative(k1_run, make_steps(build_step, kl[:14]))
    (finding,) = find_negative(k1_run, make_steps(build_step, kl))
    assert (early.id, early.detected_step) == (finding.id, finding.detected_step)
    assert (finding.first_step, finding.last_step, finding.status, finding.severity) == (8, 23, "open", "warning")
    assert finding.message == (
        "KL to reference (k1, nats/sequence) has been below zero since step 8, -0.22 nats/sequence in the mean of 16 readings: "
        "the text was not sampled from the policy that is scored."
    )
    assert finding.value == pytest.approx(-0.22)
    assert (finding.threshold, finding.unit) == (0.0, "nats/sequence")
    assert finding.evidence["window"]["kl"] == kl[-20:]
    assert finding.evidence["sum"] == 2 * finding.evidence["limit"] == 20.0


def test_a_kl_that_comes_back_ends_the_finding_however_long_it_was_below_zero(k1_run: Run, build_step: BuildStep) -> None:
    rng = np.random.default_rng(23)
    kl = np.concatenate([-0.2 + SD * rng.standard_normal(300), 0.2 + SD * rng.standard_normal(20)])
    (finding,) = find_negative(k1_run, make_steps(build_step, kl))
    assert finding.status == "ended"
    assert 299 <= finding.last_step <= 303


@pytest.mark.parametrize(("mean", "severity"), [(-0.8, "warning"), (-1.2, "critical")])
def test_a_mean_of_a_nat_below_zero_is_critical(k1_run: Run, build_step: BuildStep, mean: float, severity: str) -> None:
    kl = mean + SD * np.random.default_rng(24).standard_normal(20)
    (finding,) = find_negative(k1_run, make_steps(build_step, kl))
    assert finding.severity == severity


@pytest.mark.parametrize(("length", "severity"), [(None, "warning"), (50.0, "warning"), (400.0, "critical")])
def test_a_k1_per_token_is_held_against_a_nat_by_its_length(
    build_run: BuildRun, build_step: BuildStep, length: float | None, severity: str
) -> None:
    per_token = KLSeries(estimator="k1", unit="nats_per_token")
    kl = -0.005 + 0.0005 * np.random.default_rng(25).standard_normal(20)
    steps = make_steps(build_step, kl, series=per_token, mean_length=length)
    (finding,) = find_negative(build_run(series={"kl": per_token}), steps)
    assert (finding.severity, finding.unit) == (severity, "nats/token")


@pytest.mark.parametrize("estimator", ["k2", "k3", "full"])
def test_what_cannot_be_negative_is_critical_at_one_reading(build_run: BuildRun, build_step: BuildStep, estimator: Any) -> None:
    series = KLSeries(estimator=estimator, unit="nats_per_token")
    (finding,) = find_negative(build_run(series={"kl": series}), make_steps(build_step, [0.1, 0.1, -0.002, 0.1], series=series))
    assert (finding.severity, finding.first_step, finding.detected_step, finding.last_step) == ("critical", 2, 2, 2)
    assert (
        finding.message == f"KL to reference ({estimator}, nats/token) was -0.002 nats/token at step 2: this estimator cannot be negative."
    )
    assert (finding.value, finding.threshold) == (-0.002, -0.0001)


@pytest.mark.parametrize(("length", "n_found"), [(None, 0), (10.0, 1), (1000.0, 0)])
def test_rounding_is_allowed_for_every_token_of_a_sequence(
    build_run: BuildRun, build_step: BuildStep, length: float | None, n_found: int
) -> None:
    k3 = KLSeries(estimator="k3", unit="nats_per_sequence")
    steps = make_steps(build_step, [0.1, -0.006, 0.1], series=k3, mean_length=length)
    assert len(find_negative(build_run(series={"kl": k3}), steps)) == n_found


def test_each_series_has_findings_of_its_own(build_run: BuildRun, build_step: BuildStep) -> None:
    run = build_run(series={"kl": K1, "kl_k1": K1})
    rng = np.random.default_rng(26)
    steps = [
        replace(one, readings={"kl_k1": build_step(one.step, float(-0.3 + SD * rng.standard_normal()), series=K1).kl})
        for one in make_steps(build_step, 0.3 + SD * rng.standard_normal(20))
    ]
    assert [one.series for one in find_negative(run, steps)] == ["kl_k1"]


def test_a_new_segment_starts_the_sum_again(k1_run: Run, build_step: BuildStep) -> None:
    steps = make_steps(build_step, -0.2 + SD * np.random.default_rng(27).standard_normal(14))
    assert len(find_negative(k1_run, steps)) == 1
    assert find_negative(k1_run, [replace(one, segment=int(one.step >= 7)) for one in steps]) == []
