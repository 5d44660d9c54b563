"""Rules over records, and what they find; live and afterwards the same engine."""

from klaudit.audit.audit import Audit, Coverage, SilentRule, describe_finding
from klaudit.audit.description import ParameterDescription, RuleDescription, find_rule, list_rules
from klaudit.audit.engine import AuditEngine, audit_run
from klaudit.audit.policy import Policy, RuleSettings
from klaudit.audit.policy_file import describe_policy, find_policy, read_policy, restore_policy
from klaudit.audit.presets import PRESETS

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
    "describe_policy",
    "find_policy",
    "find_rule",
    "list_rules",
    "read_policy",
    "restore_policy",
]
