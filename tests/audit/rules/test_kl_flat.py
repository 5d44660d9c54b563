from collections.abc import Callable

import pytest

from klaudit.audit import audit_run
from klaudit.records import Finding, KLSeries, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]


def find_flat(run: Run, steps: list[StepRecord]) -> list[Finding]:
    return [finding for finding in audit_run(run, steps).findings if finding.code == "KLA302"]


def test_five_steps_at_zero_after_the_first_are_a_finding_dated_back(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_flat(build_run(), [build_step(step, 0.0) for step in range(1, 9)])
    assert (finding.first_step, finding.detected_step, finding.last_step) == (2, 6, 8)
    assert (finding.severity, finding.evidence["kind"], finding.value) == ("warning", "zero", 7)


def test_a_kl_within_rounding_of_zero_counts_as_zero(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [build_step(step, 1e-13 if step % 2 else -3e-14) for step in range(2, 8)]
    assert len(find_flat(build_run(), steps)) == 1


def test_four_zeros_and_then_growth_are_a_lawful_start(build_run: BuildRun, build_step: BuildStep) -> None:
    assert not find_flat(build_run(), [build_step(step, max(0.0, 0.01 * (step - 5))) for step in range(1, 20)])


def test_zeros_at_learning_rate_zero_are_a_lawful_warm_up(build_run: BuildRun, build_step: BuildStep) -> None:
    assert not find_flat(build_run(), [build_step(step, 0.0, metrics={"learning_rate": 0.0}) for step in range(1, 20)])


def test_a_value_that_repeats_to_the_last_digit_is_frozen(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_flat(build_run(), [build_step(step, 0.3 + 0.01 * min(step, 5)) for step in range(1, 20)])
    assert (finding.first_step, finding.detected_step, finding.evidence["kind"]) == (5, 14, "frozen")


def test_an_episode_ends_with_the_first_other_value(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_flat(build_run(), [build_step(step, 0.0 if step < 10 else 0.01 * step) for step in range(2, 14)])
    assert (finding.status, finding.last_step) == ("ended", 9)


def test_a_nan_neither_breaks_nor_lengthens_a_flat_stretch(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [build_step(step, float("nan") if step == 4 else 0.0) for step in range(2, 8)]
    (finding,) = find_flat(build_run(), steps)
    assert finding.detected_step == 7


def test_a_run_without_a_governing_series_is_watched_by_its_own_kl(build_run: BuildRun, build_step: BuildStep) -> None:
    unknown = KLSeries()
    (finding,) = find_flat(build_run(series={"kl": unknown}), [build_step(step, 0.0, series=unknown) for step in range(2, 8)])
    assert (finding.series, "unknown unit" in finding.message) == ("kl", True)


@pytest.mark.parametrize("kl", [None, float("nan")])
def test_a_run_without_a_finite_reading_is_not_judged(build_run: BuildRun, build_step: BuildStep, kl: float | None) -> None:
    result = audit_run(build_run(), [build_step(step, kl) for step in range(2, 8)])
    assert "no finite reading of the series 'kl'" in [silent.why for silent in result.coverage.rules_not_run if silent.code == "KLA302"]
