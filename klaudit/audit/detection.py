"""How a policy has changes of the governing KL looked for."""

from typing import Literal

from pydantic import Field

from klaudit.audit.parameters import RuleParameters

Detector = Literal["klaudit", "z_score", "window_change"]


class DetectionParameters(RuleParameters):
    """The table `[detection]` of a policy."""

    detector: Detector = Field(
        default="klaudit",
        description="klaudit: all change rules; z_score and window_change: what W&B's automations offer, told as KLA201 kl_jump",
    )
    false_alarms_per_1000: float = Field(
        default=1.0,
        ge=0.01,
        le=20,
        description="false alarms that all change rules together may give, per 1,000 healthy steps (detector klaudit)",
    )
    z_window: int = Field(default=30, ge=5, le=10_000, description="values before the one that is judged (detector z_score)")
    z_limit: float = Field(
        default=3.0, gt=0, description="standard deviations from the window's mean, either way, that alarm (detector z_score)"
    )
    recent_window: int = Field(default=10, ge=1, le=10_000, description="values whose mean is judged (detector window_change)")
    earlier_window: int = Field(
        default=50, ge=2, le=10_000, description="values before them that it is held against (detector window_change)"
    )
    change_limit: float = Field(default=0.5, gt=0, description="relative change of the mean that alarms (detector window_change)")
