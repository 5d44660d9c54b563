"""Which rules are on, with which numbers: a policy and its digest."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from klaudit.audit.detection import DetectionParameters
from klaudit.audit.rule import RuleParameters
from klaudit.audit.rules import RULES
from klaudit.ledger.canonical import canonicalize
from klaudit.records import Severity

PresetName = Literal["default", "strict", "research", "wandb-z-score", "wandb-change"]
PRESET_NAMES: tuple[PresetName, ...] = get_args(PresetName)


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
    detection: DetectionParameters = field(default_factory=DetectionParameters)
    """How changes of the governing KL are looked for."""
    extends: PresetName = "default"
    """The preset that it was made from, of a preset its own name; decides nothing."""
    description: str = ""
    """For whom it is; decides nothing."""

    @property
    def digest(self) -> str:
        """`sha256:` over the canonical JSON (RFC 8785) of everything that decides.

        That is name, version, how changes are detected, and of each rule its version and whether it is on; of one that is on, its severity and
        every parameter, defaults included.
        """
        rules = {rule.code: _describe_rule(self.rules.get(rule.code), version=rule.version) for rule in RULES}
        decides = {"name": self.name, "version": self.version, "detection": self.detection.model_dump(mode="json"), "rules": rules}
        return f"sha256:{hashlib.sha256(canonicalize(decides)).hexdigest()}"

    def describe(self) -> dict[str, str]:
        """Which policy it is, as JSON: name, version, digest."""
        return {"name": self.name, "version": self.version, "digest": self.digest}

    def is_on(self, code: str) -> bool:
        """Whether it has a rule looked at."""
        settings = self.rules.get(code)
        return settings is not None and settings.enabled


def _describe_rule(settings: RuleSettings | None, *, version: int) -> dict[str, Any]:
    if settings is None or not settings.enabled:
        return {"version": version, "enabled": False}
    return {
        "version": version,
        "enabled": True,
        "severity": None if settings.severity is None else settings.severity.value,
        "parameters": settings.parameters.model_dump(mode="json"),
    }
