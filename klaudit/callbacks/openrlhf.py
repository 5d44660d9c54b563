"""OpenRLHF: `install` lets its W&B and TensorBoard loggers tell klaudit what they are told.

OpenRLHF trains in a Ray actor, so it is Ray that calls `install`, in each of its processes: `ray job submit --runtime-env-json
'{"worker_process_setup_hook": "klaudit.callbacks.openrlhf.install"}' -- python3 -m openrlhf.cli.train_ppo_ray ...`. One of the two loggers must be
on; without them OpenRLHF tells nobody.
"""

import functools
import importlib
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from klaudit.callbacks.flat_logs import FlatLogs

LOGGERS = ("WandbLogger", "TensorboardLogger")

_runs: dict[int, tuple[Any, "FlatLogs"]] = {}
"""Of each trainer the arguments, by their identity, and the run: its loggers share both."""


def install() -> None:
    """Extend OpenRLHF's loggers; once or again, it comes to the same. Never raises: a process of Ray would not start."""
    try:
        logging_utils = importlib.import_module("openrlhf.utils.logging_utils")
    except Exception as error:
        # Every process of Ray comes here, also those that log nothing, and must not pay for the rest of klaudit.
        from klaudit.callbacks.recording import say

        say(f"nothing is recorded, because OpenRLHF's loggers cannot be imported. {type(error).__name__}: {error}")
        return
    for name in LOGGERS:
        extend_logger(getattr(logging_utils, name))


def extend_logger(logger: Any) -> None:
    """Let a logger of OpenRLHF tell klaudit too, after it has done its own work."""
    if hasattr(logger.log_train, "__wrapped__"):
        return
    logger.__init__ = _open_run(logger.__init__)
    logger.log_train = _also(logger.log_train, lambda run, global_step, logs_dict: run.log(global_step, logs_dict))
    logger.log_eval = _also(logger.log_eval, lambda run, _global_step, logs_dict: run.keep(logs_dict))
    logger.close = _also(logger.close, lambda run: run.close())


def _open_run(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def open_run(self: Any, args: Any) -> None:
        init(self, args)
        if id(args) not in _runs:
            _runs[id(args)] = (args, make_run(args))
        self.klaudit = _runs[id(args)][1]

    return open_run


def _also(method: Callable[..., None], tell: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(method)
    def told(self: Any, *args: Any, **kwargs: Any) -> None:
        method(self, *args, **kwargs)
        tell(self.klaudit, *args, **kwargs)

    return told


def make_run(args: Any) -> "FlatLogs":
    """The run of a trainer with these arguments; it begins with the first step.

    Raises:
        InvalidConfig: klaudit's settings cannot be read.
    """
    from klaudit.callbacks.flat_logs import FlatLogs
    from klaudit.exchange.frameworks import OPENRLHF, find_argument, find_number

    arguments = to_mapping(args)
    model = find_argument(arguments, "actor.model_name_or_path")
    batch = [find_number(arguments, name) for name in ("rollout.batch_size", "rollout.n_samples_per_prompt")]
    return FlatLogs(
        find_argument(arguments, "logger.wandb.run_name") or "openrlhf",
        framework=OPENRLHF,
        arguments=arguments,
        policy=model,
        reference=model if find_number(arguments, "algo.kl.init_coef") else None,
        batch_size=int(batch[0] * batch[1]) if batch[0] and batch[1] else None,
        logging_steps=int(find_number(arguments, "logger.logging_steps") or 1),
    )


def to_mapping(args: Any) -> Mapping[str, Any]:
    """OpenRLHF's arguments, namespaces inside of namespaces, as mappings."""
    return {name: to_mapping(value) if isinstance(value, SimpleNamespace) else value for name, value in vars(args).items()}
