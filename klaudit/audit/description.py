"""What a rule says of itself: from its docstring and its parameters, for `klaudit rules` and the page of all rules."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from klaudit.audit.rule import Rule
from klaudit.audit.rules import RULES
from klaudit.errors import InvalidConfig
from klaudit.records import Severity

SECTIONS = (
    "What it checks",
    "Formula",
    "Why it matters",
    "Parameters and where the defaults come from",
    "What to do",
    "Example finding",
)
"""Every rule's docstring has these, in this order."""


@dataclass(frozen=True, slots=True)
class ParameterDescription:
    """One number of a rule that a policy may change."""

    name: str
    default: Any
    text: str
    """Unit and meaning."""


@dataclass(frozen=True, slots=True)
class RuleDescription:
    """What a rule says of itself."""

    code: str
    name: str
    version: int
    severities: tuple[Severity, ...]
    summary: str
    sections: Mapping[str, str]
    """Text by title of SECTIONS; one paragraph each."""
    parameters: tuple[ParameterDescription, ...]


def list_rules() -> tuple[RuleDescription, ...]:
    """Every rule, by code."""
    return tuple(describe_rule(rule) for rule in RULES)


def find_rule(code_or_name: str) -> RuleDescription:
    """One rule, by its code or name, upper or lower case.

    Raises:
        InvalidConfig: no rule of that code or name.
    """
    wanted = code_or_name.strip().lower()
    for rule in RULES:
        if wanted in {rule.code.lower(), rule.name}:
            return describe_rule(rule)
    known = ", ".join(f"{rule.code} {rule.name}" for rule in RULES)
    raise InvalidConfig(f"no rule {code_or_name!r}; known: {known}")


def describe_rule(rule: type[Rule[Any]]) -> RuleDescription:
    """Read a rule's docstring and parameters."""
    summary, *rest = re.split(rf"^({'|'.join(SECTIONS)}):\n", inspect.getdoc(rule) or "", flags=re.MULTILINE)
    texts = [" ".join(text.split()) for text in rest[1::2]]
    parameters = tuple(
        ParameterDescription(name=name, default=one.default, text=one.description or "")
        for name, one in rule.parameters_model.model_fields.items()
    )
    return RuleDescription(
        code=rule.code,
        name=rule.name,
        version=rule.version,
        severities=rule.severities,
        summary=" ".join(summary.split()),
        sections=dict(zip(rest[0::2], texts, strict=True)),
        parameters=parameters,
    )
