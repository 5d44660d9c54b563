"""Who sets beta while a trainer trains."""

from typing import Any

from klaudit.audit.beta_settings import read_beta_settings
from klaudit.records import Run


def describe_controller(run: Run) -> dict[str, Any] | None:
    """The controller of beta as a segment begins, by the trainer's settings; None where beta is fixed, or nobody says.

    Returns:
        `beta` in reward/nat, `target` in the trainer's unit of KL, `horizon` in sequences; None for what is not said.
    """
    settings = read_beta_settings(run.config)
    if not settings.is_adaptive:
        return None
    return {"beta": run.beta, "target": settings.target, "horizon": settings.horizon}
