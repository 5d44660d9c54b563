"""Policies that need no file. Each is written as a file would be: what differs from `default`."""

from collections.abc import Mapping
from typing import Any

from klaudit.audit.policy import Policy, PresetName
from klaudit.audit.policy_content import derive_policy
from klaudit.audit.rules import RULES

DEFAULT = Policy(
    description=(
        "For whoever trains and wants to be told what matters. Every rule is on with the numbers of its page; changes of the KL give at most "
        "one false alarm in 1,000 steps. This is the policy of a run that nobody gave another."
    )
)
OFF = {"enabled": False}
CRITICAL = {"severity": "critical"}
WARNING = {"severity": "warning"}
INFO = {"severity": "info"}
NEVER_CRITICAL = {"critical_kl": 1e12}

STRICT = """
For whoever releases a model, or trains one that must not drift unseen. Missing telemetry is critical, and so are a budget that is exceeded by its
value alone, a beta or a limit that changes under way, a reward that is not what it is said to be, and a sampler that is not the trained model.
Lower KLs and smaller shares are enough for a finding. Changes of the KL are looked for more eagerly: expect up to 3 false alarms in
1,000 steps.
"""
RESEARCH = """
For whoever tries things out and wants to be left alone. Only what spoils a result interrupts: telemetry and configuration that cannot be right,
non-finite numbers, limits that a person set, and gross changes of the KL, at most 0.2 false alarms in 1,000 steps and never more than a warning.
Everything else is kept as information.
"""
WANDB = """
For comparing, in a back-test, with what W&B's automations can be told to do: {what}, on the KL that governs the run. All other rules are off,
because W&B has nothing in their place, and each alarm is told as KLA201 kl_jump. W&B itself would send one message a run and day at most.
"""


def _family(digit: int) -> tuple[str, ...]:
    return tuple(rule.code for rule in RULES if rule.code.startswith(f"KLA{digit}"))


def _name(codes: str) -> tuple[str, ...]:
    return tuple(f"KLA{number}" for number in codes.split())


STRICT_CRITICAL = _name("101 206 301 304 306 402 405 701")
STRICT_LIMITS: Mapping[str, Mapping[str, Any]] = {
    **{code: {"critical_kl": 0.5} for code in _name("201 202 203 204 205")},
    "KLA302": {"rounded_zero_steps": 10},
    "KLA308": {"least_share": 0.8},
    "KLA501": {"critical_kl": 0.05},
    "KLA503": {"warning_fraction": 0.2, "critical_fraction": 0.4},
}
RESEARCH_OWN = (*_family(1), *_name("301 302 303 304 305 306 401 404 405"))
RESEARCH_WARNING = _name("202 203 204 205 206")
WANDB_ON = _name("201")


def _derive(name: PresetName, description: str, *, detection: Mapping[str, Any], rules: Mapping[str, Mapping[str, Any]]) -> Policy:
    codes = {rule.code for rule in RULES}
    content = {
        "name": name,
        "extends": name,
        "description": " ".join(description.split()),
        "detection": dict(detection),
        "rules": {code: dict(table) for code, table in rules.items() if code in codes},
    }
    return derive_policy(DEFAULT, content, where=f"preset {name}")


def _derive_wandb(name: PresetName, what: str, detection: Mapping[str, Any]) -> Policy:
    rules = {rule.code: OFF for rule in RULES if rule.code not in WANDB_ON}
    return _derive(name, WANDB.format(what=what), detection=detection, rules=rules)


PRESETS: Mapping[str, Policy] = {
    "default": DEFAULT,
    "strict": _derive(
        "strict", STRICT, detection={"false_alarms_per_1000": 3.0}, rules={**dict.fromkeys(STRICT_CRITICAL, CRITICAL), **STRICT_LIMITS}
    ),
    "research": _derive(
        "research",
        RESEARCH,
        detection={"false_alarms_per_1000": 0.2},
        rules={
            **{rule.code: INFO for rule in RULES if rule.code not in RESEARCH_OWN},
            **dict.fromkeys(RESEARCH_WARNING, WARNING),
            # A severity would also raise the jumps that one sequence makes, which are information.
            "KLA201": NEVER_CRITICAL,
        },
    ),
    "wandb-z-score": _derive_wandb(
        "wandb-z-score",
        "a z-score beyond 3 in either direction, over the last 30 values",
        {"detector": "z_score", "z_window": 30, "z_limit": 3.0},
    ),
    "wandb-change": _derive_wandb(
        "wandb-change",
        "the mean of the last 10 values more than half away from the mean of the 50 before them",
        {"detector": "window_change", "recent_window": 10, "earlier_window": 50, "change_limit": 0.5},
    ),
}
"""By name."""
