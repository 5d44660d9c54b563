"""`docs/rules.md`, written from the rules: `python -m klaudit.audit.page docs/rules.md`, with `--check` to compare only."""

import sys
from collections.abc import Iterator
from pathlib import Path

from klaudit.audit.description import RuleDescription, list_rules

PARAMETERS = "Parameters and where the defaults come from"

HEAD = """# Rules

Written from the rules' own docstrings by `python -m klaudit.audit.page docs/rules.md`; do not edit by hand.
A policy file switches a rule on or off, overrides its severity and sets its parameters:

```toml
name = "lab"

[rules.KLA201]
severity = "warning"
warning_z = 4.0
```

A rule that could not run says so under `coverage.rules_not_run` of the audit.
"""


def render_page() -> str:
    """The page, as Markdown."""
    rules = list_rules()
    table = ["| code | rule | severities | what |", "|---|---|---|---|"]
    table += [
        f"| [{rule.code}](#{rule.code.lower()}-{rule.name}) | {rule.name} | {', '.join(rule.severities)} | {rule.summary} |"
        for rule in rules
    ]
    return "\n".join([HEAD, *table, *(line for rule in rules for line in _render_rule(rule))]) + "\n"


def _render_rule(rule: RuleDescription) -> Iterator[str]:
    yield f"\n## {rule.code} {rule.name}\n\n{rule.summary} Version {rule.version}; {' or '.join(rule.severities)}."
    for title, text in rule.sections.items():
        yield f"\n### {title}\n\n{text}"
        if title == PARAMETERS:
            yield "\n| parameter | default | meaning |\n|---|---|---|"
            yield from (f"| `{one.name}` | {one.default} | {one.text} |" for one in rule.parameters)


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` say whether it is up to date; gives the exit code."""
    path = Path(next((one for one in arguments if not one.startswith("-")), "docs/rules.md"))
    if "--check" not in arguments:
        path.write_text(render_page(), encoding="utf-8")
        return 0
    if path.exists() and path.read_text(encoding="utf-8") == render_page():
        return 0
    sys.stderr.write(f"{path} is not what the rules say; run: python -m klaudit.audit.page {path}\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
