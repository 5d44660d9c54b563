import sys

import pytest

from klaudit.detectors.score import Alarm, JudgedRun, Planted, score_runs
from tests.bench.detection.__main__ import main, name_seeds
from tests.bench.detection.goals import list_missed_a, list_missed_c
from tests.bench.detection.judgement import KLAUDIT, Judgement
from tests.bench.detection.kinds import HEALTHY, KINDS
from tests.bench.detection.labelled_run import generate_run
from tests.bench.detection.tabulation import list_mistakes


def test_one_command_prints_a_row_for_klaudit_and_for_each_peer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["detection", "--track", "a", "--seeds", "0:3", "--kinds", "nan,spike", "--markdown"])
    assert main() in (0, 1)
    printed = capsys.readouterr().out
    assert "**Track A: 3 generated runs, seeds 0 to 2 (calibration)**" in printed
    for row in ("| klaudit |", "| W&B z(30) > 3 |", "| nan |", "| spike |"):
        assert row in printed


@pytest.mark.parametrize(
    ("seeds", "use"),
    [(range(5), "calibration"), (range(10_000, 10_005), "reporting"), (range(990, 1010), "neither calibration nor reporting")],
)
def test_the_table_says_what_its_seeds_are_for(seeds: range, use: str) -> None:
    assert name_seeds(seeds).endswith(f"({use})")


def judge(*alarms: Alarm, kind: str = "nan") -> JudgedRun:
    return JudgedRun(range(200), alarms, Planted(kind, 100, frozenset({"KLA303"})))


def test_goals_name_what_was_missed() -> None:
    assert list(list_missed_a(score_runs([judge(Alarm(100, 100, "KLA303"))]), KINDS)) == []
    assert [goal.split(";")[0] for goal in list_missed_a(score_runs([judge(Alarm(5, 5))]), KINDS)] == [
        "recall of nan 0.00",
        "10.00 false alarms per 1,000 healthy steps",
    ]
    assert list(list_missed_c(score_runs([judge(Alarm(100, 100, "KLA201"))]), {})) == ["nan: found 1 of 1, rightly named 0"]


def test_the_detail_lists_misses_wrong_names_and_false_alarms() -> None:
    run = generate_run(0, HEALTHY)
    runs = [judge(Alarm(3, 4, "KLA201")), judge(Alarm(101, 101, "KLA201")), judge(Alarm(101, 101, "KLA303"))]
    lines = list(list_mistakes([Judgement(run, {KLAUDIT: one}) for one in runs], KLAUDIT))
    assert [line.split()[0] for line in lines] == ["MISS", "FALSE", "NAME"]
    assert "seed=0" in lines[0]
    assert "KLA201@3..4" in lines[1]
