"""What a run of the embedded trainer is made of, as a TOML file says it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klaudit.callbacks.enforcement import require_known_action
from klaudit.config import read_toml, require_known_keys
from klaudit.demo.faults import Fault
from klaudit.errors import InvalidConfig
from klaudit.models import DEFAULT_MODEL
from klaudit.ppo.config import PPOConfig
from klaudit.records import KLBudget

DEMO_LEARNING_RATE = 2e-5
DEMO_TARGET_KL = 2.0
"""Nats per sequence."""
DEMO_HORIZON = 1000
"""Sequences; short, so that the controller is seen to move within a demo."""
DEMO_BUDGET = 4.0
"""Nats per sequence."""
SHAPES: Mapping[str, tuple[type, str]] = {
    "name": (str, "a string"),
    "policy": (str, "a string"),
    "description": (str, "a string"),
    "ppo": (dict, "a table [ppo]"),
    "budget": (list, "tables [[budget]]"),
    "stops": (list, 'texts of one token each, such as stops = [".", "!"]'),
    "fault": (dict, "a table [fault]"),
}
"""What a recipe's file may hold."""
FAULT_KEYS = ("kind", "step")
BUDGET_KEYS = ("limit", "unit", "scope", "window_steps", "on", "action", "owner", "reason")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A run to train: what, with which settings, under which budgets."""

    name: str
    """Of the run."""
    ppo: PPOConfig
    policy: str = DEFAULT_MODEL
    """Directory, hub id, or SmolLM2-135M-Instruct."""
    budgets: tuple[KLBudget, ...] = ()
    stops: tuple[str, ...] = ()
    """What ends a completion besides end-of-sequence, each of one token."""
    fault: Fault | None = None
    """What is broken in it on purpose."""
    description: str = ""
    """For people: what the run is there to show."""


def read_recipe(path: Path) -> Recipe:
    """A recipe from a file.

    Keys: `name`, `policy`, `description`, a table `[ppo]` with the fields of PPOConfig, any number of `[[budget]]`,
    `stops` and a table `[fault]` with the fields of Fault.

    Raises:
        InvalidConfig: no such file, a key that does not exist, a value out of range.
        InvalidRecord: a budget that cannot be.
    """
    content = read_toml(path)
    require_known_keys(content, known=tuple(SHAPES), where=str(path))
    for key, (kind, wanted) in SHAPES.items():
        if not isinstance(content.get(key, kind()), kind):
            raise InvalidConfig(f"{path}: expected {key} to be {wanted}; got {content[key]!r}")
    if not content.get("name", "").strip():
        raise InvalidConfig(f'{path}: expected a name for the run, such as name = "first-try"; got {content.get("name")!r}')
    try:
        ppo = PPOConfig.from_mapping(content.get("ppo", {}))
    except InvalidConfig as error:
        raise InvalidConfig(f"{path}, table [ppo]: {error}") from error
    return Recipe(
        name=content["name"],
        ppo=ppo,
        policy=content.get("policy", DEFAULT_MODEL),
        budgets=tuple(_read_budget(table, path=path) for table in content.get("budget", [])),
        stops=_read_stops(content.get("stops", []), path=path),
        fault=_read_fault(content["fault"], path=path) if "fault" in content else None,
        description=content.get("description", ""),
    )


def _read_stops(stops: list[Any], *, path: Path) -> tuple[str, ...]:
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise InvalidConfig(f"{path}: expected stops to be {SHAPES['stops'][1]}; got {stops!r}")
    return tuple(stops)


def _read_fault(table: Mapping[str, Any], *, path: Path) -> Fault:
    require_known_keys(table, known=FAULT_KEYS, where=f"{path}, table [fault]")
    if missing := [name for name in FAULT_KEYS if name not in table]:
        raise InvalidConfig(f"{path}, table [fault]: {' and '.join(missing)} missing")
    try:
        return Fault(**table)
    except InvalidConfig as error:
        raise InvalidConfig(f"{path}, table [fault]: {error}") from error


def _read_budget(table: Mapping[str, Any], *, path: Path) -> KLBudget:
    if not isinstance(table, dict):
        raise InvalidConfig(f"{path}: expected tables [[budget]]; got {table!r} among them")
    require_known_keys(table, known=BUDGET_KEYS, where=f"{path}, table [[budget]]")
    missing = [name for name in ("limit", "unit") if name not in table]
    if missing:
        raise InvalidConfig(f"{path}, table [[budget]]: {' and '.join(missing)} missing; a limit needs its unit")
    budget = KLBudget(**table)
    require_known_action(budget)
    return budget


def make_demo_recipe(*, steps: int, beta: float, adaptive: bool, seed: int, policy: str | None, is_healthy: bool) -> Recipe:
    """What `klaudit demo` trains.

    Raises:
        InvalidConfig: a value out of range.
    """
    fault_step = max(1, round(steps * 0.65))
    fault = (
        f"At step {fault_step} its learning rate is multiplied by 20 for three steps: a planted fault, so that there is something to find."
    )
    ppo = PPOConfig(
        max_steps=steps,
        epochs=1,
        minibatches=2,
        beta=beta,
        target_kl=DEMO_TARGET_KL if adaptive else None,
        horizon=DEMO_HORIZON,
        learning_rate=DEMO_LEARNING_RATE,
        learning_rate_spikes=() if is_healthy else ((fault_step, 3, 20.0),),
        seed=seed,
        save_steps=max(1, steps // 4),
        save_optimizer=False,
        sample_every=max(1, steps // 8),
        n_samples=4,
    )
    return Recipe(
        name="demo",
        policy=policy or DEFAULT_MODEL,
        ppo=ppo,
        budgets=(KLBudget(DEMO_BUDGET, "nats_per_sequence", owner="demo", reason="room for the demo's drift, not for its fault"),),
        description=f"{policy or DEFAULT_MODEL} learns to write praise: the reward is the sentiment of its text. "
        + ("" if is_healthy else fault),
    )
