"""`docs/rules.md`, written from the rules."""

from collections.abc import Iterator

from klaudit.audit.description import RuleDescription, list_rules

PARAMETERS = "Parameters and where the defaults come from"

HEAD = """# Rules

Written from the rules' own docstrings by `python docs/build.py`; do not edit by hand.
A policy file switches a rule on or off, overrides its severity and sets its parameters:

```toml
name = "lab"

[rules.KLA201]
severity = "warning"
critical_kl = 2.0
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
