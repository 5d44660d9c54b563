"""What every way into klaudit shares: opening the store from inside somebody's training, and never breaking it."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from klaudit.alerts import Channel, ConsoleChannel, WebhookChannel
from klaudit.audit import Policy, find_policy
from klaudit.callbacks.controller import describe_controller
from klaudit.callbacks.enforcement import require_known_action
from klaudit.config import read_settings
from klaudit.errors import InvalidConfig, KLBudgetExceeded
from klaudit.records import KLBudget, Run
from klaudit.records.session import InUse, Resume
from klaudit.store import require_usable
from klaudit.workflows.recorder.reporter import Reporter
from klaudit.workflows.recorder.run_recorder import RunRecorder
from klaudit.workflows.recorder.start import Durability, start_recording


def say(line: str) -> None:
    """One line for the person at the terminal, where there still is one."""
    with contextlib.suppress(Exception):
        print(f"klaudit: {line}", file=sys.stderr, flush=True)  # noqa: T201


@dataclass(frozen=True, slots=True)
class RecordingPlan:
    """Where a run is recorded, what it is held to and who is told; read before training starts, so that a mistake in it can be refused."""

    store: str
    """SQLAlchemy URL."""
    budgets: tuple[KLBudget, ...]
    policy: Policy
    channels: tuple[Channel, ...]
    resume: Resume = "auto"
    durability: Durability = "step"
    journals: tuple[str, ...] = ()
    """Directories for the journal, best first; none: the usual one."""
    actor: str | None = None
    """Name of the person behind the process, for the ledger."""

    def begin(
        self,
        run: Run,
        *,
        reporter: Reporter,
        resumed_from_step: int | None = None,
        in_use: InUse = "refuse",
        must_be_closed: bool = False,
    ) -> RunRecorder:
        """Begin to record the run; the store is made when it is not there.

        Raises:
            RunInUse: a live process writes the run that would be gone on with.
            RunNotFound: `resume="must"` and there is no such run.
            StoreError: neither the store nor a journal can be written.
        """
        return start_recording(
            self.store,
            run=run,
            resumed_from_step=resumed_from_step,
            resume=self.resume,
            in_use=in_use,
            budgets=self.budgets,
            policy=self.policy,
            channels=self.channels,
            durability=self.durability,
            journals=self.journals,
            controller=describe_controller(run),
            reporter=reporter,
            actor=self.actor,
            must_be_closed=must_be_closed,
        )


def plan_recording(
    *,
    store: str | None,
    budget: KLBudget | Iterable[KLBudget] | None,
    policy: Policy | Path | str | None,
    webhook: str | None,
    resume: Resume = "auto",
    durability: Durability = "step",
    journal: Path | str | Iterable[Path | str] | None = None,
) -> RecordingPlan:
    """Arguments and settings together; an argument wins.

    Raises:
        InvalidBudget: an action that cannot be taken.
        MissingExtra: the store's driver is not installed.
        InvalidConfig: settings, a store's URL, a policy or a webhook that cannot be read, a `resume` or `durability` that does not exist.
    """
    settings = read_settings()
    require_choice("resume", resume, get_args(Resume))
    require_choice("durability", durability, get_args(Durability))
    url = webhook or settings.webhook
    budgets = () if budget is None else (budget,) if isinstance(budget, KLBudget) else tuple(budget)
    for one in budgets:
        require_known_action(one)
    require_usable(store or settings.store)
    return RecordingPlan(
        store=store or settings.store,
        budgets=budgets,
        policy=policy if isinstance(policy, Policy) else find_policy("default" if policy is None else str(policy)),
        channels=(ConsoleChannel(), *((WebhookChannel(url),) if url else ())),
        resume=resume,
        durability=durability,
        actor=settings.actor,
        journals=settings.journals
        if journal is None
        else (str(journal),)
        if isinstance(journal, (str, Path))
        else tuple(map(str, journal)),
    )


def require_choice(argument: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse what is none of the choices.

    Raises:
        InvalidConfig: naming them.
    """
    if value not in choices:
        raise InvalidConfig(f"{argument} must be one of {', '.join(choices)}; got {value!r}")


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

    def warn(self, line: str) -> None:
        """Something that a person should know, and that is no failure."""
        say(line)


class Guarded:
    """Something that lives in a trainer, with a guard."""

    def __init__(self, guard: Guard | None = None) -> None:
        self.guard = guard or Guard()


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
            self.guard.note(method.__name__.lstrip("_").replace("_", " "), error)

    return cast(M, guarded)
