"""What every way into klaudit shares: opening the store from inside somebody's training, and never breaking it."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from klaudit.alerts import Channel, ConsoleChannel, WebhookChannel
from klaudit.audit import Policy, find_policy
from klaudit.callbacks.enforcement import require_known_action
from klaudit.config import read_settings
from klaudit.errors import KLBudgetExceeded
from klaudit.records import KLBudget, Run
from klaudit.store import open_store
from klaudit.workflows.recorder import RunRecorder, begin_run

SECRET_WORDS = ("token", "password", "secret", "api_key", "apikey", "credential")
"""A trainer's argument whose name holds one of these is never recorded, unless it counts tokens."""


BUSY_TIMEOUT_S = 5.0
"""How long a step waits for another writer of the store before it is given up: a trainer is worth more than a row."""


def say(line: str) -> None:
    """One line for the person at the terminal, where there still is one."""
    with contextlib.suppress(OSError, ValueError):
        print(f"klaudit: {line}", file=sys.stderr, flush=True)  # noqa: T201


@dataclass(frozen=True, slots=True)
class RecordingPlan:
    """Where a run is recorded, what it is held to and who is told; read before training starts, so that a mistake in it can be refused."""

    store: str
    """SQLAlchemy URL."""
    budgets: tuple[KLBudget, ...]
    policy: Policy
    channels: tuple[Channel, ...]

    def begin(self, run: Run, *, resumed_from_step: int | None = None) -> RunRecorder:
        """Open the store, made when it is not there, and begin the run.

        Raises:
            StoreError: the store cannot be used.
        """
        return begin_run(
            open_store(self.store, create=True, busy_timeout_s=BUSY_TIMEOUT_S),
            run=run,
            resumed_from_step=resumed_from_step,
            budgets=self.budgets,
            policy=self.policy,
            channels=self.channels,
        )


def plan_recording(
    *, store: str | None, budget: KLBudget | Iterable[KLBudget] | None, policy: Policy | Path | str | None, webhook: str | None
) -> RecordingPlan:
    """Arguments and settings together; an argument wins.

    Raises:
        InvalidBudget: an action that cannot be taken.
        InvalidConfig: settings, a policy or a webhook that cannot be read.
    """
    settings = read_settings()
    url = webhook or settings.webhook
    budgets = () if budget is None else (budget,) if isinstance(budget, KLBudget) else tuple(budget)
    for one in budgets:
        require_known_action(one)
    return RecordingPlan(
        store=store or settings.store,
        budgets=budgets,
        policy=policy if isinstance(policy, Policy) else find_policy("default" if policy is None else str(policy)),
        channels=(ConsoleChannel(), *((WebhookChannel(url),) if url else ())),
    )


def describe_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A trainer's arguments as JSON, secrets left out at any depth."""
    return {
        str(name): _to_json(value)
        for name, value in arguments.items()
        if not any(word in str(name).lower() for word in SECRET_WORDS) or isinstance(value, (int, float))
    }


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return describe_arguments(value)
    if isinstance(value, (list, tuple)):
        return [_to_json(one) for one in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


class Guard:
    """Counts what went wrong inside klaudit, and says it once: training goes on."""

    def __init__(self) -> None:
        self.failures = 0

    def note(self, what: str, error: Exception) -> None:
        """One failure; only the first is printed."""
        self.failures += 1
        if self.failures == 1:
            say(
                f"{what} failed and training goes on, without the record of it; later failures are only counted. {type(error).__name__}: {error}"
            )


class Guarded:
    """Something that lives in a trainer, with a guard."""

    def __init__(self) -> None:
        self.guard = Guard()


M = TypeVar("M", bound=Callable[..., None])


def never_raise(method: M) -> M:
    """Keep every exception but KLBudgetExceeded inside klaudit; for methods of something Guarded."""

    @functools.wraps(method)
    def guarded(self: Guarded, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except KLBudgetExceeded:
            raise
        except Exception as error:
            self.guard.note(method.__name__, error)

    return cast(M, guarded)
