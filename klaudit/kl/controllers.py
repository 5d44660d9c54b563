"""Who sets beta, the coefficient of the KL penalty; no torch."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

from klaudit.errors import InvalidConfig

MAX_RELATIVE_ERROR = 0.2
"""How far from its target a KL counts, either way (openai/lm-human-preferences, train_policy.py, AdaptiveKLController)."""


class BetaController(ABC):
    """Holds beta, and may change it after each batch.

    Raises:
        InvalidConfig: beta is set to something that is not a finite number of 0 or more.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta

    @property
    def beta(self) -> float:
        """KL penalty coefficient in force, in reward/nat; may be set, which is how enforcement raises it."""
        return self._beta

    @beta.setter
    def beta(self, beta: float) -> None:
        if not (math.isfinite(beta) and beta >= 0):
            raise InvalidConfig(f"beta must be a finite number, 0 or more; got {beta!r}")
        self._beta = float(beta)

    @abstractmethod
    def update(self, kl_nats_per_sequence: float, *, n_sequences: int) -> None:
        """Take note of a batch's KL(policy || reference).

        Args:
            kl_nats_per_sequence: mean over the batch. Nats per token would read as far below any sensible target.
            n_sequences: size of the batch.
        """

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint must hold, so that a resumed run goes on with the beta it had."""
        return {"beta": self.beta}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            InvalidConfig: no beta in it, or one that cannot be.
        """
        if "beta" not in state:
            raise InvalidConfig(f"the state of a beta controller must hold 'beta'; got {', '.join(map(repr, state)) or 'nothing'}")
        self.beta = state["beta"]


class FixedBeta(BetaController):
    """Beta stays what it is."""

    def update(self, kl_nats_per_sequence: float, *, n_sequences: int) -> None:
        """Change nothing."""


class AdaptiveBeta(BetaController):
    """Steers KL per sequence towards a target by scaling beta.

    `beta <- beta * (1 + clip(KL / target_kl - 1, -0.2, 0.2) * n_sequences / horizon)`

    Source: Ziegler et al. 2019, arXiv 1909.08593, section 2.2; openai/lm-human-preferences, train_policy.py, AdaptiveKLController.
    One difference: a batch above `horizon` sequences counts as `horizon`, because the formula would otherwise make beta negative at five times that.

    Args:
        beta: where to start; above 0, because scaling never leaves 0.
        target_kl: set-point in nats per sequence; not a budget.
        horizon: in sequences; larger is slower. The paper used 10,000 with a target of 6.

    Raises:
        InvalidConfig: an argument that is not a positive finite number.
    """

    def __init__(self, beta: float, target_kl: float, horizon: float = 10_000) -> None:
        for name, number in (("beta", beta), ("target_kl", target_kl), ("horizon", horizon)):
            if not (math.isfinite(number) and number > 0):
                raise InvalidConfig(f"{name} of an adaptive beta must be a finite number above 0; got {number!r}")
        super().__init__(beta)
        self.target_kl = target_kl
        self.horizon = horizon

    def update(self, kl_nats_per_sequence: float, *, n_sequences: int) -> None:
        """Scale beta by at most 20%; a KL that is NaN says nothing and changes nothing."""
        if math.isnan(kl_nats_per_sequence):
            return
        error = min(max(kl_nats_per_sequence / self.target_kl - 1, -MAX_RELATIVE_ERROR), MAX_RELATIVE_ERROR)
        self.beta *= 1 + error * min(n_sequences / self.horizon, 1.0)
