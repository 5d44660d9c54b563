"""What a run's arguments say of who sets beta."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from klaudit.exchange.frameworks.framework import find_argument, find_number
from klaudit.records.non_finite import NON_FINITE

CONTROLLERS = (
    ("algorithm.kl_ctrl.target_kl", "algorithm.kl_ctrl.horizon"),
    ("trainer.algorithm.kl_ctrl.kl_target", "trainer.algorithm.kl_ctrl.horizon"),
    ("kl_ctrl.target_kl", "kl_ctrl.horizon"),
    ("algo.kl.target", "algo.kl.horizon"),
    ("method.target", "method.horizon"),
    ("kl_target", "horizon"),
    ("target", "horizon"),
    ("target_kl", "horizon"),
)
"""Set-point and horizon of verl, SkyRL, OpenRLHF, trlX, TRL up to 0.11 and klaudit, the more certain first."""
SURE_TARGETS = frozenset({"algo.kl.target", "trainer.algorithm.kl_ctrl.kl_target", "kl_target"})
"""Names that are a set-point also without a horizon; `target_kl` by itself is what PPO stops its epochs at."""
SWITCHES = ("algorithm.kl_ctrl.type", "trainer.algorithm.kl_ctrl.type", "kl_ctrl.type", "adap_kl_ctrl")
"""`adaptive` or true where a controller is used; the set-point may be there without."""
SCHEDULES = ("beta_schedule", "kl_schedule", "kl_coef_schedule", "beta_scheduler", "kl_scheduler", "beta_warmup_steps", "kl_warmup_steps")
COEFFICIENTS = ("beta", "kl_coef")
"""Arguments whose list holds a coefficient an epoch (TRL's OnlineDPO)."""


@dataclass(frozen=True, slots=True)
class BetaSettings:
    """Who sets beta, as far as the arguments know."""

    is_adaptive: bool = False
    """A controller is configured."""
    target: float | None = None
    """The controller's set-point, in whatever unit the trainer's KL has."""
    target_name: str = ""
    horizon: float | None = None
    """Of the controller, in sequences."""
    horizon_name: str = ""
    is_scheduled: bool = False
    listed: tuple[float, ...] = ()
    """The coefficients of a list."""


def read_beta_settings(config: Mapping[str, Any]) -> BetaSettings:
    """What a trainer's arguments say of who sets beta."""
    is_scheduled = any(find_argument(config, name) for name in SCHEDULES)
    listed = next((value for name in COEFFICIENTS if isinstance(value := find_argument(config, name), (list, tuple))), ())
    numbers = tuple(float(one) for one in listed if isinstance(one, (int, float)) and not isinstance(one, bool))
    if any(_is_off(find_argument(config, name)) for name in SWITCHES):
        return BetaSettings(is_scheduled=is_scheduled, listed=numbers)
    for target_name, horizon_name in CONTROLLERS:
        target, horizon = _find(config, target_name), _find(config, horizon_name)
        if target is not None and (horizon is not None or target_name in SURE_TARGETS):
            return BetaSettings(True, target, target_name, horizon, horizon_name, is_scheduled, numbers)
    return BetaSettings(is_scheduled=is_scheduled, listed=numbers)


def _is_off(switch: Any) -> bool:
    return switch is not None and switch is not True and switch != "adaptive"


def _find(config: Mapping[str, Any], name: str) -> float | None:
    """A number, also one that is NaN or infinite."""
    value = find_argument(config, name)
    if isinstance(value, str):
        return NON_FINITE.get(value)
    return value if isinstance(value, float) else find_number(config, name)
