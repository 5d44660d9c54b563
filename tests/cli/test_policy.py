import json
from pathlib import Path

from klaudit.audit import PRESETS, list_rules
from klaudit.audit.policy_content import render_schema
from tests.cli.conftest import Command


def test_every_preset_is_listed_with_its_digest_and_for_whom_it_is(klaudit: Command) -> None:
    policies = klaudit("policy", "list", "--json").json["policies"]
    assert [(one["name"], one["digest"]) for one in policies] == [(name, one.digest) for name, one in PRESETS.items()]
    listed = " ".join(klaudit("policy", "list").out.split())
    assert all(one["name"] in listed and one["description"][:60] in listed for one in policies)


def test_a_preset_is_shown_with_every_setting_and_marks_where_it_differs(klaudit: Command) -> None:
    lines = klaudit("policy", "show", "strict").out.splitlines()
    assert lines[0] == f"policy strict, version 1, {PRESETS['strict'].digest}"
    (marked,) = [line for line in lines if "detection.false_alarms_per_1000" in line]
    assert marked.split() == ["*", "detection.false_alarms_per_1000", "3.0", "1.0"]
    (unmarked,) = [line for line in lines if "rules.KLA201.enabled" in line]
    assert unmarked.split() == ["rules.KLA201.enabled", "true", "true", "kl_jump"]
    shown = klaudit("policy", "show", "strict", "--json").json["policy"]
    assert set(shown["rules"]) == {rule.code for rule in list_rules()}
    assert {"key": "detection.false_alarms_per_1000", "value": 3.0, "default": 1.0} in shown["overrides"]
    assert klaudit("policy", "show", "default", "--json").json["policy"]["overrides"] == []


def test_a_file_is_shown_like_a_preset(klaudit: Command) -> None:
    Path("lab.toml").write_text('name = "lab"\nextends = "strict"\ndescription = "ours"\n[detection]\nz_limit = 2.5\n')
    shown = klaudit("policy", "show", "lab.toml", "--json").json["policy"]
    assert (shown["name"], shown["extends"], shown["description"], shown["detection"]["z_limit"]) == ("lab", "strict", "ours", 2.5)
    assert "ours" in klaudit("policy", "show", "lab.toml").out


def test_a_policy_is_checked_by_name_version_digest_and_what_it_overrides(klaudit: Command) -> None:
    Path("lab.toml").write_text('name = "lab"\nversion = "7"\n[rules.KLA201]\ncritical_kl = 4.0\n[rules.KLA302]\nenabled = false\n')
    Path("same.toml").write_text(
        'version = "7"\nname = "lab"\n\n[rules]\nKLA302.enabled = false\nKLA201 = {critical_kl = 4.0, quiet_steps = 8}\n'
    )
    policy = klaudit("policy", "check", "lab.toml", "--json").json["policy"]
    assert (policy["name"], policy["version"], policy["off"]) == ("lab", "7", ["KLA302"])
    assert policy["overrides"] == [
        {"key": "rules.KLA201.critical_kl", "value": 4.0, "default": 1.0},
        {"key": "rules.KLA302.enabled", "value": False, "default": True},
    ]
    assert klaudit("policy", "check", "lab.toml").out.splitlines() == [
        f"policy lab, version 7, {policy['digest']}",
        "  rules.KLA201.critical_kl is 4.0; default 1.0",
        "  rules.KLA302.enabled is false; default true",
        "  warning: 1 rule off: KLA302 kl_flat",
    ]
    # What a file leaves out has the default: both say the same.
    assert klaudit("policy", "check", "same.toml", "--json").json["policy"]["digest"] == policy["digest"]


def test_a_file_that_changes_nothing_is_said_to(klaudit: Command) -> None:
    Path("lab.toml").write_text('name = "lab"\n')
    assert klaudit("policy", "check", "lab.toml").out.endswith("\n  nothing differs from the preset default\n")


def test_the_schema_is_printed_as_it_is(klaudit: Command) -> None:
    outcome = klaudit("policy", "schema")
    assert (outcome.code, outcome.err, outcome.out) == (0, "", render_schema())
    assert json.loads(outcome.out)["title"] == "klaudit policy"


def test_a_name_that_is_near_to_a_preset_is_told(klaudit: Command) -> None:
    for command in (("policy", "show"), ("audit", "loud", "--policy"), ("report", "loud", "--policy"), ("backtest", "--policy")):
        outcome = klaudit(*command, "strickt")
        assert outcome.code == 2
        assert "did you mean 'strict'? known presets: default, strict, research, wandb-z-score, wandb-change" in outcome.line
