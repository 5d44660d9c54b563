from pathlib import Path

import pytest

from klaudit.audit import PRESETS
from tests.cli.conftest import Command

SOFT = 'name = "soft"\n[rules.KLA101]\nenabled = false\n[rules.KLA303]\nseverity = "info"\n'


@pytest.fixture(autouse=True)
def soft_policy(store_file: Path) -> None:
    Path("soft.toml").write_text(SOFT)


def test_every_run_is_tried_under_both_policies(klaudit: Command) -> None:
    found = klaudit("backtest", "--policy", "soft.toml", "--json").json
    runs = {one["run"]["name"]: one for one in found["runs"]}
    assert set(runs) == {"quiet", "loud"}
    assert (found["policy"]["name"], found["against"]) == ("soft", PRESETS["default"].describe())
    loud = runs["loud"]
    assert (loud["collapse"]["kind"], loud["collapse"]["step"]) == ("over_budget", 3)
    assert [(one["code"], one["step"]) for one in loud["against"]["findings"]] == [("KLA101", 3), ("KLA303", 4)]
    assert (loud["policy"]["alarms"], loud["both"], loud["only_policy"], loud["only_against"]) == (0, 0, 0, 1)
    totals = found["totals"]
    assert (totals["against"]["alarms"], totals["policy"]["alarms"]) == (2, 0)
    assert totals["against"]["per_1000"]["value"] == pytest.approx(2000 / 7)


def test_runs_can_be_chosen_by_name_and_by_id_each_once(klaudit: Command) -> None:
    run_id = klaudit("runs", "show", "loud", "--json").json["run"]["id"]
    found = klaudit("backtest", "loud", run_id, "--policy", "strict", "--json").json
    assert [one["run"]["id"] for one in found["runs"]] == [run_id]
    outcome = klaudit("backtest", "laud", "--policy", "strict")
    assert (outcome.code, "Nearest names: loud" in outcome.line) == (2, True)


def test_the_table_says_what_would_have_been_told_and_when(klaudit: Command) -> None:
    lines = klaudit("backtest", "--policy", "default", "--against", "soft.toml").out.splitlines()
    assert lines[0].split() == ["run", "steps", "came", "to", "default", "first", "alarm", "soft", "first", "alarm", "both", "only", "first", "only", "second"]  # fmt: skip
    loud, quiet = sorted(lines[1:3])
    assert quiet.split() == ["quiet", "3", "ended", "at", "step", "3", "0", "-", "0", "-", "0", "0", "0"]
    assert "over its budget at step 3" in loud
    assert "step 3, at it" in loud
    assert "critical KLA101 budget_exceeded at 3, critical KLA303 non_finite at 4" in "\n".join(lines)
    assert "  default: 2 alarms in 7 steps, 286 per 1,000 steps (95% interval 34.6 to 1.03e+03); 0 of 1 collapse told of before" in lines
    assert lines[-1] == "  told by both within 20 steps: 0; by default alone: 1; by soft alone: 0"


def test_two_policies_of_one_name_are_told_apart_by_their_digests(klaudit: Command) -> None:
    Path("default.toml").write_text('name = "default"\n[rules.KLA303]\nenabled = false\n')
    digest = klaudit("policy", "check", "default.toml", "--json").json["policy"]["digest"]
    assert f"default ({digest[7:15]})" in klaudit("backtest", "--policy", "default.toml").out


@pytest.mark.parametrize(
    ("policy", "fail_on", "code"),
    [("default", None, 0), ("default", "critical", 1), ("soft.toml", "warning", 0), ("soft.toml", "info", 1)],
)
def test_a_back_test_fails_only_when_it_is_asked_to(klaudit: Command, policy: str, fail_on: str | None, code: int) -> None:
    assert klaudit("backtest", "--policy", policy, *([] if fail_on is None else ["--fail-on", fail_on])).code == code


def test_an_empty_store_has_nothing_to_try(klaudit: Command, store_file: Path) -> None:
    store_file.unlink()
    klaudit("db", "upgrade")
    outcome = klaudit("backtest", "--policy", "strict")
    assert (outcome.code, outcome.out) == (0, "no runs yet: klaudit demo, or klaudit import PATH\n")
    assert klaudit("backtest", "--policy", "strict", "--json").json["runs"] == []


def test_a_policy_must_be_named(klaudit: Command) -> None:
    outcome = klaudit("backtest")
    assert (outcome.code, "Missing option '--policy'" in outcome.line) == (2, True)
