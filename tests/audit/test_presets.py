from typing import get_args

import pytest

from klaudit.audit import PRESETS, list_rules
from klaudit.audit.policy import PresetName
from klaudit.audit.presets import RESEARCH_OWN, RESEARCH_WARNING, STRICT_CRITICAL, STRICT_LIMITS, WANDB_ON
from klaudit.records import Severity

CODES = {rule.code for rule in list_rules()}


def test_every_preset_has_its_name_a_digest_of_its_own_and_says_for_whom_it_is() -> None:
    assert tuple(PRESETS) == get_args(PresetName)
    assert [(one.name, one.extends) for one in PRESETS.values()] == [(name, name) for name in PRESETS]
    assert len({one.digest for one in PRESETS.values()}) == len(PRESETS)
    assert all(one.description.startswith("For ") for one in PRESETS.values())


def test_every_preset_says_something_of_every_rule() -> None:
    assert all(set(one.rules) == CODES for one in PRESETS.values())


def test_the_default_has_every_rule_on_and_its_own_judge() -> None:
    assert {(one.enabled, one.severity) for one in PRESETS["default"].rules.values()} == {(True, None)}


def test_the_strict_preset_is_more_eager_and_takes_missing_telemetry_for_critical() -> None:
    strict = PRESETS["strict"]
    assert strict.detection.false_alarms_per_1000 == 3.0
    assert {code for code, one in strict.rules.items() if one.severity is Severity.CRITICAL} == CODES & set(STRICT_CRITICAL)
    assert {strict.rules["KLA301"].severity, strict.rules["KLA304"].severity} == {Severity.CRITICAL}


@pytest.mark.parametrize("code", STRICT_LIMITS)
def test_the_strict_preset_fires_earlier_than_the_default(code: str) -> None:
    strict, default = (PRESETS[name].rules[code].parameters.model_dump() for name in ("strict", "default"))
    changed = {name for name in strict if strict[name] != default[name]}
    assert changed == set(STRICT_LIMITS[code])
    # A share that is asked for grows, a limit that is not to be passed falls.
    assert all((strict[name] < default[name]) != (name == "least_share") for name in changed)


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_raises_what_a_rule_thinks_worth_knowing_only(name: str) -> None:
    may_inform = {rule.code for rule in list_rules() if Severity.INFO in rule.severities}
    raised = {code for code, one in PRESETS[name].rules.items() if one.severity not in (None, Severity.INFO)}
    assert raised & may_inform == set()


def test_the_research_preset_interrupts_for_little() -> None:
    research = PRESETS["research"]
    assert research.detection.false_alarms_per_1000 == 0.2
    assert (research.rules["KLA101"].severity, research.rules["KLA303"].severity) == (None, None)
    assert (research.rules["KLA201"].severity, research.rules["KLA201"].parameters.model_dump()["critical_kl"]) == (None, 1e12)
    assert research.rules["KLA203"].severity is Severity.WARNING
    assert research.rules["KLA403"].severity is Severity.INFO


@pytest.mark.parametrize("name", ["wandb-z-score", "wandb-change"])
def test_the_presets_of_wandb_leave_on_what_wandb_can_see(name: str) -> None:
    assert {code for code, one in PRESETS[name].rules.items() if one.enabled} == {"KLA201"}
    assert PRESETS[name].detection.detector == name.removeprefix("wandb-").replace("-", "_").replace("change", "window_change")


def test_every_code_that_a_preset_names_is_a_rule() -> None:
    assert {*RESEARCH_OWN, *RESEARCH_WARNING, *STRICT_CRITICAL, *STRICT_LIMITS, *WANDB_ON} - CODES == set()
