import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from klaudit.audit import Audit, audit_run
from klaudit.records import DriftMeasurement, Finding, KLBudget, KLSeries, ReferenceModel, Run, StepRecord
from klaudit.report.views.fact import list_facts

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]

PER_STEP = KLBudget(1.0, "nats_per_sequence")
K1 = KLSeries(estimator="k1", unit="nats_per_sequence")
PER_TOKEN = KLSeries(estimator="full", unit="nats_per_token")
UNKNOWN_UNIT = KLSeries(estimator="full")


def audit(run: Run, steps: Sequence[StepRecord], *budgets: KLBudget) -> Audit:
    return audit_run(run, steps, budgets=budgets)


def find_breaches(result: Audit) -> list[Finding]:
    return [finding for finding in result.findings if finding.code == "KLA101"]


def explain_silence(result: Audit) -> list[str]:
    return [silent.why for silent in result.coverage.rules_not_run if silent.code == "KLA101"]


def test_a_value_over_the_limit_is_a_warning_while_its_lower_bound_is_not(build_run: BuildRun, build_step: BuildStep) -> None:
    # 1.1 - 1.645 * 0.1 = 0.94
    (finding,) = find_breaches(audit(build_run(), [build_step(1, 1.1, se=0.1)], PER_STEP))
    assert (finding.severity, finding.value, finding.threshold, finding.unit) == ("warning", 1.1, 1.0, "nats_per_sequence")
    assert "noise could explain it" in finding.message


def test_a_lower_bound_over_the_limit_is_critical(build_run: BuildRun, build_step: BuildStep) -> None:
    # 1.2 - 1.645 * 0.1 = 1.04
    (finding,) = find_breaches(audit(build_run(), [build_step(1, 1.2, se=0.1)], PER_STEP))
    assert finding.severity == "critical"
    assert "1.04" in finding.message


def test_a_value_at_the_limit_is_within_it(build_run: BuildRun, build_step: BuildStep) -> None:
    assert not find_breaches(audit(build_run(), [build_step(1, 1.0, se=0.0)], PER_STEP))


