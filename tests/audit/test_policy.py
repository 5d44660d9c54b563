import hashlib
from dataclasses import replace
from typing import Any

import rfc8785

from klaudit.audit import PRESETS, Policy, list_rules
from klaudit.records import Severity

DEFAULT = PRESETS["default"]


def test_the_digest_is_sha256_of_canonical_json_with_all_defaults_in_it() -> None:
    rules = {
        rule.code: {
            "version": rule.version,
            "enabled": True,
            "severity": None,
            "parameters": DEFAULT.rules[rule.code].parameters.model_dump(mode="json"),
        }
        for rule in list_rules()
    }
    decides: Any = {"name": "default", "version": "1", "detection": DEFAULT.detection.model_dump(mode="json"), "rules": rules}
    assert DEFAULT.digest == "sha256:" + hashlib.sha256(rfc8785.dumps(decides)).hexdigest()


def test_the_digest_changes_with_every_setting_that_decides() -> None:
    settings = DEFAULT.rules["KLA201"]
    stricter = settings.parameters.model_copy(update={"critical_kl": 3.0})
    others = [
        Policy(name="lab"),
        Policy(version="2"),
        Policy(detection=DEFAULT.detection.model_copy(update={"false_alarms_per_1000": 2.0})),
        Policy(rules={**DEFAULT.rules, "KLA201": replace(settings, enabled=False)}),
        Policy(rules={**DEFAULT.rules, "KLA201": replace(settings, severity=Severity.INFO)}),
        Policy(rules={**DEFAULT.rules, "KLA201": replace(settings, parameters=stricter)}),
    ]
    assert len({DEFAULT.digest, *(other.digest for other in others)}) == 7


def test_the_digest_does_not_change_with_what_decides_nothing() -> None:
    off = replace(DEFAULT.rules["KLA201"], enabled=False)
    idle = replace(off, severity=Severity.INFO, parameters=off.parameters.model_copy(update={"critical_kl": 1.0}))
    rules = {**DEFAULT.rules, "KLA201": off}
    without = {code: one for code, one in rules.items() if code != "KLA201"}
    same = [
        Policy(rules=rules),
        Policy(rules={**rules, "KLA201": idle}),
        Policy(rules=without),
        Policy(rules=rules, description="for the lab", extends="strict"),
    ]
    assert len({one.digest for one in same}) == 1


def test_a_rule_that_is_not_in_a_policy_is_off() -> None:
    assert [Policy(rules={}).is_on("KLA201"), DEFAULT.is_on("KLA201"), DEFAULT.is_on("KLA999")] == [False, True, False]
