"""What the change rules are told of the governing series, from readings made by hand."""

import json
import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from klaudit.audit import PRESETS, audit_run
from klaudit.audit.change_watch import KEPT, NOMINAL_LENGTH, ChangeWatch, JumpOutcome, KLChange, KLWatch
from klaudit.audit.detection import DetectionParameters
from klaudit.detectors.change import Change
from klaudit.records import Finding, KLReading, KLSeries, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
Told = tuple[int, KLChange | None, JumpOutcome | None]

FULL = KLSeries(estimator="full", unit="nats_per_sequence")
PER_TOKEN = KLSeries(estimator="k3", unit="nats_per_token")
QUIET = [0.5 * (1 + 0.03 * math.sin(1.7 * step)) for step in range(30)]
"""Nats per sequence, within 3% of 0.5; a jump at step 30 is judged against it."""


def read(
    values: Iterable[float | None], *, series: KLSeries = FULL, se: float | None = None, length: float | None = None
) -> list[KLReading]:
    missing = KLReading.absent(series, "not logged")
    return [missing if one is None else KLReading(series, one, standard_error=se, mean_length=length) for one in values]


def watch(run: Run, readings: Iterable[KLReading | None], *, detection: DetectionParameters | None = None) -> list[Told]:
    changes = ChangeWatch(run, detection or DetectionParameters())
    return [(step, *changes.observe(reading, step=step)) for step, reading in enumerate(readings)]


def list_changes(told: Iterable[Told]) -> list[tuple[int, str]]:
    return [(step, change.change.kind) for step, change, _ in told if change is not None]


def list_outcomes(told: Iterable[Told]) -> list[JumpOutcome]:
    return [outcome for _, _, outcome in told if outcome is not None]


def test_a_jump_is_told_with_what_was_expected_and_the_readings_before_it(build_run: BuildRun) -> None:
    (step, change, outcome) = watch(build_run(), read([*QUIET, 1.5]))[-1]
    assert (step, outcome) == (30, None)
    assert change is not None
    assert (change.change.kind, change.change.direction, change.detector) == ("jump", 1, "klaudit")
    assert change.change.expected == pytest.approx(0.5, rel=0.05)
    assert change.sd == pytest.approx(0.015, rel=1.0)
    assert change.window == tuple(enumerate(QUIET))[-KEPT:]


@pytest.mark.parametrize(
    ("error", "is_outlier"),
    [(1.0, True), (0.7, True), (0.6, False), (0.15, False), (None, False), (math.nan, False)],
    ids=["one sequence", "two", "three", "all, its usual share", "none given", "not a number"],
)
def test_a_jump_within_its_own_standard_error_is_outlier_sequences(build_run: BuildRun, error: float | None, is_outlier: bool) -> None:
    (*_, (_, change, _)) = watch(build_run(batch_size=4), [*read(QUIET, se=0.05), *read([1.5], se=error)])
    assert change is not None
    assert change.is_outlier == is_outlier


def test_an_error_that_is_always_as_large_as_the_kl_excuses_no_jump(build_run: BuildRun) -> None:
    # Of k1, a batch's standard error is as large as its mean all the time.
    noisy = [0.5 * (1 + 0.03 * math.sin(1.7 * step)) for step in range(60)]
    told = watch(build_run(), [*read(noisy, se=0.5), *read([60.0], se=60.0)])
    changes = [change for _, change, _ in told if change is not None]
    assert [change.is_outlier for change in changes] == [False]


@pytest.mark.parametrize(("after", "n_readings", "last_off_step"), [([0.5], 1, 30), ([1.4, 0.9], 2, 31), ([1.4, 1.2, 0.6], 3, 32)])
def test_a_jump_of_which_half_is_gone_within_three_readings_was_a_spike(
    build_run: BuildRun, after: list[float], n_readings: int, last_off_step: int
) -> None:
    told = watch(build_run(), read([*QUIET, 1.5, *after, 0.5, 0.5, 0.5]))
    (outcome,) = list_outcomes(told)
    assert (outcome.kind, outcome.n_readings, outcome.step, outcome.last_off_step) == ("spike", n_readings, 30 + n_readings, last_off_step)
    assert outcome.value == after[-1]
    assert outcome.expected == pytest.approx(0.5, rel=0.05)


