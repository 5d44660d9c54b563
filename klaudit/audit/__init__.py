"""Rules over records, and what they find; live and afterwards the same engine."""

from klaudit.audit.audit import Audit, Coverage, SilentRule, describe_finding
from klaudit.audit.description import ParameterDescription, RuleDescription, find_rule, list_rules
from klaudit.audit.engine import AuditEngine, audit_run
from klaudit.audit.policy import PRESETS, Policy, RuleSettings, find_policy, read_policy

__all__ = [
    "PRESETS",
    "Audit",
    "AuditEngine",
    "Coverage",
    "ParameterDescription",
    "Policy",
    "RuleDescription",
    "RuleSettings",
    "SilentRule",
    "audit_run",
    "describe_finding",
    "find_policy",
    "find_rule",
    "list_rules",
    "read_policy",
]