def test_without_a_standard_error_there_is_no_critical_and_the_message_says_so(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_breaches(audit(build_run(), [build_step(1, 50.0)], PER_STEP))
    assert finding.severity == "warning"
    assert "standard error is unknown, so this cannot become critical" in finding.message


@pytest.mark.parametrize(("n_sequences", "severity"), [(4, "warning"), (64, "critical")])
def test_k1_gets_the_standard_error_that_its_variance_implies(
    build_run: BuildRun, build_step: BuildStep, n_sequences: int, severity: str
) -> None:
    # sqrt(2 * 2 / 4) = 1: 2 - 1.645 = 0.36; sqrt(2 * 2 / 64) = 0.25: 2 - 0.41 = 1.59; the batch size is the run's
    run = build_run(series={"kl": K1}, batch_size=n_sequences)
    (finding,) = find_breaches(audit(run, [build_step(1, 2.0, series=K1)], PER_STEP))
    assert finding.severity == severity


def test_one_episode_is_one_finding_that_grows_and_ends(build_run: BuildRun, build_step: BuildStep) -> None:
    values = [0.5, 1.1, 1.6, 1.4, 0.9, 0.9, 0.9]
    (finding,) = find_breaches(audit(build_run(), [build_step(step, kl, se=0.1) for step, kl in enumerate(values)], PER_STEP))
    assert (finding.first_step, finding.detected_step, finding.last_step) == (1, 1, 3)
    assert (finding.severity, finding.value, finding.status) == ("critical", 1.6, "ended")


def test_a_series_that_hovers_around_its_limit_is_one_finding(build_run: BuildRun, build_step: BuildStep) -> None:
    values = [1.1, 0.9] * 10
    (finding,) = find_breaches(audit(build_run(), [build_step(step, kl, se=0.1) for step, kl in enumerate(values)], PER_STEP))
    assert (finding.last_step, finding.status) == (18, "open")


def test_a_window_is_judged_by_its_ewma_with_the_error_carried_along(build_run: BuildRun, build_step: BuildStep) -> None:
    # a = 2 / 4: 0, then 1.25, then 1.875; SE 0.4 sqrt: 0.4, 0.2 sqrt 2 = 0.283, sqrt(0.02 + 0.04) = 0.245: 1.875 - 0.403 = 1.472
    steps = [build_step(step, kl, se=0.4) for step, kl in enumerate([0.0, 2.5, 2.5])]
    window = KLBudget(1.4, "nats_per_sequence", scope="window", window_steps=3)
    (finding,) = find_breaches(audit(build_run(), steps, window))
    assert finding.value == pytest.approx(1.875)
    assert finding.evidence["lower_bound"] == pytest.approx(1.875 - 1.6449 * 0.06**0.5, abs=1e-4)
    assert finding.severity == "critical"


def test_one_high_step_does_not_break_a_window(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [build_step(step, 5.0 if step == 10 else 0.2, se=0.01) for step in range(20)]
    assert not find_breaches(audit(build_run(), steps, KLBudget(1.0, "nats_per_sequence", scope="window", window_steps=19)))


def test_a_path_is_the_sum_of_the_update_kl_over_all_segments(build_run: BuildRun, build_step: BuildStep) -> None:
    path = KLBudget(0.5, "nats_per_token", scope="path")
    steps = [build_step(step, 0.1, update=0.1, se=0.001) for step in (1, 2, 3, 4)]
    steps += [build_step(step, 0.1, update=0.1, se=0.001, segment=1) for step in (3, 4)]
    (finding,) = find_breaches(audit(build_run(), steps, path))
    assert (finding.segment, finding.detected_step, finding.series) == (1, 4, "kl_update")
    assert finding.value == pytest.approx(0.6)
    # six standard errors of 0.001 in squares: 0.00245
    assert finding.evidence["lower_bound"] == pytest.approx(0.6 - 1.6449 * 0.001 * 6**0.5, abs=1e-6)


def test_a_path_that_stays_spent_is_a_finding_of_each_segment(build_run: BuildRun, build_step: BuildStep) -> None:
    path = KLBudget(0.15, "nats_per_token", scope="path")
    steps = [build_step(step, 0.1, update=0.1) for step in (1, 2)] + [build_step(2, 0.1, update=0.1, segment=1)]
    findings = sorted(find_breaches(audit(build_run(), steps, path)), key=lambda one: one.segment)
    assert [(one.segment, one.detected_step, one.status) for one in findings] == [(0, 2, "ended"), (1, 2, "open")]


def test_windows_start_again_with_a_segment(build_run: BuildRun, build_step: BuildStep) -> None:
    window = KLBudget(1.0, "nats_per_sequence", scope="window", window_steps=50)
    steps = [build_step(step, 0.1, se=0.01) for step in range(50)] + [build_step(50, 1.5, se=0.01, segment=1)]
    (finding,) = find_breaches(audit(build_run(), steps, window))
    assert (finding.value, finding.segment) == (1.5, 1)


def test_a_reading_in_the_other_unit_is_converted_by_its_length(build_run: BuildRun, build_step: BuildStep) -> None:
    run = build_run(series={"kl": PER_TOKEN})
    (finding,) = find_breaches(audit(run, [build_step(1, 0.1, se=0.001, series=PER_TOKEN, mean_length=20.0)], PER_STEP))
    assert finding.value == pytest.approx(2.0)
    assert finding.severity == "critical"


def test_the_response_length_that_a_step_logged_serves_too(build_run: BuildRun, build_step: BuildStep) -> None:
    step = build_step(1, 0.1, series=PER_TOKEN, metrics={"response_length": 20.0})
    (finding,) = find_breaches(audit(build_run(series={"kl": PER_TOKEN}), [step], PER_STEP))
    assert finding.value == pytest.approx(2.0)


def test_a_unit_that_cannot_be_converted_is_never_compared_and_the_coverage_says_so(build_run: BuildRun, build_step: BuildStep) -> None:
    result = audit(build_run(series={"kl": PER_TOKEN}), [build_step(1, 99.0, series=PER_TOKEN)], PER_STEP)
    assert not find_breaches(result)
    (why,) = explain_silence(result)
    assert "cannot turn nats/token into nats/sequence without a mean response length" in why


def test_an_unknown_unit_is_never_compared_and_the_coverage_says_so(build_run: BuildRun, build_step: BuildStep) -> None:
    result = audit(build_run(series={"kl": UNKNOWN_UNIT}), [build_step(1, 99.0, series=UNKNOWN_UNIT)], PER_STEP)
    assert not find_breaches(result)
    assert explain_silence(result) == ["budget 1 nats/sequence, per step: no reference KL of known estimator and unit"]


def test_without_a_budget_the_rule_says_that_none_is_set(build_run: BuildRun, build_step: BuildStep) -> None:
    assert explain_silence(audit(build_run(), [build_step(1, 99.0)])) == ["no budget is set"]


def test_a_budget_of_another_run_is_not_compared(build_run: BuildRun, build_step: BuildStep) -> None:
    result = audit(build_run(), [build_step(1, 99.0)], replace(PER_STEP, match="prod-*"), replace(PER_STEP, run_id="other"))
    assert explain_silence(result) == ["no budget is set"]


def test_two_budgets_are_two_findings_with_ids_of_their_own(build_run: BuildRun, build_step: BuildStep) -> None:
    findings = find_breaches(audit(build_run(), [build_step(1, 9.0, se=0.1)], PER_STEP, KLBudget(2.0, "nats_per_sequence")))
    assert len({finding.id for finding in findings}) == 2


def measure(
    step: int, value: float, *, half_width: float, hour: int = 0, name: str | None = None, n_tokens: float = 20.0
) -> DriftMeasurement:
    return DriftMeasurement(
        checkpoint=name or f"checkpoint-{step}",
        reference=ReferenceModel("base"),
        series=KLSeries(estimator="full", unit="nats_per_sequence"),
        value=value,
        low=value - half_width,
        high=value + half_width,
        n_sequences=64,
        mean_length=n_tokens,
        measured_at=datetime(2026, 11, 22, hour, tzinfo=UTC),
        run_id="r1",
        step=step,
    )


CHECKPOINT = KLBudget(1.0, "nats_per_sequence", scope="checkpoint")


def find_checkpoint_breaches(run: Run, *measurements: DriftMeasurement, budget: KLBudget = CHECKPOINT) -> list[Finding]:
    return list(audit_run(run, [], budgets=[budget], drift_measurements=measurements).findings)


@pytest.mark.parametrize(("half_width", "severity"), [(0.1, "critical"), (0.5, "warning")])
def test_a_checkpoint_is_judged_by_its_interval(build_run: BuildRun, half_width: float, severity: str) -> None:
    (finding,) = find_checkpoint_breaches(build_run(), measure(20, 0.8, half_width=0.1), measure(40, 1.2, half_width=half_width))
    assert (finding.severity, finding.detected_step, finding.value) == (severity, 40, 1.2)
    assert "checkpoint-40" in finding.message


def test_of_a_checkpoint_the_message_names_its_prompts_and_its_interval(build_run: BuildRun) -> None:
    measured = replace(measure(40, 1.2, half_width=0.1), settings={"prompt_set": "letters", "n_prompts": 16})
    (sure,) = find_checkpoint_breaches(build_run(), measured)
    assert sure.message == (
        "The measured drift of checkpoint checkpoint-40 (full vocabulary, 64 completions of the 16 prompts 'letters') was 1.2 nats/sequence "
        "at step 40, over the limit of 1 nats/sequence, checkpoint; so is the lower end of its 95% interval over prompts, 1.1."
    )
    (unsure,) = find_checkpoint_breaches(build_run(), measure(40, 1.2, half_width=0.5))
    assert "(full vocabulary, 64 completions) was" in unsure.message
    assert unsure.message.endswith("the lower end of its 95% interval over prompts, 0.7, is not, so other prompts could explain it.")
    labels = [one.label for one in list_facts(sure)]
    assert "Lower end of the 95% interval over prompts" in labels
    assert not [label for label in labels if "one-sided" in label]


def test_checkpoints_over_the_limit_in_a_row_are_one_finding(build_run: BuildRun) -> None:
    measured = [measure(step, value, half_width=0.1) for step, value in ((20, 1.2), (40, 1.6), (60, 0.5), (80, 1.3))]
    first, second = find_checkpoint_breaches(build_run(), *measured)
    assert (first.first_step, first.last_step, first.status, first.value) == (20, 40, "ended", 1.6)
    assert (second.first_step, second.status) == (80, "open")


def test_of_two_measurements_of_a_checkpoint_the_later_counts(build_run: BuildRun) -> None:
    assert not find_checkpoint_breaches(build_run(), measure(20, 0.5, half_width=0.1, hour=2), measure(20, 5.0, half_width=0.1, hour=1))


def test_other_runs_slices_and_estimators_do_not_count(build_run: BuildRun) -> None:
    over = measure(20, 5.0, half_width=0.1)
    k1 = replace(over, series=KLSeries(estimator="k1", unit="nats_per_sequence"))
    assert not find_checkpoint_breaches(build_run(), replace(over, run_id="other"), replace(over, slice="trigger"), k1)


def test_a_checkpoint_budget_per_token_is_compared_by_length(build_run: BuildRun) -> None:
    budget = KLBudget(0.05, "nats_per_token", scope="checkpoint")
    (finding,) = find_checkpoint_breaches(build_run(), measure(20, 2.0, half_width=0.2), budget=budget)
    assert finding.value == pytest.approx(0.1)
    assert finding.evidence["lower_bound"] == pytest.approx(0.09)


def test_an_infinite_drift_is_over_every_limit_whatever_checkpoint_follows(build_run: BuildRun) -> None:
    # of an infinite mean nothing is known but its floor: the interval is [0, inf]
    broken = replace(measure(20, 1.0, half_width=0.5), value=math.inf, low=0.0, high=math.inf)
    for budget in (CHECKPOINT, KLBudget(0.05, "nats_per_token", scope="checkpoint")):
        result = audit_run(build_run(), [], budgets=[budget], drift_measurements=[broken, measure(40, 0.5, half_width=0.1)])
        (finding,) = find_breaches(result)
        assert (finding.severity, finding.value, finding.detected_step, finding.status) == ("critical", math.inf, 20, "ended")
        assert "no noise explains infinity" in finding.message
        assert result.verdict == "fail"
        assert explain_silence(result) == []


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_drift_that_no_limit_can_be_compared_with_stays_in_the_coverage(build_run: BuildRun, value: float) -> None:
    broken = [replace(measure(step, 1.0, half_width=0.5), value=value) for step in (20, 60)]
    result = audit_run(build_run(), [], budgets=[CHECKPOINT], drift_measurements=[*broken, measure(40, 0.5, half_width=0.1)])
    assert not find_breaches(result)
    (why,) = explain_silence(result)
    assert f"2 of 3 measured checkpoints were not compared: checkpoint-20: its drift is {value}; checkpoint-60" in why


def test_checkpoints_that_were_not_measured_are_no_judgement(build_run: BuildRun) -> None:
    result = audit_run(build_run(), [], budgets=[CHECKPOINT])
    (why,) = explain_silence(result)
    assert why.endswith("no measured drift of a checkpoint (full vocabulary, all prompts)")