def test_a_jump_of_which_less_is_gone_is_a_level_shift_at_the_third_reading_and_not_before(build_run: BuildRun) -> None:
    told = watch(build_run(), read([*QUIET, 1.5, 1.4, 1.1, 1.2, 1.2, 0.5]))
    assert [outcome for _, _, outcome in told[:33]] == [None] * 33
    (outcome,) = list_outcomes(told)
    assert (outcome.kind, outcome.step, outcome.last_off_step, outcome.n_readings, outcome.value) == ("level shift", 33, 33, 3, 1.2)


def test_readings_are_counted_and_not_steps(build_run: BuildRun) -> None:
    changes = ChangeWatch(build_run(), DetectionParameters())
    told = [(10 * index, *changes.observe(reading, step=10 * index)) for index, reading in enumerate(read([*QUIET, 1.5, 1.4, 0.5]))]
    (outcome,) = list_outcomes(told)
    assert (outcome.kind, outcome.step, outcome.last_off_step, outcome.n_readings) == ("spike", 320, 310, 2)


def test_a_new_segment_forgets_level_window_and_jump(build_run: BuildRun) -> None:
    changes = ChangeWatch(build_run(), DetectionParameters())
    for step, reading in enumerate(read([*QUIET, 1.5])):
        changes.observe(reading, step=step)
    changes.begin_segment()
    after = [changes.observe(reading, step=step) for step, reading in enumerate(read([*QUIET, 1.5]), start=31)]
    assert after[:30] == [(None, None)] * 30
    (change, _) = after[30]
    assert change is not None
    assert change.window[0] == (41, QUIET[10])


@pytest.mark.parametrize("gap", [None, math.nan, math.inf, -math.inf])
def test_readings_without_a_finite_number_are_left_out(build_run: BuildRun, gap: float | None) -> None:
    whole, broken = [*QUIET, 1.5, 1.4, 0.5, 0.5], [*QUIET[:17], gap, *QUIET[17:], gap, 1.5, gap, 1.4, gap, 0.5, 0.5]
    told = watch(build_run(), read(broken))
    assert all((change, outcome) == (None, None) for (_, change, outcome), value in zip(told, broken, strict=True) if value == gap)
    assert list_changes(told) == [(32, "jump")]
    expected = list_outcomes(watch(build_run(), read(whole)))
    assert [(one.kind, one.n_readings, one.value) for one in list_outcomes(told)] == [
        (one.kind, one.n_readings, one.value) for one in expected
    ]


def test_a_series_that_is_not_there_tells_nothing(build_run: BuildRun) -> None:
    assert watch(build_run(), [None] * 40) == [(step, None, None) for step in range(40)]


def test_the_standard_error_of_the_batches_is_noise_that_a_reading_has_at_least(build_run: BuildRun) -> None:
    values = [*QUIET, 0.75]
    assert list_changes(watch(build_run(), read(values, se=0.015))) == [(30, "jump")]
    assert list_changes(watch(build_run(), read(values, se=0.12))) == []
    change = watch(build_run(), read([*QUIET, 3.0], se=0.12))[-1][1]
    assert change is not None
    # 0.8 of the error, widened by what 31 readings leave uncertain.
    assert 0.8 * 0.12 <= change.sd <= 1.2 * 0.8 * 0.12


def test_one_wild_standard_error_blinds_nobody(build_run: BuildRun) -> None:
    readings = [*read(QUIET, se=0.015), *read([1.5], se=5.0)]
    assert list_changes(watch(build_run(), readings)) == [(30, "jump")]


def test_the_rounding_of_a_log_is_noise_that_a_reading_has_at_least(build_run: BuildRun) -> None:
    fine = [0.00112 + 0.00003 * math.sin(1.7 * step) for step in range(40)] + [0.00391]
    run = build_run(series={"kl": PER_TOKEN})
    assert list_changes(watch(run, read(fine, series=PER_TOKEN))) == [(40, "jump")]
    assert list_changes(watch(run, read([round(one, 3) for one in fine], series=PER_TOKEN))) == []


@pytest.mark.parametrize("length", [None, 250.0])
def test_values_are_told_in_nats_per_sequence_too(build_run: BuildRun, length: float | None) -> None:
    values = [one / 100 for one in [*QUIET, 1.5]]
    change = watch(build_run(series={"kl": PER_TOKEN}), read(values, series=PER_TOKEN, length=length))[-1][1]
    assert change is not None
    factor = length or NOMINAL_LENGTH
    assert change.value_per_sequence == pytest.approx(0.015 * factor)
    assert change.expected_per_sequence == pytest.approx(change.change.expected * factor)


