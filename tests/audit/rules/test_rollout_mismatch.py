from collections.abc import Callable

import pytest

from klaudit.audit import audit_run
from klaudit.audit.mismatch import find_mismatch_series
from klaudit.records import Finding, KLReading, KLSeries, Run, Severity, StepRecord
from klaudit.records.series import Estimator

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]


def describe_mismatch(estimator: Estimator, *, per_sequence: bool = False) -> KLSeries:
    return KLSeries(kind="mismatch", estimator=estimator, unit="nats_per_sequence" if per_sequence else "nats_per_token")


def find_mismatch(run: Run, steps: list[StepRecord]) -> list[Finding]:
    return [finding for finding in audit_run(run, steps).findings if finding.code == "KLA701"]


def test_the_best_estimator_is_judged_and_an_unknown_one_never() -> None:
    series = {"a": describe_mismatch("unknown"), "b": describe_mismatch("k1"), "c": describe_mismatch("k3"), "kl": KLSeries()}
    assert find_mismatch_series(series) == "c"
    assert find_mismatch_series({"a": describe_mismatch("unknown")}) is None


@pytest.mark.parametrize(("mean_length", "n_findings"), [(100.0, 1), (1000.0, 0), (None, 0)])
def test_a_mismatch_per_sequence_is_judged_by_its_length(
    build_run: BuildRun, build_step: BuildStep, mean_length: float | None, n_findings: int
) -> None:
    series = describe_mismatch("k3", per_sequence=True)
    steps = [build_step(step, 0.1, readings={"kl_mismatch": KLReading(series, 0.5, mean_length=mean_length)}) for step in range(6)]
    assert len(find_mismatch(build_run(series={"kl_mismatch": series}), steps)) == n_findings


def test_steps_without_a_number_neither_add_to_a_persistence_nor_break_it(build_run: BuildRun, build_step: BuildStep) -> None:
    series = describe_mismatch("k3")
    values = [0.002, float("nan"), 0.002, None, 0.002]
    readings = [{} if value is None else {"kl_mismatch": KLReading(series, value)} for value in values]
    steps = [build_step(step, 0.1, readings=one) for step, one in enumerate(readings)]
    (finding,) = find_mismatch(build_run(series={"kl_mismatch": series}), steps)
    assert (finding.first_step, finding.detected_step, finding.severity) == (0, 4, Severity.WARNING)


def test_a_mismatch_that_gets_worse_becomes_critical_in_the_same_finding(build_run: BuildRun, build_step: BuildStep) -> None:
    series = describe_mismatch("k3")
    values = [0.002] * 6 + [0.05] * 6 + [0.0001] * 10
    steps = [build_step(step, 0.1, readings={"kl_mismatch": KLReading(series, value)}) for step, value in enumerate(values)]
    (finding,) = find_mismatch(build_run(series={"kl_mismatch": series}), steps)
    assert (finding.severity, finding.detected_step, finding.last_step, finding.status) == (Severity.CRITICAL, 2, 11, "ended")
    assert finding.threshold == pytest.approx(0.01)
    assert finding.evidence["window"]["values"][-1] == pytest.approx(0.05)


def test_a_weight_that_is_far_too_low_outweighs_one_number_that_is_just_out(build_run: BuildRun, build_step: BuildStep) -> None:
    metrics = {"sampling/importance_sampling_ratio/mean": 0.05, "sampling/sampling_logp_difference/mean": 0.06}
    (finding,) = find_mismatch(build_run(), [build_step(step, 0.1, metrics=metrics) for step in range(5)])
    assert finding.message.startswith("mean importance weight was 0.05 trainer over engine at step 2, below 0.5")
    assert finding.evidence["also"] == ["sampling/sampling_logp_difference/mean"]
