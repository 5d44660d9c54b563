import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from klaudit.audit import PRESETS, Policy, find_policy, list_rules, read_policy
from klaudit.errors import InvalidConfig


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_policy_file_sets_what_it_names_and_leaves_the_defaults(tmp_path: Path) -> None:
    text = 'name = "lab"\nversion = "3"\n[rules.KLA201]\nseverity = "info"\nwarning_z = 4\n[rules.KLA302]\nenabled = false\n'
    policy = read_policy(write(tmp_path, text))
    assert (policy.name, policy.version) == ("lab", "3")
    assert (policy.rules["KLA201"].severity, policy.rules["KLA302"].enabled) == ("info", False)
    changed = policy.rules["KLA201"].parameters.model_dump()
    assert changed == PRESETS["default"].rules["KLA201"].parameters.model_dump() | {"warning_z": 4.0}
    assert policy.rules["KLA101"] == PRESETS["default"].rules["KLA101"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('name = "a"\nrulez = 1', "unknown key 'rulez'; known here: name, rules, version"),
        ('name = "a"\n[rules.KLA999]', "unknown key 'rules.KLA999'; known here: KLA101, KLA201, KLA302, KLA303"),
        (
            'name = "a"\n[rules.KLA303]\nquiet = 1',
            "rules.KLA303: unknown key 'quiet'; known here: enabled, quiet_steps, severity",
        ),
        ('name = "a"\n[rules.KLA201]\nwarning_z = -1', "rules.KLA201: key 'warning_z': Input should be greater than 0; got -1"),
        ('name = "a"\n[rules.KLA201]\nwarning_z = nan', "rules.KLA201: key 'warning_z': Input should be a finite number; got nan"),
        ('name = "a"\n[rules.KLA201]\nwarning_z = "4"', "rules.KLA201: key 'warning_z': Input should be a valid number; got '4'"),
        ('name = "a"\n[rules.KLA201]\nseverity = "bad"', "rules.KLA201: key 'severity': Input should be 'info', 'warning' or 'critical'"),
        ('name = "a"\nrules = 4', "key 'rules': Input should be a valid dictionary; got 4"),
        ("version = 1", "key 'name': Field required"),
        ("name = ", "expected TOML"),
    ],
)
def test_a_bad_policy_file_is_refused_in_one_line_that_names_file_and_key(tmp_path: Path, text: str, complaint: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InvalidConfig) as caught:
        read_policy(path)
    assert str(caught.value).startswith(str(path))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_policy_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"expected a policy file; No such file"):
        read_policy(tmp_path / "none.toml")


def test_a_policy_is_found_by_preset_name_or_path(tmp_path: Path) -> None:
    assert find_policy("default") is PRESETS["default"]
    assert find_policy(str(write(tmp_path, 'name = "lab"'))).name == "lab"


def test_the_digest_is_sha256_of_canonical_json_with_all_defaults_in_it() -> None:
    rules = {
        rule.code: {
            "version": rule.version,
            "enabled": True,
            "severity": None,
            "parameters": {one.name: one.default for one in rule.parameters},
        }
        for rule in list_rules()
    }
    text = json.dumps({"name": "default", "version": "1", "rules": rules}, sort_keys=True, separators=(",", ":"))
    # RFC 8785 writes 1e-12 as JavaScript does, and 1.0 as 1
    canonical = text.replace("6.0", "6").replace(":1.0", ":1")
    assert PRESETS["default"].digest == "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def test_the_digest_changes_with_every_setting_and_not_with_spelling(tmp_path: Path) -> None:
    default = PRESETS["default"]
    spelled = read_policy(write(tmp_path, 'name = "default"\n[rules.KLA201]\nwarning_z = 3.5\n'))
    assert spelled.digest == default.digest
    settings = default.rules["KLA201"]
    stricter = settings.parameters.model_copy(update={"warning_z": 3.0})
    others = [
        Policy(name="lab"),
        Policy(version="2"),
        Policy(rules={**default.rules, "KLA201": replace(settings, enabled=False)}),
        Policy(rules={**default.rules, "KLA201": replace(settings, parameters=stricter)}),
    ]
    assert len({default.digest, *(other.digest for other in others)}) == 5