def test_the_state_of_a_watch_goes_through_json_and_the_watch_goes_on_as_if_nothing_had_been(build_run: BuildRun) -> None:
    rng = np.random.default_rng(4)
    values = [round(float(one), 3) for one in 0.5 * np.exp(0.1 * rng.standard_normal(120))]
    values[70] = values[100] = 2.5
    errors = [float(one) for one in 0.05 * np.exp(0.2 * rng.standard_normal(120))]

    def build() -> KLWatch:
        return KLWatch(run=build_run(), first=read(values[:1])[0], false_alarms_per_1000=1.0)

    def observe(watching: KLWatch, *, start: int, end: int) -> list[tuple[Change | None, float]]:
        told: list[tuple[Change | None, float]] = []
        for step in range(start, end):
            watching.take_error(errors[step])
            told.append((watching.observe(values[step], position=step), watching.sd))
        return told

    whole = observe(build(), start=0, end=120)
    assert any(change is not None for change, _ in whole[80:])
    first, second = build(), build()
    observe(first, start=0, end=80)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.state_dict() == first.state_dict()
    resumed = observe(second, start=80, end=120)
    assert [change and change.kind for change, _ in resumed] == [change and change.kind for change, _ in whole[80:]]
    # Running sums are taken anew from the values that are remembered.
    assert [sd for _, sd in resumed] == pytest.approx([sd for _, sd in whole[80:]], rel=1e-9)


def audit_by(preset: str, run: Run, values: Iterable[float], *, build_step: BuildStep) -> tuple[Finding, ...]:
    return audit_run(run, [build_step(step, value) for step, value in enumerate(values)], policy=PRESETS[preset]).findings


def test_the_z_score_of_wandb_is_told_as_a_jump_without_an_outcome(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = audit_by("wandb-z-score", build_run(), [*QUIET, 1.5, *QUIET[:10]], build_step=build_step)
    assert (finding.code, finding.rule, finding.severity, finding.unit) == ("KLA201", "kl_jump", "warning", "standard deviations")
    assert (finding.detected_step, finding.last_step, finding.threshold) == (30, 30, 3.0)
    expected, sd = np.mean(QUIET), np.std(QUIET, ddof=1)
    assert finding.value == pytest.approx((1.5 - expected) / sd)
    assert (
        f"was 1.5 nats/sequence at step 30, {finding.value:.1f} standard deviations above the mean of the readings before, 0.5"
        in finding.message
    )
    assert "outcome" not in finding.evidence


def test_the_z_score_of_wandb_alarms_downward_too_and_says_so(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = audit_by("wandb-z-score", build_run(), [*QUIET, 0.3, *QUIET[:10]], build_step=build_step)
    assert "standard deviations below the mean of the readings before" in finding.message


def test_a_series_that_had_stood_still_has_no_finite_score_and_still_a_message(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = audit_by("wandb-z-score", build_run(), [*[0.25] * 30, 0.5], build_step=build_step)
    assert finding.message.endswith("was 0.5 nats/sequence at step 30, after readings that had stood still at 0.25 nats/sequence.")


@pytest.mark.parametrize(("factor", "told"), [(1.6, "60% above"), (0.4, "60% below")])
def test_the_change_of_wandb_is_told_as_a_jump(build_run: BuildRun, build_step: BuildStep, factor: float, told: str) -> None:
    (finding,) = audit_by("wandb-change", build_run(), [0.5] * 50 + [0.5 * factor] * 10, build_step=build_step)
    assert (finding.code, finding.severity, finding.unit, finding.threshold) == ("KLA201", "warning", "of the mean before", 0.5)
    assert (finding.first_step, finding.detected_step) == (59, 59)
    assert f"the mean of the last readings was {told} that of those before, 0.5 nats/sequence, at step 59." in finding.message


def test_the_change_of_wandb_on_a_jump_that_stays_is_one_finding(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = audit_by("wandb-change", build_run(), [0.5] * 55 + [2.0] * 30, build_step=build_step)
    # Five of ten values at 2.0 raise their mean to 1.25 at once, and five steps later to 2.0.
    assert finding.value == pytest.approx(3.0)
    assert (finding.detected_step, finding.status) == (59, "open")
