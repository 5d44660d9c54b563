"""The rules, one per file, and the table they are registered in."""

from typing import Any

from klaudit.audit.rule import Rule
from klaudit.audit.rules.beta_controller import BetaController
from klaudit.audit.rules.budget_exceeded import BudgetExceeded
from klaudit.audit.rules.kl_flat import KLFlat
from klaudit.audit.rules.kl_jump import KLJump
from klaudit.audit.rules.non_finite import NonFinite
from klaudit.audit.rules.reference_changed import ReferenceChanged
from klaudit.audit.rules.step_gap import StepGap

RULES: tuple[type[Rule[Any]], ...] = (BudgetExceeded, KLJump, KLFlat, NonFinite, StepGap, ReferenceChanged, BetaController)
"""In the order of their codes."""

__all__ = ["RULES"]
