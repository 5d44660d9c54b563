"""What a broken budget asks of a trainer."""

from klaudit.errors import InvalidBudget, KLBudgetExceeded
from klaudit.records import Finding, KLBudget
from klaudit.records.budget import Action

BUDGET_EXCEEDED = "KLA101"


def require_known_action(budget: KLBudget) -> None:
    """Refuse an action that would not be taken: no trainer lets a callback change its beta in a way that all of them share.

    Raises:
        InvalidBudget: for `raise_beta`.
    """
    if budget.action == "raise_beta":
        raise InvalidBudget(
            "KLBudget.action 'raise_beta' is not there yet: klaudit can save and stop, and has no way to change beta that every trainer heeds. "
            "Use alert, save_checkpoint or stop"
        )


def find_due_action(finding: Finding) -> Action | None:
    """The action that a finding's budget asks for now: at once for `on = "value"`, else once noise cannot explain the breach.

    It goes by the numbers and not by the finding's severity, which a policy may have changed.
    """
    if finding.code != BUDGET_EXCEEDED or finding.status != "open":
        return None
    budget, bound = finding.evidence["budget"], finding.evidence["lower_bound"]
    is_due = budget["on"] == "value" or (bound is not None and bound > budget["limit"])
    action: Action = budget["action"]
    return action if is_due else None


def explain_stop(finding: Finding, *, run_name: str) -> KLBudgetExceeded:
    """The exception that ends a training."""
    return KLBudgetExceeded(f"{finding.code} in run {run_name!r}: {finding.message}")
