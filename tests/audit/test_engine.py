import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klaudit.audit import PRESETS, AuditEngine, Policy, audit_run
from klaudit.audit.spacing import count_gaps
from klaudit.records import Finding, KLBudget, KLReading, KLSeries, Run, Severity, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]

FULL = KLSeries(estimator="full", unit="nats_per_sequence")
UPDATE = KLSeries(kind="update", estimator="k2", unit="nats_per_token")

BUDGETS = (
    KLBudget(0.5, "nats_per_sequence"),
    KLBudget(0.4, "nats_per_sequence", scope="window", window_steps=5),
    KLBudget(0.2, "nats_per_token", scope="path"),
)

KL = st.one_of(
    st.none(),
    st.sampled_from([0.0, 0.0, 0.3, math.nan, math.inf, -math.inf, -0.1, 1e308, 1e-308]),
    st.floats(0, 3),
    st.floats(allow_nan=True),
)
STEPS = st.lists(
    st.fixed_dictionaries(
        {
            "kl": KL,
            "se": st.one_of(st.none(), st.floats(min_value=0)),
            "update": st.one_of(st.none(), st.floats()),
            "mean_length": st.one_of(st.none(), st.floats(min_value=0)),
            "distance": st.integers(1, 3),
            "resumes": st.sampled_from([False] * 14 + [True]),
            "score": st.one_of(st.none(), st.floats()),
        }
    ),
    max_size=45,
)


def lay_out(drawn: list[dict[str, Any]], build_step: BuildStep) -> list[StepRecord]:
    """Drawn steps in order; a resume goes back by two steps."""
    steps: list[StepRecord] = []
    step, segment = 0, 0
    for fields in drawn:
        numbers = dict(fields)
        step += numbers.pop("distance")
        if numbers.pop("resumes"):
            segment, step = segment + 1, max(step - 2, 0)
        steps.append(build_step(step, numbers.pop("kl"), segment=segment, **numbers))
    return steps


@settings(max_examples=60, deadline=None)
@given(drawn=STEPS, cut=st.integers(0, 45))
def test_live_at_any_step_equals_the_audit_of_the_steps_so_far(
    build_run: BuildRun, build_step: BuildStep, drawn: list[dict[str, Any]], cut: int
) -> None:
    steps = lay_out(drawn, build_step)
    engine = AuditEngine(build_run(), budgets=BUDGETS)
    told: dict[str, Finding] = {}
    for record in steps[:cut]:
        told |= {finding.id: finding for finding in engine.observe(record)}
    afterwards = audit_run(build_run(), steps[:cut], budgets=BUDGETS)
    assert repr(engine.findings) == repr(afterwards.findings)
    assert repr(sorted(told.items())) == repr(sorted((finding.id, finding) for finding in afterwards.findings))
    assert engine.coverage == afterwards.coverage
    for record in steps[cut:]:
        engine.observe(record)
    assert repr(engine.conclude().to_dict()) == repr(audit_run(build_run(), steps, budgets=BUDGETS).to_dict())
    json.dumps(engine.conclude().to_dict(), allow_nan=False)


@settings(max_examples=40, deadline=None)
@given(drawn=STEPS, size=st.integers(1, 12))
def test_steps_in_blocks_of_any_size_are_judged_as_one_after_another(
    build_run: BuildRun, build_step: BuildStep, drawn: list[dict[str, Any]], size: int
) -> None:
    steps = lay_out(drawn, build_step)
    one_by_one, in_blocks = AuditEngine(build_run(), budgets=BUDGETS), AuditEngine(build_run(), budgets=BUDGETS)
    told: dict[str, Finding] = {}
    for record in steps:
        one_by_one.observe(record)
    for first in range(0, len(steps), size):
        told |= {finding.id: finding for finding in in_blocks.observe_all(steps[first : first + size])}
    assert repr(in_blocks.conclude().to_dict()) == repr(one_by_one.conclude().to_dict())
    assert repr(sorted(told.items())) == repr(sorted((finding.id, finding) for finding in one_by_one.findings))


@settings(max_examples=60, deadline=None)
@given(drawn=STEPS)
def test_what_a_step_made_of_a_finding_never_changes_its_identity(
    build_run: BuildRun, build_step: BuildStep, drawn: list[dict[str, Any]]
) -> None:
    engine = AuditEngine(build_run(), budgets=BUDGETS)
    told: dict[str, Finding] = {}
    for record in lay_out(drawn, build_step):
        for finding in engine.observe(record):
            before = told.get(finding.id, finding)
            assert (finding.detected_step, finding.segment, finding.code) == (before.detected_step, before.segment, before.code)
            assert finding.severity.rank >= before.severity.rank
            assert finding.first_step <= before.first_step
            told[finding.id] = finding


