"""KLA405 beyond its cases: scopes, segments, what is measured of checkpoints, live and afterwards."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from klaudit.audit import AuditEngine, audit_run
from klaudit.records import DriftMeasurement, Finding, KLBudget, KLSeries, LimitChange, ReferenceModel, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
OLD = KLBudget(2.0, "nats_per_sequence", id="old")


def at_minute(minute: float) -> datetime:
    return NOW + timedelta(minutes=minute)


@pytest.fixture
def build_steps(build_step: BuildStep) -> Callable[..., list[StepRecord]]:
    """One step a minute."""

    def build(kls: Sequence[float], **fields: float) -> list[StepRecord]:
        return [replace(build_step(step, kl, **fields), logged_at=at_minute(step)) for step, kl in enumerate(kls)]

    return build


def find(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.code == "KLA405"]


def test_each_change_is_one_finding_at_the_first_step_after_it_and_live_says_the_same(
    build_run: BuildRun, build_steps: Callable[..., list[StepRecord]]
) -> None:
    changes = [LimitChange(at_minute(5.5), OLD, by="Ada"), LimitChange(at_minute(8.5), replace(OLD, limit=3.0, id="newer"), by="Ada")]
    steps = build_steps([1.0, 1.0, 2.5, 2.5, 1.0, 1.0, 1.0, 4.0, 4.0, 4.0], se=0.01)
    afterwards = audit_run(build_run(), steps, limit_changes=changes)
    assert [(one.first_step, one.detected_step, one.severity) for one in find(afterwards.findings)] == [
        (2, 6, "critical"),
        (7, 9, "critical"),
    ]
    live = AuditEngine(build_run())
    live.observe_limit_changes(changes)
    told = [finding for step in steps for finding in live.observe(step)]
    assert find(told) == find(afterwards.findings)


def test_a_path_that_was_spent_over_segments_is_held_against_its_old_limit(build_run: BuildRun, build_step: BuildStep) -> None:
    path = KLBudget(1.0, "nats_per_token", scope="path", id="path")
    steps = [replace(build_step(step, 0.1, update=0.2, segment=step // 4), logged_at=at_minute(step)) for step in range(8)]
    (finding,) = find(audit_run(build_run(), steps, limit_changes=[LimitChange(at_minute(6.5), path)]).findings)
    assert (finding.first_step, finding.detected_step, finding.segment, finding.series) == (5, 7, 1, "kl_update")


def test_a_checkpoint_budget_is_held_against_what_was_measured_before_the_change(build_run: BuildRun, build_step: BuildStep) -> None:
    series = KLSeries(estimator="full", unit="nats_per_sequence")
    measured = DriftMeasurement(
        checkpoint="c", reference=ReferenceModel("m"), series=series, value=3.0, low=2.5, high=3.5, n_sequences=32, mean_length=20.0,
        measured_at=at_minute(5), run_id="r1", step=4,
    )  # fmt: skip
    budget = KLBudget(2.0, "nats_per_sequence", scope="checkpoint", id="gate")
    steps = [build_step(step, 0.1) for step in range(6)]

    def audit(minute: float) -> list[Finding]:
        changes = [LimitChange(at_minute(minute), budget)]
        return find(audit_run(build_run(), steps, drift_measurements=[measured], limit_changes=changes).findings)

    assert [(one.severity, one.first_step, one.detected_step, one.series) for one in audit(9)] == [("critical", 4, 5, "drift")]
    assert audit(1) == []


def test_a_limit_that_could_not_be_compared_is_named_in_the_coverage(
    build_run: BuildRun, build_steps: Callable[..., list[StepRecord]]
) -> None:
    other = KLBudget(2.0, "nats_per_token", id="other")
    audit = audit_run(build_run(), build_steps([3.0] * 3), limit_changes=[LimitChange(at_minute(1.5), other)])
    assert not find(audit.findings)
    assert any("without a mean response length" in one.why for one in audit.coverage.rules_not_run if one.code == "KLA405")
