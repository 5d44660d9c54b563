"""Which rules are on, with which numbers: a policy, its digest, and the TOML file that a person writes."""

import hashlib
import reprlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from klaudit.audit.rule import Rule, RuleParameters
from klaudit.audit.rules import RULES
from klaudit.errors import InvalidConfig
from klaudit.records import Severity


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """What a policy says of one rule."""

    parameters: RuleParameters
    enabled: bool = True
    severity: Severity | None = None
    """What each of its findings gets instead of the rule's own judgement; None: the rule's own."""


def _default_rules() -> Mapping[str, RuleSettings]:
    return {rule.code: RuleSettings(parameters=rule.parameters_model()) for rule in RULES}


@dataclass(frozen=True, slots=True)
class Policy:
    """Which rules are on, with which numbers."""

    name: str = "default"
    version: str = "1"
    rules: Mapping[str, RuleSettings] = field(default_factory=_default_rules)
    """By code; a rule that is not in it is off."""

    @property
    def digest(self) -> str:
        """`sha256:` over the canonical JSON (RFC 8785) of everything that decides, defaults and rule versions included."""
        rules = {rule.code: _describe_settings(self.rules[rule.code], version=rule.version) for rule in RULES if rule.code in self.rules}
        canonical = rfc8785.dumps({"name": self.name, "version": self.version, "rules": rules})
        return f"sha256:{hashlib.sha256(canonical).hexdigest()}"


PRESETS: Mapping[str, Policy] = {"default": Policy()}
"""Policies that need no file."""


def _describe_settings(settings: RuleSettings, *, version: int) -> dict[str, Any]:
    return {
        "version": version,
        "enabled": settings.enabled,
        "severity": None if settings.severity is None else settings.severity.value,
        "parameters": settings.parameters.model_dump(),
    }


class _PolicyFile(BaseModel):
    """A policy as a person writes it; `rules` is checked rule by rule."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    name: str = Field(min_length=1)
    version: str = Field(default="1", min_length=1)
    rules: dict[str, dict[str, Any]] = Field(default_factory=dict)


class _RuleSwitch(BaseModel):
    """What a file may say of every rule, beside the rule's own parameters."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = True
    severity: Severity | None = None


Model = TypeVar("Model", bound=BaseModel)


def read_policy(path: Path) -> Policy:
    """Read a policy file (TOML).

    Example of one: `name = "lab"`, then a table `[rules.KLA201]` with `enabled`, `severity` and the rule's parameters, such as
    `warning_z = 4.0`. What a file leaves out has the default.

    Raises:
        InvalidConfig: no such file, no TOML, an unknown key or a value out of range; one line that names file, key and what is known.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"{path}: expected a policy file; {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path}: expected TOML; {error}") from error
    parsed = _check(_PolicyFile, content, where=str(path))
    codes = [rule.code for rule in RULES]
    for code in parsed.rules:
        if code not in codes:
            raise InvalidConfig(f"{path}: unknown key 'rules.{code}'; known here: {', '.join(codes)}")
    settings = {rule.code: _read_settings(rule, parsed.rules.get(rule.code, {}), path=path) for rule in RULES}
    return Policy(name=parsed.name, version=parsed.version, rules=settings)


def _read_settings(rule: type[Rule[Any]], table: Mapping[str, Any], *, path: Path) -> RuleSettings:
    switches = set(_RuleSwitch.model_fields)
    where = f"{path}: rules.{rule.code}"
    switch = _check(_RuleSwitch, {key: value for key, value in table.items() if key in switches}, where=where)
    rest = {key: value for key, value in table.items() if key not in switches}
    parameters: RuleParameters = _check(rule.parameters_model, rest, where=where, also_known=switches)
    return RuleSettings(parameters=parameters, enabled=switch.enabled, severity=switch.severity)


def _check(model: type[Model], content: Mapping[str, Any], *, where: str, also_known: Iterable[str] = ()) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted({*model.model_fields, *also_known}))
            raise InvalidConfig(f"{where}: unknown key {key!r}; known here: {known}") from error
        raise InvalidConfig(f"{where}: key {key!r}: {first['msg']}; got {reprlib.repr(first['input'])}") from error


def find_policy(name_or_path: str) -> Policy:
    """A preset by its name, else the policy file at that path.

    Raises:
        InvalidConfig: as `read_policy`.
    """
    return PRESETS.get(name_or_path) or read_policy(Path(name_or_path))
