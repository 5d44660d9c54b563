"""verl: importing this module makes `klaudit` a backend of verl's `Tracking`, so that `trainer.logger=["console","klaudit"]` works.

verl imports it by itself, in every process: klaudit is a plugin of verl (entry point `verl.plugins`, verl 0.9.1 verl/__init__.py line 60).
Where a version of verl knows no plugins, `VERL_USE_EXTERNAL_MODULES=klaudit.callbacks.verl` does the same.
"""

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

BACKEND = "klaudit"

VALIDATION = "val"
"""What the keys of a validation begin with, such as `val-core/gsm8k/acc/mean@1`."""


class KlauditBackend:
    """What verl's Tracking calls. What goes wrong inside klaudit never reaches it, but for a budget that says stop.

    Args:
        experiment_name: becomes the name of the run.
        config: verl's whole configuration, resolved.
    """

    def __init__(self, experiment_name: str, config: Mapping[str, Any] | None) -> None:
        # Processes of verl that log nothing import this module too, and must not pay for the rest of klaudit.
        from klaudit.callbacks.flat_logs import FlatLogs
        from klaudit.exchange.frameworks import VERL, find_argument, find_number

        config = config or {}
        model = find_argument(config, "actor_rollout_ref.model.path")
        has_reference = any(find_argument(config, name) for name in ("algorithm.use_kl_in_reward", "actor_rollout_ref.actor.use_kl_loss"))
        batch = [find_number(config, name) for name in ("data.train_batch_size", "actor_rollout_ref.rollout.n")]
        # verl writes the second one itself, from the length of its data (ray_trainer.py, _create_dataloader).
        names = ("trainer.total_training_steps", "actor_rollout_ref.actor.optim.total_training_steps")
        planned = next((int(number) for name in names if (number := find_number(config, name)) and number > 0), None)
        self.run = FlatLogs(
            experiment_name,
            framework=VERL,
            arguments=config,
            policy=model,
            reference=model if has_reference else None,
            batch_size=int(batch[0] * batch[1]) if batch[0] and batch[1] else None,
            planned_steps=planned,
        )

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Record one step; a validation by itself stands with the step after it.

        Raises:
            KLBudgetExceeded: a budget with action "stop" was broken. verl's trainers have no other way to be stopped.
        """
        if all(key.startswith(VALIDATION) for key in data):
            self.run.keep(data)
        else:
            self.run.log(step, data)

    def finish(self, exit_code: int = 0) -> None:
        """End the run. verl's PPO trainers never say whether they failed, so one that stops before its last step has."""
        self.run.close(failed=exit_code != 0 or not self.run.is_complete)


def add_backend(tracking: Any) -> None:
    """Make `klaudit` a backend of a Tracking class; once or again, it comes to the same."""
    if BACKEND in tracking.supported_backend:
        return
    tracking.supported_backend = [*tracking.supported_backend, BACKEND]
    tracking.__init__ = _open_backend(tracking.__init__)
    tracking.finish = _finish_backend(tracking.finish)


def _open_backend(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def open_backend(self: Any, project_name: str, experiment_name: str, default_backend: Any = "console", config: Any = None) -> None:
        init(self, project_name, experiment_name, default_backend, config)
        if BACKEND in ([default_backend] if isinstance(default_backend, str) else default_backend):
            # The last one: where it stops the training, the others have been told of the step.
            self.logger[BACKEND] = KlauditBackend(experiment_name, config)

    return open_backend


def _finish_backend(finish: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(finish)
    def finish_backend(self: Any, exit_code: int = 0) -> None:
        try:
            finish(self, exit_code)
        finally:
            backend = getattr(self, "logger", {}).get(BACKEND)
            if backend is not None:
                backend.finish(exit_code)

    return finish_backend


add_backend(importlib.import_module("verl.utils.tracking").Tracking)