def test_findings_are_sorted_by_first_step_code_and_id(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [build_step(step, 0.6 + 0.01 * step, se=0.01, update=0.1, score=math.nan if step == 1 else None) for step in range(1, 8)]
    findings = audit_run(build_run(), steps, budgets=BUDGETS).findings
    assert len(findings) >= 4
    assert list(findings) == sorted(findings, key=lambda one: (one.first_step, one.code, one.id))


def test_a_new_segment_ends_what_was_open(build_run: BuildRun, build_step: BuildStep) -> None:
    engine = AuditEngine(build_run(), budgets=BUDGETS[:1])
    engine.observe(build_step(10, 0.9, se=0.01))
    ended, begun = engine.observe(build_step(9, 0.9, se=0.01, segment=1))
    assert (ended.status, ended.segment, begun.status, begun.segment, begun.detected_step) == ("ended", 0, "open", 1, 9)


def test_a_step_that_does_not_come_after_the_last_one_is_left_out(build_run: BuildRun, build_step: BuildStep) -> None:
    engine = AuditEngine(build_run(), budgets=BUDGETS[:1])
    engine.observe(build_step(10, 0.1))
    assert engine.observe(build_step(10, 9.0)) == ()
    assert engine.observe(build_step(4, 9.0)) == ()
    assert (engine.coverage.steps, engine.findings) == (1, ())


def test_live_and_stored_series_in_another_order_are_judged_alike(build_run: BuildRun, build_step: BuildStep) -> None:
    keys = ("z_full", "a_full", "z_update", "a_update")
    declared = {key: FULL if key.endswith("full") else UPDATE for key in keys}
    heights = {"z_full": 0.9, "a_full": 0.1, "z_update": 0.5, "a_update": 0.1}
    step = build_step(1, None, readings={key: KLReading(declared[key], heights[key], standard_error=0.01) for key in keys})
    live = AuditEngine(build_run(series=declared), budgets=BUDGETS)
    live.observe(step)
    afterwards = audit_run(build_run(series=dict(sorted(declared.items()))), [step], budgets=BUDGETS)
    assert live.conclude().to_dict() == afterwards.to_dict()
    assert (afterwards.governing_key, afterwards.findings) == ("a_full", ())


def test_a_step_out_of_order_is_left_out_live_and_afterwards_and_judged_once_it_is_sorted(
    build_run: BuildRun, build_step: BuildStep
) -> None:
    arrived = [build_step(5, 0.1, se=0.01), build_step(3, 9.0, se=0.01)]
    live = AuditEngine(build_run(), budgets=BUDGETS[:1])
    for record in arrived:
        live.observe(record)
    assert live.conclude() == audit_run(build_run(), arrived, budgets=BUDGETS[:1])
    assert live.findings == ()
    (finding,) = audit_run(build_run(), arrived[::-1], budgets=BUDGETS[:1]).findings
    assert finding.detected_step == 3


def test_a_policy_can_switch_a_rule_off_and_the_coverage_says_so(build_run: BuildRun, build_step: BuildStep) -> None:
    rules = dict(PRESETS["default"].rules)
    rules["KLA303"] = replace(rules["KLA303"], enabled=False)
    result = audit_run(build_run(), [build_step(1, math.nan)], policy=Policy(rules=rules))
    assert result.findings == ()
    assert ("KLA303", "switched off by the policy") in [(one.code, one.why) for one in result.coverage.rules_not_run]


def test_a_policy_can_override_a_severity(build_run: BuildRun, build_step: BuildStep) -> None:
    rules = dict(PRESETS["default"].rules)
    rules["KLA303"] = replace(rules["KLA303"], severity=Severity.INFO)
    result = audit_run(build_run(), [build_step(1, math.nan)], policy=Policy(rules=rules))
    assert ([finding.severity for finding in result.findings], result.verdict) == (["info"], "pass")


def test_coverage_counts_steps_measured_readings_gaps_and_broken_steps(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [build_step(1, 0.1), build_step(2, None), build_step(3, math.nan), build_step(7, 0.1, score=math.inf), build_step(8, 0.1)]
    coverage = audit_run(build_run(), steps).coverage
    assert (coverage.steps, coverage.kl_measured, coverage.gaps, coverage.non_finite) == (5, 3, 3, 2)


@pytest.mark.parametrize(
    ("intervals", "gaps"),
    [({}, 0), ({1: 50}, 0), ({10: 50}, 0), ({10: 50, 20: 1, 40: 1}, 4), ({1: 1, 5: 1}, 4), ({10: 50, 7: 1}, 0)],
)
def test_gaps_are_steps_missing_at_the_usual_interval(intervals: dict[int, int], gaps: int) -> None:
    assert count_gaps(Counter(intervals)) == gaps


def test_a_run_without_steps_passes_and_says_that_nothing_was_judged(build_run: BuildRun) -> None:
    result = audit_run(build_run(), [])
    assert (result.verdict, result.coverage.steps) == ("pass", 0)
    assert {silent.code for silent in result.coverage.rules_not_run} >= {"KLA101", "KLA201", "KLA302"}
