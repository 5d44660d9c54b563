"""What callbacks see as `args`: the config, and beta as a live knob."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from klaudit.kl.controllers import BetaController
from klaudit.ppo.config import PPOConfig


class PPOArguments:
    """Every setting of the config by its name, `output_dir`, and `beta`, which may be assigned while training runs.

    `args.beta` reads the controller; assigning it sets the controller, and the next step's rewards use it. An adaptive controller goes on from there.
    """

    # What transformers' DefaultFlowCallback asks for: log and save by steps, no evaluation.
    logging_first_step = True
    logging_strategy = "steps"
    save_strategy = "steps"
    eval_strategy = "no"
    eval_delay = 0

    def __init__(self, config: PPOConfig, *, controller: BetaController, output_dir: Path) -> None:
        self.config = config
        self.output_dir = str(output_dir)
        self._controller = controller

    @property
    def beta(self) -> float:
        """KL penalty coefficient in force."""
        return self._controller.beta

    @beta.setter
    def beta(self, beta: float) -> None:
        self._controller.beta = beta

    def __getattr__(self, name: str) -> Any:
        if name == "config":
            raise AttributeError(name)
        return getattr(self.config, name)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON; `beta` is the one in force."""
        settings = asdict(self.config) | {"beta": self.beta, "output_dir": self.output_dir}
        settings["learning_rate_spikes"] = [list(spike) for spike in self.config.learning_rate_spikes]
        return settings
