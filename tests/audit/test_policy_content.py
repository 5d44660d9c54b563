import json
import tomllib
from typing import Any

import pytest

from klaudit.audit import PRESETS, Policy, list_rules
from klaudit.audit.policy_content import derive_policy, describe_schema, find_differences, list_settings, suggest
from klaudit.audit.rules import RULES
from klaudit.errors import InvalidConfig
from klaudit.records import Severity

DEFAULT, STRICT = PRESETS["default"], PRESETS["strict"]


def derive(text: str, *, base: Policy = DEFAULT) -> Policy:
    return derive_policy(base, tomllib.loads(text), where="lab.toml")


def test_what_a_content_leaves_out_is_as_in_its_base() -> None:
    policy = derive('name = "lab"\n[rules.KLA201]\ncritical_kl = 4\n[detection]\nz_window = 40\n', base=STRICT)
    expected = {one.key: one.value for one in list_settings(STRICT, default=DEFAULT)}
    expected |= {"rules.KLA201.critical_kl": 4.0, "detection.z_window": 40}
    assert {one.key: one.value for one in list_settings(policy, default=DEFAULT)} == expected


def test_a_severity_of_its_own_undoes_that_of_the_base() -> None:
    assert STRICT.rules["KLA301"].severity is Severity.CRITICAL
    policy = derive('name = "lab"\n[rules.KLA301]\nseverity = "own"\n', base=STRICT)
    assert policy.rules["KLA301"].severity is None


def test_differences_make_the_policy_of_its_base_again() -> None:
    policy = derive(
        'name = "lab"\nversion = "3"\n[rules.KLA201]\ncritical_kl = 4\nenabled = false\n[detection]\nz_limit = 2.5\n', base=STRICT
    )
    differences = find_differences(policy, base=STRICT)
    assert differences == {
        "name": "lab",
        "version": "3",
        "extends": "strict",
        "detection": {"z_limit": 2.5},
        "rules": {"KLA201": {"critical_kl": 4.0, "enabled": False}},
    }
    assert derive_policy(STRICT, json.loads(json.dumps(differences)), where="").digest == policy.digest
    assert set(find_differences(STRICT, base=STRICT)) == {"name", "version", "extends"}


def test_only_what_the_default_has_otherwise_is_marked() -> None:
    policy = derive('name = "lab"\n[rules.KLA302]\nenabled = false\n')
    assert [one for one in list_settings(policy, default=DEFAULT) if not one.is_default] == [
        one for one in list_settings(policy, default=DEFAULT) if one.key == "rules.KLA302.enabled"
    ]


def test_every_rule_and_every_parameter_is_in_the_schema_with_type_default_and_meaning() -> None:
    schema = describe_schema()
    tables = schema["$defs"]
    assert set(tables["Rules"]["properties"]) == {rule.code for rule in list_rules()}
    for rule in list_rules():
        properties = tables[rule.code]["properties"]
        assert set(properties) == {"enabled", "severity", *(one.name for one in rule.parameters)}
        assert all(one["description"] and "default" in one for one in properties.values())
        assert tables[rule.code]["additionalProperties"] is False
    assert set(tables["DetectionParameters"]["properties"]) == set(DEFAULT.detection.model_dump())
    assert (schema["required"], schema["additionalProperties"]) == (["name"], False)
    assert schema["properties"]["extends"]["enum"] == list(PRESETS)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    json.dumps(schema, allow_nan=False)


def find_defaults(schema: dict[str, Any], code: str) -> dict[str, Any]:
    return {name: one["default"] for name, one in schema["$defs"][code]["properties"].items()}


def test_the_defaults_of_the_schema_are_those_of_the_default_policy() -> None:
    schema = describe_schema()
    usual = {one.key: one.value for one in list_settings(DEFAULT, default=DEFAULT)}
    stated = {f"rules.{rule.code}.{name}": value for rule in RULES for name, value in find_defaults(schema, rule.code).items()}
    stated |= {f"detection.{name}": value for name, value in find_defaults(schema, "DetectionParameters").items()}
    assert stated == usual


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            'name = "a"\nrulez = 1',
            "unknown key 'rulez'; did you mean 'rules'? known here: description, detection, extends, name, rules, version",
        ),
        ('name = "a"\n[rules.KLA999]', "rules: unknown key 'KLA999'; known here: KLA101, "),
        ('name = "a"\n[rules.kla201]', "rules: unknown key 'kla201'; did you mean 'KLA201'? known here"),
        ('name = "a"\n[rules.kl_jump]', "rules: unknown key 'kl_jump'; did you mean 'KLA201'? known here"),
        ('name = "a"\n[rules.KLA303]\nquite_steps = 1', "rules.KLA303: unknown key 'quite_steps'; did you mean 'quiet_steps'? known here"),
        ('name = "a"\n[detection]\nzwindow = 1', "detection: unknown key 'zwindow'; did you mean 'z_window'? known here"),
        (
            'name = "a"\n[rules.KLA201]\ncritical_kl = -1',
            "rules.KLA201: key 'critical_kl': Input should be greater than or equal to 0; got -1",
        ),
        ('name = "a"\n[rules.KLA201]\ncritical_kl = nan', "rules.KLA201: key 'critical_kl': Input should be a finite number; got nan"),
        ('name = "a"\n[rules.KLA201]\ncritical_kl = "4"', "rules.KLA201: key 'critical_kl': Input should be a valid number; got '4'"),
        (
            'name = "a"\n[rules.KLA201]\ncritical_kl = 2026-11-22',
            "key 'critical_kl': Input should be a valid number; got datetime.date(2026, 11, 22)",
        ),
        (
            'name = "a"\n[rules.KLA608]\nleast_d = 1e200',
            "rules.KLA608: key 'least_d': Input should be less than or equal to 1000000; got 1e+200",
        ),
        ('name = "a"\n[rules.KLA201]\nquiet_steps = 1e400', "rules.KLA201: key 'quiet_steps': Input should be a valid integer; got inf"),
        ('name = "a"\n[rules.KLA201]\nenabled = 1', "rules.KLA201: key 'enabled': Input should be a valid boolean; got 1"),
        (
            'name = "a"\n[rules.KLA201]\nseverity = "bad"',
            "key 'severity': Input should be 'own', 'info', 'warning' or 'critical'; got 'bad'",
        ),
        ('name = "a"\n[rules]\nKLA201 = [1, 2]', "rules: key 'KLA201': Input should be a table; got [1, 2]"),
        ('name = "a"\nrules = 4', "key 'rules': Input should be a table; got 4"),
        ('name = "a"\ndetection = "z"', "key 'detection': Input should be a table; got 'z'"),
        ('name = ""', "key 'name': String should have at least 1 character; got ''"),
        ("version = 1", "key 'name': Field required"),
    ],
)
def test_a_bad_content_is_refused_in_one_line_that_names_place_and_key(text: str, complaint: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        derive(text)
    assert str(caught.value).startswith("lab.toml: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["0x" + "f" * 400, "-1" + "0" * 300])
def test_a_huge_whole_number_is_a_value_like_any_other(value: str) -> None:
    with pytest.raises(InvalidConfig, match="quiet_steps") as caught:
        derive(f'name = "a"\n[rules.KLA201]\nquiet_steps = {value}')
    assert len(str(caught.value)) < 300


def test_what_is_near_to_nothing_gets_no_suggestion() -> None:
    assert suggest("beta", ["quiet_steps", "severity"]) == ""
