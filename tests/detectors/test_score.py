import math
from dataclasses import replace

import pytest

from klaudit.detectors.score import (
    Alarm,
    JudgedRun,
    Planted,
    count_charges,
    count_healthy_steps,
    find_hits,
    find_poisson_interval,
    join_flags,
    list_false_alarms,
    measure_false_alarms,
    score_runs,
    select_alarms,
)
from klaudit.records import Finding, Severity

SPIKE = Planted("spike", onset=100, codes=frozenset({"KLA202"}), horizon=20)
STEPS = range(1, 201)


def judge(*alarms: Alarm, planted: Planted | None = SPIKE) -> JudgedRun:
    return JudgedRun(STEPS, alarms, planted)


# scipy.stats.chi2.ppf(0.025, 2 n) / 2 and chi2.ppf(0.975, 2 n + 2) / 2, scipy 1.17.1
GARWOOD = {
    0: (0.0, 3.6888794541139354),
    1: (0.025317807984289876, 5.571643390938898),
    4: (1.0898653736263249, 10.241588675403694),
    13: (6.921952491003801, 22.230395918158873),
    100: (81.36399125092314, 121.62679382742638),
    3000: (2893.5986209846633, 3109.313530471967),
}


@pytest.mark.parametrize("n", GARWOOD)
def test_the_poisson_interval_is_that_of_garwood(n: int) -> None:
    assert find_poisson_interval(n) == pytest.approx(GARWOOD[n], rel=1e-9)


def test_a_wider_confidence_gives_a_wider_interval() -> None:
    low, high = find_poisson_interval(13)
    lower, higher = find_poisson_interval(13, confidence=0.99)
    assert lower < low < 13 < high < higher


@pytest.mark.parametrize(("detected", "found"), [(99, False), (100, True), (120, True), (121, False)])
def test_an_alarm_finds_what_was_planted_from_the_onset_to_the_horizon(detected: int, found: bool) -> None:
    assert bool(find_hits(judge(Alarm(detected, 200)))) is found


def test_an_alarm_that_was_on_before_the_onset_finds_nothing() -> None:
    score = score_runs([judge(Alarm(90, 130, "KLA202"))])
    assert score.recalls[0].n_found == 0
    assert score.false_alarms.n_alarms == 1


def test_the_delay_is_that_of_the_first_alarm_whatever_its_code() -> None:
    score = score_runs([judge(Alarm(110, 110, "KLA202"), Alarm(103, 103, "KLA504"))])
    recall = score.recalls[0]
    assert (recall.median_delay, recall.share, recall.named_share) == (3, 1.0, 1.0)


def test_an_alarm_of_another_rule_finds_but_does_not_name() -> None:
    recall = score_runs([judge(Alarm(101, 101, "KLA504")), judge()]).recalls[0]
    assert (recall.n_planted, recall.n_found, recall.n_named) == (2, 1, 0)


def test_what_nobody_found_has_no_delay_and_no_name() -> None:
    recall = score_runs([judge()]).recalls[0]
    assert recall.share == 0
    assert math.isnan(recall.median_delay)
    assert math.isnan(recall.named_share)


@pytest.mark.parametrize(("last", "charges"), [(10, 1), (24, 1), (25, 2), (40, 3)])
def test_an_alarm_that_stays_on_is_charged_again_every_fifteen_steps(last: int, charges: int) -> None:
    assert count_charges([Alarm(10, last)]) == charges


def test_an_alarm_that_is_always_on_costs_a_fifteenth_of_its_steps() -> None:
    rate = measure_false_alarms([JudgedRun(range(1500), [Alarm(0, 1499)])])
    assert (rate.n_alarms, rate.n_steps) == (100, 1500)


def test_only_steps_before_the_onset_are_healthy() -> None:
    run = judge(Alarm(50, 60), Alarm(98, 140), Alarm(150, 150))
    assert count_healthy_steps(run) == 99
    assert list_false_alarms(run) == (Alarm(50, 60), Alarm(98, 99))


def test_every_step_of_a_healthy_run_counts() -> None:
    rate = measure_false_alarms([judge(Alarm(5, 5), planted=None), judge(planted=None), judge(Alarm(7, 7))])
    assert (rate.n_alarms, rate.n_steps) == (2, 200 + 200 + 99)
    low, high = rate.interval
    assert rate.value == pytest.approx(1000 * 2 / 499)
    assert low < rate.value < high


def test_without_a_healthy_step_no_rate_is_known() -> None:
    rate = measure_false_alarms([])
    assert math.isnan(rate.value)
    assert rate.interval == (0.0, math.inf)


def test_kinds_weigh_the_same_however_often_they_were_planted() -> None:
    level = replace(SPIKE, kind="level")
    score = score_runs([judge(Alarm(100, 100)), *(judge(planted=level) for _ in range(3))])
    assert [recall.kind for recall in score.recalls] == ["spike", "level"]
    assert score.average_recall() == 0.5
    assert score.average_recall(["level"]) == 0
    assert math.isnan(score.average_recall(["drop"]))


def test_flags_within_fifteen_steps_are_one_alarm() -> None:
    assert join_flags([1, 2, 15, 16, 40]) == (Alarm(1, 15), Alarm(16, 16), Alarm(40, 40))


def test_flags_from_the_onset_on_are_an_alarm_of_their_own() -> None:
    assert join_flags([95, 100, 101], restart_at=100) == (Alarm(95, 95), Alarm(100, 101))


def test_only_findings_at_warning_or_above_are_alarms() -> None:
    finding = Finding(
        id="1",
        run_id="r",
        code="KLA202",
        rule="kl_spike",
        rule_version=1,
        severity=Severity.WARNING,
        first_step=3,
        detected_step=4,
        last_step=6,
        message="m",
        remedy="r",
    )
    others = [replace(finding, severity=severity) for severity in (Severity.INFO, Severity.CRITICAL)]
    assert select_alarms([finding, *others]) == (Alarm(4, 6, "KLA202"), Alarm(4, 6, "KLA202"))
    assert select_alarms([finding, *others], at_least=Severity.CRITICAL) == (Alarm(4, 6, "KLA202"),)
