import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from klaudit.audit import PRESETS, Policy, audit_run
from klaudit.audit.backtest import Backtest, RunBacktest, Timeline, backtest_run, match_firings
from klaudit.records import KLBudget, Run, Segment, Severity, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]

BEGAN = datetime(2026, 11, 22, tzinfo=UTC)
SILENT = Policy(name="silent", rules={})
BUDGETS_ONLY = Policy(name="budgets", rules={"KLA101": PRESETS["default"].rules["KLA101"]})
NUMBERS_ONLY = Policy(name="numbers", rules={"KLA303": PRESETS["default"].rules["KLA303"]})
LIMIT = (KLBudget(0.5, "nats_per_sequence"),)


@pytest.fixture
def build_steps(build_step: BuildStep) -> Callable[[list[float]], list[StepRecord]]:
    """One step every 30 seconds from step 1 on, with a standard error that makes a breach of 0.2 sure."""
    return lambda kls: [
        build_step(step, kl, se=0.01, logged_at=BEGAN + timedelta(seconds=30 * step)) for step, kl in enumerate(kls, start=1)
    ]


BuildSteps = Callable[[list[float]], list[StepRecord]]


def test_an_alarm_is_timed_against_what_the_run_came_to(build_run: BuildRun, build_steps: BuildSteps) -> None:
    steps = build_steps([0.1] * 9 + [0.51] + [0.1] * 9 + [math.nan] + [0.1] * 10)
    found = backtest_run(build_run(), steps, policy=BUDGETS_ONLY, against=NUMBERS_ONLY, budgets=LIMIT)
    assert found.collapse is not None
    assert (found.collapse.kind, found.collapse.place.step) == ("non_finite", 20)
    (breach,), (broken,) = found.policy.firings, found.against.firings
    assert (breach.finding.code, breach.finding.severity, breach.place.step) == ("KLA101", "warning", 10)
    assert (breach.steps_before, breach.minutes_before) == (10, 5.0)
    assert (broken.steps_before, broken.minutes_before) == (0, 0.0)
    assert (found.policy.rate.n_alarms, found.policy.rate.n_steps) == (1, 30)


@pytest.mark.parametrize(
    ("kls", "status", "kind", "step"),
    [
        ([0.1] * 10, "finished", "end", 10),
        ([0.1] * 10, "failed", "failed", 10),
        ([0.1, 0.1, 9.0, 0.1], "failed", "over_budget", 3),
        ([0.1, math.inf, 9.0, 0.1], "finished", "non_finite", 2),
    ],
)
def test_a_run_comes_to_its_first_disaster_else_to_its_end(
    build_run: BuildRun, build_steps: BuildSteps, kls: list[float], status: str, kind: str, step: int
) -> None:
    found = backtest_run(build_run(status=status), build_steps(kls), policy=SILENT, against=SILENT, budgets=LIMIT)
    assert found.collapse is not None
    assert (found.collapse.kind, found.collapse.place.step) == (kind, step)
    assert found.moments == ()


def test_a_finding_is_told_of_when_it_becomes_grave_enough_and_not_when_it_begins(build_run: BuildRun, build_steps: BuildSteps) -> None:
    steps = build_steps([0.1, 0.501, 0.502, 9.0])
    for at_least, step in ((Severity.WARNING, 2), (Severity.CRITICAL, 4)):
        found = backtest_run(build_run(), steps, policy=BUDGETS_ONLY, against=SILENT, budgets=LIMIT, at_least=at_least)
        (firing,) = found.policy.firings
        assert (firing.finding.detected_step, firing.place.step) == (2, step)


def test_a_run_is_judged_as_its_audit_judges_it(build_run: BuildRun, build_steps: BuildSteps) -> None:
    steps = build_steps([0.1] * 20 + [9.0, 0.1, math.nan, 0.1])
    segments = [Segment("r1", 0, BEGAN, n_lost=3, lost_first_step=5, lost_last_step=7, lost_reason="full disk")]
    found = backtest_run(build_run(), steps, policy=PRESETS["strict"], against=PRESETS["default"], budgets=LIMIT, segments=segments)
    for trial in (found.policy, found.against):
        audit = audit_run(build_run(), steps, policy=trial.policy, budgets=LIMIT, segments=segments)
        told = {one.id for one in audit.findings if one.severity.rank >= 1}
        assert told == {one.finding.id for one in trial.firings}
        assert trial.verdict == audit.verdict


def test_a_run_without_steps_tells_nothing(build_run: BuildRun) -> None:
    found = backtest_run(build_run(), [], policy=PRESETS["strict"], against=SILENT)
    assert (found.collapse, found.policy.firings, found.moments, found.policy.n_steps) == (None, (), (), 0)


def test_alarms_near_to_each_other_are_one_moment(build_run: BuildRun, build_steps: BuildSteps) -> None:
    kls = [0.1] * 100
    for step, kl in {10: 0.6, 25: math.nan, 60: 0.6, 90: math.nan}.items():
        kls[step - 1] = kl
    found = backtest_run(build_run(), build_steps(kls), policy=BUDGETS_ONLY, against=NUMBERS_ONLY, budgets=LIMIT, within_steps=15)
    assert [(one.place.step, one.side) for one in found.moments] == [(10, "both"), (60, "only_policy"), (90, "only_against")]
    nearer = match_firings(found.policy.firings, found.against.firings, within_steps=14)
    assert [(one.place.step, one.side) for one in nearer][:2] == [(10, "only_policy"), (25, "only_against")]


