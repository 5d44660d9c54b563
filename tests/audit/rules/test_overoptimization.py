import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from klaudit.audit import audit_run
from klaudit.audit.observation import Observation
from klaudit.audit.rules.overoptimization import Overoptimization, OveroptimizationParameters
from klaudit.frontier import read_points, study_frontier
from klaudit.frontier.point import read_d
from klaudit.records import Finding, KLSeries, Run, StepRecord
from tests.audit.rules.rewarded_runs import draw_run

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]


def find_past_peak(run: Run, steps: Iterable[StepRecord]) -> list[Finding]:
    return [finding for finding in audit_run(run, steps).findings if finding.code == "KLA602"]


def observe(record: StepRecord) -> Observation:
    return Observation(record=record, governing=record.kl, non_finite={}, d=read_d(record.kl))


def drift_past_peak(build_step: BuildStep, *, n: int = 80, reach: float = 6.0) -> list[StepRecord]:
    """Held-out score on Gao's curve with its peak at d = e, a ripple on it."""
    steps = []
    for at in range(n):
        d = 0.05 + reach * at / n
        heldout = 0.1 + d * (1 - 0.5 * math.log(d)) + 0.03 * math.sin(2.5 * at)
        steps.append(build_step(at, d * d, score=d, metrics={"heldout_score": heldout}))
    return steps


def test_the_finding_names_peak_interval_and_budget(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_past_peak(build_run(), drift_past_peak(build_step))
    assert (finding.severity, finding.unit, finding.series) == ("critical", "sqrt(nats)", "heldout_score")
    assert "is past the peak of the held-out score at d* = 2.7" in finding.message
    assert "nats/sequence is the budget that these data propose" in finding.remedy
    low, peak, high = finding.evidence["peak_d"]
    assert low < peak < high
    assert peak == pytest.approx(math.e, rel=0.05)
    assert finding.value is not None
    assert finding.threshold is not None
    assert finding.value > finding.threshold == high
    assert len(finding.evidence["blocks"]["d"]) == len(finding.evidence["blocks"]["heldout_score"])


def test_the_peak_is_the_one_that_the_study_of_the_run_finds(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = drift_past_peak(build_step)
    (finding,) = find_past_peak(build_run(), steps)
    study = study_frontier(read_points(build_run(), steps))
    assert study.heldout.best is not None
    assert finding.evidence["form"] == study.heldout.best.form == "rl"
    assert study.target is not None
    assert finding.evidence["peak_d"][1] == pytest.approx(study.target.value, rel=1e-6)


def test_a_policy_that_came_back_to_the_peak_gets_a_warning(build_run: BuildRun, build_step: BuildStep) -> None:
    """Out past the peak; then, judged anew with each block, at 0.9 of it, where a warning stands, and at half of it, where none does."""
    out = drift_past_peak(build_step)
    rule = Overoptimization(build_run(), parameters=OveroptimizationParameters(quiet_blocks=1))

    def stay_at(d: float, *, first_step: int) -> list[Finding]:
        heldout = 0.1 + d * (1 - 0.5 * math.log(d))
        steps = [build_step(first_step + at, d * d, metrics={"heldout_score": heldout + 0.03 * math.sin(at)}) for at in range(20)]
        return [finding for one in steps for finding in rule.observe(observe(one))]

    assert [one.severity for step in out for one in rule.observe(observe(step))][-1] == "critical"
    rule.episode.end()
    back = stay_at(0.9 * math.e, first_step=100)
    assert [one.severity for one in back] == ["warning", "warning"]
    assert "has passed 80% of the way to the peak" in back[0].message
    assert [one.status for one in stay_at(0.5 * math.e, first_step=200)] == ["ended"]


def test_a_run_that_stops_before_the_peak_is_not_judged(build_run: BuildRun, build_step: BuildStep) -> None:
    assert not find_past_peak(build_run(), drift_past_peak(build_step, reach=2.4))


def test_a_score_that_levels_off_is_healthy(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [
        build_step(at, (0.05 * at) ** 2, metrics={"heldout_score": 1 - math.exp(-0.05 * at) + 0.05 * math.sin(2.5 * at)})
        for at in range(160)
    ]
    assert not find_past_peak(build_run(), steps)


def test_healthy_runs_do_not_alarm(build_run: BuildRun) -> None:
    n_steps = 0
    for seed in range(64):
        rule = Overoptimization(build_run(), parameters=OveroptimizationParameters())
        simulated = draw_run(seed, hacks=False)
        n_steps += len(simulated.observations)
        assert not [finding for one in simulated.observations for finding in rule.observe(one)], seed
    assert n_steps > 14_000


def test_a_kl_per_token_without_lengths_gives_a_reason(build_run: BuildRun, build_step: BuildStep) -> None:
    per_token = KLSeries(estimator="full", unit="nats_per_token")
    steps = [build_step(at, 0.01 * at, series=per_token, metrics={"heldout_score": 0.1}) for at in range(60)]
    result = audit_run(build_run(series={"kl": per_token}), steps)
    assert "needs 20 steps or more with a held-out score and a KL in nats per sequence" in [
        one.why for one in result.coverage.rules_not_run if one.code == "KLA602"
    ]


def test_live_equals_the_audit_of_the_prefix_and_segments_are_judged_apart(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = drift_past_peak(build_step)
    (early,), (late,) = find_past_peak(build_run(), steps[:70]), find_past_peak(build_run(), steps)
    assert (early.id, early.detected_step) == (late.id, late.detected_step)
    assert not find_past_peak(build_run(), [replace(one, segment=one.step // 15) for one in steps])
