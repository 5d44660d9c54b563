from collections.abc import Callable

import numpy as np
import pytest

from klaudit.audit import audit_run
from klaudit.audit.rules.kl_flat import KLFlat, KLFlatParameters
from klaudit.records import Finding, KLSeries, Run, StepRecord
from tests.audit.rules.rounded_series import N_STEPS, RUN, draw_series, judge

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]


def find_flat(run: Run, steps: list[StepRecord]) -> list[Finding]:
    return [finding for finding in audit_run(run, steps).findings if finding.code == "KLA302"]


def test_five_steps_at_zero_after_the_first_are_a_finding_dated_back(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_flat(build_run(), [build_step(step, 0.0) for step in range(1, 9)])
    assert (finding.first_step, finding.detected_step, finding.last_step) == (2, 6, 8)
    assert (finding.severity, finding.evidence["kind"], finding.value) == ("info", "zero", 7)


def test_twelve_steps_at_zero_are_a_warning(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_flat(build_run(), [build_step(step, 0.0) for step in range(1, 14)])
    assert (finding.severity, finding.detected_step, finding.value) == ("warning", 6, 12)


def test_a_kl_within_rounding_of_zero_counts_as_zero(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [build_step(step, 1e-13 if step % 2 else -3e-14) for step in range(2, 8)]
    assert len(find_flat(build_run(), steps)) == 1


def test_four_zeros_and_then_growth_are_a_lawful_start(build_run: BuildRun, build_step: BuildStep) -> None:
    assert not find_flat(build_run(), [build_step(step, max(0.0, 0.01 * (step - 5))) for step in range(1, 20)])


def test_zeros_at_learning_rate_zero_are_a_lawful_warm_up(build_run: BuildRun, build_step: BuildStep) -> None:
    assert not find_flat(build_run(), [build_step(step, 0.0, metrics={"learning_rate": 0.0}) for step in range(1, 20)])


def test_a_value_that_repeats_to_the_last_digit_is_frozen(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_flat(build_run(), [build_step(step, 0.3 + 0.01 * min(step, 5)) for step in range(1, 20)])
    assert (finding.first_step, finding.detected_step, finding.evidence["kind"]) == (5, 8, "frozen")


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


def find_rounded(values: list[float]) -> list[Finding]:
    return judge(KLFlat(RUN, parameters=KLFlatParameters()), values)


@pytest.mark.parametrize("decimals", [3, 4, 12])
def test_healthy_series_repeat_without_a_false_alarm(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    n_runs = 150
    found = [finding for _ in range(n_runs) for finding in find_rounded(draw_series(rng, decimals=decimals))]
    assert 1000 * len(found) / (n_runs * N_STEPS) < 0.02, [(one.detected_step, one.message) for one in found]


@pytest.mark.parametrize(("decimals", "within", "share"), [(3, 12, 0.85), (4, 6, 0.95), (12, 4, 1.0)])
def test_a_freeze_of_twelve_steps_is_found_in_time(decimals: int, within: int, share: float) -> None:
    """Where noise is no wider than the last decimal, twelve equal values are lawful: three decimals cannot give all."""
    rng = np.random.default_rng(40 + decimals)
    n_found = 0
    for _ in range(100):
        values = draw_series(rng, decimals=decimals)
        onset = int(rng.integers(60, 380))
        values[onset : onset + 12] = [values[onset]] * 12
        n_found += any(onset <= finding.detected_step < onset + within for finding in find_rounded(values))
    assert n_found / 100 >= share


def test_a_series_kept_in_bfloat16_repeats_lawfully() -> None:
    rng = np.random.default_rng(3)
    values = [float(value) for value in np.round(rng.normal(0.3, 0.0007, 2000) * 2**10) / 2**10]
    assert max(sum(1 for _ in stretch) for stretch in split_equal(values)) >= 6
    assert not find_rounded(values)


def split_equal(values: list[float]) -> list[list[float]]:
    stretches: list[list[float]] = [[]]
    for value in values:
        if stretches[-1] and stretches[-1][-1] != value:
            stretches.append([])
        stretches[-1].append(value)
    return stretches
