import os
from dataclasses import replace
from pathlib import Path

import pytest

from klaudit.audit import PRESETS, Policy, describe_policy, find_policy, read_policy, restore_policy
from klaudit.audit.policy_file import LONGEST_LINE, MOST_BYTES
from klaudit.errors import InvalidConfig


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_policy_file_sets_what_it_names_and_leaves_the_defaults(tmp_path: Path) -> None:
    text = 'name = "lab"\nversion = "3"\n[rules.KLA201]\nseverity = "info"\ncritical_kl = 4\n[rules.KLA302]\nenabled = false\n'
    policy = read_policy(write(tmp_path, text))
    assert (policy.name, policy.version) == ("lab", "3")
    assert (policy.rules["KLA201"].severity, policy.rules["KLA302"].enabled) == ("info", False)
    changed = policy.rules["KLA201"].parameters.model_dump()
    assert changed == PRESETS["default"].rules["KLA201"].parameters.model_dump() | {"critical_kl": 4.0}
    assert policy.rules["KLA101"] == PRESETS["default"].rules["KLA101"]


def test_a_file_that_extends_a_preset_holds_only_what_differs(tmp_path: Path) -> None:
    policy = read_policy(write(tmp_path, 'name = "lab"\nextends = "strict"\n[rules.KLA201]\ncritical_kl = 4\n'))
    strict = PRESETS["strict"]
    assert policy.detection == strict.detection
    assert {code: one for code, one in policy.rules.items() if code != "KLA201"} == {
        code: one for code, one in strict.rules.items() if code != "KLA201"
    }


def test_spelling_does_not_change_the_digest(tmp_path: Path) -> None:
    spelled = read_policy(write(tmp_path, '\ufeff# as it is\nname = "default"\n[rules.KLA201]\ncritical_kl = 1.0\n'))
    assert spelled.digest == PRESETS["default"].digest


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"name = ", "expected TOML; Invalid value"),
        (b'name = "a\x00"', "expected TOML; Illegal character"),
        (b"\xff\xfen\x00a\x00", "expected TOML; 'utf-8' codec"),
        (b'name = "a"\nx = ' + b"[\n" * 5000, "expected TOML; its lists or tables are nested too deeply"),
        (b'name = "a"\nx = 1' + b"0" * 1900, "unknown key 'x'"),
        (b'name = "a"\n' + b"a." * LONGEST_LINE + b"b = 1", "there is a longer one"),
        (b"#" * (MOST_BYTES + 1), "expected a policy file of 100 kB at most; this one is larger"),
        (b'name = "a"\nname = "b"', "expected TOML; Cannot overwrite a value"),
        (b'name = "a"\nextends = "strickt"', "key 'extends': expected the name of a preset; did you mean 'strict'? known: default, "),
        (b'name = "a"\nextends = ["strict"]', "key 'extends': expected the name of a preset; known: default, "),
        (b"", "key 'name': Field required"),
    ],
)
def test_a_file_that_is_no_policy_is_refused_in_one_line(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidConfig) as caught:
        read_policy(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused = {
        tmp_path / "none.toml": "No such file",
        tmp_path: "it is a directory",
        tmp_path / "pipe": "a pipe or a device, which may never end",
        Path("/dev/zero"): "a pipe or a device, which may never end",
        Path("a\0b"): "null byte",
        Path("a" * 5000): "File name too long",
    }
    for path, complaint in refused.items():
        with pytest.raises(InvalidConfig, match=f"expected a policy file.*{complaint}"):
            read_policy(path)


def test_a_policy_is_found_by_preset_name_or_path(tmp_path: Path) -> None:
    assert find_policy("default") is PRESETS["default"]
    assert find_policy(str(write(tmp_path, 'name = "lab"'))).name == "lab"
    with pytest.raises(InvalidConfig, match="did you mean 'wandb-change'"):
        find_policy("wandb_change")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_kept_by_its_name_alone(name: str) -> None:
    described = describe_policy(PRESETS[name])
    assert described == {"name": name, "version": "1", "extends": name, "digest": PRESETS[name].digest}
    assert restore_policy(described).digest == PRESETS[name].digest


def test_a_policy_comes_back_from_what_is_kept_of_it(tmp_path: Path) -> None:
    text = 'name = "lab"\nextends = "research"\n[rules.KLA201]\nenabled = false\n[detection]\nfalse_alarms_per_1000 = 3\n'
    for policy in (read_policy(write(tmp_path, text)), Policy(name="silent", rules={})):
        assert restore_policy(describe_policy(policy)).digest == policy.digest


def test_what_another_klaudit_kept_is_read_as_far_as_it_is_known() -> None:
    default = PRESETS["default"]
    kept = {"name": "lab", "extends": "none", "rules": {"KLA999": {"x": 1}, "KLA302": {"enabled": False, "gone": 2}}, "detection": {"y": 3}}
    assert restore_policy(kept).rules == {**default.rules, "KLA302": replace(default.rules["KLA302"], enabled=False)}
    for spoiled in ({}, {"name": 4.5, "rules": {"KLA201": 7}}, {"name": "a", "rules": 3}, {"name": "a", "detection": {"z_window": "x"}}):
        assert restore_policy(spoiled) is default
