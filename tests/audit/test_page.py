from pathlib import Path

import pytest

from klaudit.audit.page import main, render_page
from klaudit.audit.rules import RULES

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"


def test_the_page_of_rules_is_what_the_rules_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_page()


def test_every_rule_stands_on_the_page_with_its_parameters() -> None:
    page = render_page()
    assert [rule.code for rule in RULES if f"## {rule.code} {rule.name}" not in page] == []
    assert [name for rule in RULES for name in rule.parameters_model.model_fields if f"| `{name}` |" not in page] == []


def test_a_stale_page_fails_the_check_and_is_mended_by_writing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rules.md"
    path.write_text("old", encoding="utf-8")
    assert main([str(path), "--check"]) == 1
    assert "run: python -m klaudit.audit.page" in capsys.readouterr().err
    assert main([str(path)]) == 0
    assert main([str(path), "--check"]) == 0