def test_the_order_of_the_two_policies_only_changes_sides(build_run: BuildRun, build_steps: BuildSteps) -> None:
    steps = build_steps([0.1] * 9 + [0.6] + [0.1] * 30 + [math.nan] + [0.1] * 9)
    one = backtest_run(build_run(), steps, policy=BUDGETS_ONLY, against=NUMBERS_ONLY, budgets=LIMIT)
    other = backtest_run(build_run(), steps, policy=NUMBERS_ONLY, against=BUDGETS_ONLY, budgets=LIMIT)
    assert [(moment.policy, moment.against) for moment in one.moments] == [(moment.against, moment.policy) for moment in other.moments]


def test_steps_that_a_resume_took_back_count_as_trained(build_step: BuildStep) -> None:
    timeline = Timeline()
    for segment, step in ((0, 10), (0, 20), (0, 30), (2, 21), (2, 22)):
        assert timeline.add(build_step(step, 0.1, segment=segment, logged_at=BEGAN + timedelta(minutes=step)))
    assert not timeline.add(build_step(22, 0.1, segment=2))
    places = [timeline[index] for index in range(len(timeline))]
    assert [one.trained for one in places] == [1, 11, 21, 22, 23]
    assert places[-1].at == BEGAN + timedelta(minutes=22)
    asked = [(0, 5), (0, 20), (0, 25), (0, 99), (1, 3), (2, 5), (2, 22), (9, 1)]
    assert [(one.segment, one.step) for one in (timeline.find(*place) for place in asked)] == [
        (0, 10), (0, 20), (0, 20), (0, 30), (0, 30), (0, 30), (2, 22), (2, 22),
    ]  # fmt: skip


def collect(*runs: RunBacktest) -> Backtest:
    return Backtest(runs[0].policy.policy, runs[0].against.policy, runs, at_least=Severity.WARNING, within_steps=20)


def test_the_totals_are_over_all_runs(build_run: BuildRun, build_steps: BuildSteps) -> None:
    warned = backtest_run(
        build_run(status="failed"), build_steps([0.1] * 9 + [0.51] + [0.1] * 30), policy=BUDGETS_ONLY, against=NUMBERS_ONLY, budgets=LIMIT
    )
    unseen = backtest_run(build_run(status="failed"), build_steps([0.1] * 60), policy=BUDGETS_ONLY, against=NUMBERS_ONLY, budgets=LIMIT)
    calm = backtest_run(build_run(), build_steps([0.1] * 400), policy=BUDGETS_ONLY, against=NUMBERS_ONLY, budgets=LIMIT)
    found = collect(warned, unseen, calm)
    total = found.total("policy")
    assert (total.rate.value, total.n_collapsed, total.n_told_before, total.median_steps_before) == (2.0, 2, 1, 30)
    # exact Poisson limits of one event: 0.0253 and 5.572
    assert total.rate.interval == pytest.approx((0.0253 * 2, 5.572 * 2), rel=1e-2)
    silent = found.total("against")
    assert (silent.rate.n_alarms, silent.n_told_before, silent.median_steps_before) == (0, 0, None)
    assert [found.count(side) for side in ("both", "only_policy", "only_against")] == [0, 1, 0]
    assert (found.has_firings_at(Severity.WARNING), found.has_firings_at(Severity.CRITICAL)) == (True, False)


def test_a_back_test_is_json_even_of_nothing(build_run: BuildRun, build_steps: BuildSteps) -> None:
    steps = build_steps([0.1, 9.0, math.nan])
    some = backtest_run(build_run(), steps, policy=PRESETS["strict"], against=PRESETS["default"], budgets=LIMIT)
    nothing = backtest_run(build_run(), [], policy=PRESETS["strict"], against=PRESETS["default"])
    printed = json.loads(json.dumps(collect(some, nothing).to_dict(), allow_nan=False))
    assert [one["collapse"] and one["collapse"]["kind"] for one in printed["runs"]] == ["over_budget", None]
    assert printed["runs"][1]["policy"]["per_1000"] == {"value": "NaN", "low": 0.0, "high": "Infinity"}
    assert printed["runs"][0]["policy"]["findings"][0]["at"] == "2026-11-22T00:01:00.000000Z"
    assert printed["totals"]["both"] == sum(one["both"] for one in printed["runs"])


def test_a_policy_that_has_a_rule_off_changes_nothing_of_what_a_run_came_to(build_run: BuildRun, build_steps: BuildSteps) -> None:
    off = replace(PRESETS["default"].rules["KLA101"], enabled=False)
    policy = Policy(rules={**PRESETS["default"].rules, "KLA101": off})
    found = backtest_run(build_run(), build_steps([0.1, 9.0, 0.1]), policy=policy, against=policy, budgets=LIMIT)
    assert found.collapse is not None
    assert found.collapse.kind == "over_budget"
