from pathlib import Path

from klaudit.audit.page import render_page
from klaudit.audit.rules import RULES

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"


def test_the_page_of_rules_is_what_the_rules_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_page()


def test_every_rule_stands_on_the_page_with_its_parameters() -> None:
    page = render_page()
    assert [rule.code for rule in RULES if f"## {rule.code} {rule.name}" not in page] == []
    assert [name for rule in RULES for name in rule.parameters_model.model_fields if f"| `{name}` |" not in page] == []
