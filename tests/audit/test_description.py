import ast
from pathlib import Path

import pytest

import klaudit.audit.rules as rules_package
from klaudit.audit import find_rule, list_rules
from klaudit.audit.description import SECTIONS
from klaudit.audit.rules import RULES
from klaudit.errors import InvalidConfig

CODES = [rule.code for rule in RULES]


@pytest.mark.parametrize("code", CODES)
def test_a_rule_says_everything_that_a_person_on_call_needs(code: str) -> None:
    rule = find_rule(code)
    assert tuple(rule.sections) == SECTIONS
    assert rule.summary.endswith(".")
    assert [title for title, text in rule.sections.items() if len(text) < 20] == []
    assert [one.name for one in rule.parameters if not one.text] == []


@pytest.mark.parametrize("code", CODES)
def test_a_rule_explains_where_each_default_comes_from(code: str) -> None:
    rule = find_rule(code)
    text = rule.sections["Parameters and where the defaults come from"]
    assert [one.name for one in rule.parameters if one.name not in text] == []


def test_rules_stand_in_the_order_of_their_codes_and_no_code_is_used_twice() -> None:
    assert sorted(set(CODES)) == CODES


def test_every_file_of_rules_is_in_the_table_under_its_name() -> None:
    folder = Path(rules_package.__path__[0])
    assert sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__") == sorted(rule.name for rule in RULES)
    for path in folder.glob("[a-z]*.py"):
        assert (ast.get_docstring(ast.parse(path.read_text())) or "").startswith("KLA")


def test_a_rule_is_found_by_code_or_name_in_any_case() -> None:
    assert find_rule("kla201") == find_rule("KL_JUMP") == list_rules()[1]


def test_an_unknown_rule_is_refused_with_what_is_known() -> None:
    with pytest.raises(InvalidConfig, match="no rule 'KLA999'; known: KLA101 budget_exceeded"):
        find_rule("KLA999")
