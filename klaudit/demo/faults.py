"""What may be broken on purpose in a run of the embedded trainer, and which rules name it rightly. `planting` breaks it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from klaudit.errors import InvalidConfig

LEARNING_RATE_FACTOR = 20.0
TOP_K = 20
"""Tokens that sampling is cut to."""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A cause, and what an audit must say of it; decided before any run with it was trained."""

    cause: str
    """For people."""
    codes: tuple[str, ...]
    """Rules that name the cause rightly; one of them is enough."""
    within_steps: int
    """How many steps after its first one the fault must be found, at the latest."""


FAULT_KINDS: Mapping[str, FaultKind] = MappingProxyType(
    {
        # A wrong update t shows first in the KL of step t + 1, because rollouts precede updates.
        "learning_rate": FaultKind(f"learning rate x{LEARNING_RATE_FACTOR:g}", ("KLA201", "KLA203", "KLA501"), within_steps=3),
        "beta_zero": FaultKind("beta set to 0", ("KLA402",), within_steps=1),
        "beta_sign": FaultKind("sign of beta flipped", ("KLA402", "KLA403"), within_steps=1),
        # What is logged as KL leaves padding out, so what the rewards paid is not beta times it.
        "padding_in_penalty": FaultKind("padding counted in the KL penalty", ("KLA306",), within_steps=3),
        # How far it shows depends on how far the policy already is from the reference, and grows with every update.
        "sampling_top_k": FaultKind(f"top-{TOP_K} in sampling, not in scoring", ("KLA206", "KLA703", "KLA704"), within_steps=12),
        "reference_swap": FaultKind("reference swapped for a copy of the policy", ("KLA401",), within_steps=2),
        "nan_gradient": FaultKind("every gradient NaN", ("KLA303",), within_steps=1),
    }
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something planted in a run, from a step to its end.

    Raises:
        InvalidConfig: no such kind, or a step before the first.
    """

    kind: str
    """A key of FAULT_KINDS."""
    step: int
    """First step that it is in force at, counted from 1."""

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise InvalidConfig(f"kind must be one of {', '.join(FAULT_KINDS)}; got {self.kind!r}")
        if type(self.step) is not int or self.step < 1:
            raise InvalidConfig(f"step must be a whole number, 1 or more; got {self.step!r}")
