"""The rules, one per file, and the table they are registered in."""

from typing import Any

from klaudit.audit.rule import Rule
from klaudit.audit.rules.budget_exceeded import BudgetExceeded
from klaudit.audit.rules.kl_flat import KLFlat
from klaudit.audit.rules.kl_jump import KLJump
from klaudit.audit.rules.non_finite import NonFinite

RULES: tuple[type[Rule[Any]], ...] = (BudgetExceeded, KLJump, KLFlat, NonFinite)
"""In the order of their codes."""

__all__ = ["RULES"]
