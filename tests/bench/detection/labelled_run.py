"""Track A: a labelled run, as the `klaudit-steps/1` content that a user would import."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.random import Generator

from klaudit.detectors.score import Planted
from klaudit.exchange.steps_file import read_run, read_step
from klaudit.records import KLBudget, Run, StepRecord
from klaudit.records.non_finite import encode_float
from tests.bench.detection.companions import EDITS, REQUIRED, Columns, complete_rewards, draw_columns
from tests.bench.detection.effects import PLANTERS, Plan
from tests.bench.detection.kinds import HEALTHY, KINDS
from tests.bench.detection.profile import Profile, draw_profile
from tests.bench.detection.trace import Effects, Trace, draw_noise, make_trace

BEGAN_AT = datetime(2026, 1, 1, tzinfo=UTC)
STEP_TAKES = timedelta(seconds=30)

ALWAYS = ("kl", "kl_se", "kl_full", "kl_full_se")
OUTSIDE_METRICS = ("kl", "kl_se", "beta", "score")


@dataclass(frozen=True, slots=True)
class LabelledRun:
    """What a file of a run holds, and what was planted in it."""

    name: str
    header: Mapping[str, Any]
    """Of `klaudit-steps/1`."""
    steps: Sequence[Mapping[str, Any]]
    """Of `klaudit-steps/1`, in order."""
    planted: Planted | None = None
    budgets: tuple[KLBudget, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else is known of it, for a list of misses."""

    def read(self) -> tuple[Run, tuple[StepRecord, ...]]:
        """The run and its steps as an import gives them."""
        run = replace(read_run(self.header, self.name, began_at=BEGAN_AT), id=self.name)
        return run, tuple(read_step(step, f"{self.name} step {step['step']}", run=run) for step in self.steps)


def generate_run(seed: int, kind: str = HEALTHY) -> LabelledRun:
    """The run of a seed and a kind: always the same.

    Args:
        kind: one of KINDS, or `healthy`.
    """
    rng = np.random.default_rng([seed, [HEALTHY, *KINDS].index(kind)])
    profile = draw_profile(seed, kind, rng)
    noise = draw_noise(profile, rng)
    healthy = make_trace(profile, noise, Effects.none(profile.n_steps))
    profile = _round_only_what_can_be(profile, healthy)
    plan = PLANTERS[kind](profile, healthy, rng) if kind != HEALTHY else Plan(profile, Effects.none(profile.n_steps))
    trace = make_trace(profile, noise, plan.effects)
    columns = draw_columns(plan, trace, noise, rng)
    if kind in EDITS:
        EDITS[kind](plan, columns, rng)
    if profile.quantum is not None:
        columns = {name: np.round(column, 3) + 0.0 if name in ("kl", "kl_full") else column for name, column in columns.items()}
    complete_rewards(plan, columns, rng)
    return LabelledRun(
        name=f"seed-{seed}-{kind}",
        header=_describe_header(profile, columns),
        steps=tuple(_describe_steps(plan, _choose_columns(profile, columns, rng))),
        planted=_label(plan),
        budgets=tuple(_list_budgets(plan, healthy, rng)),
        about=_describe(profile),
    )


def _round_only_what_can_be(profile: Profile, healthy: Trace) -> Profile:
    """Nobody logs three decimals of a KL whose noise is below the third."""
    if profile.quantum is None:
        return profile
    sd = healthy.noise_sd[profile.onset] * (healthy.level[profile.onset] if profile.scale == "log" else 1) / healthy.divisor[profile.onset]
    return profile if sd > 2 * profile.quantum else replace(profile, quantum=None)


def _label(plan: Plan) -> Planted | None:
    profile = plan.profile
    if profile.kind == HEALTHY:
        return None
    kind = KINDS[profile.kind]
    first_odd = profile.onset + (plan.n_odd_steps if profile.kind == "gap" else 0)
    return Planted(kind.name, profile.first_step + first_odd, kind.codes, kind.horizon)


def _describe(profile: Profile) -> dict[str, Any]:
    return {
        "seed": profile.seed,
        "kind": profile.kind,
        "shape": profile.shape,
        "estimator": profile.estimator + ("+se" if profile.has_error else "") + ("+k1" if profile.has_full_beside else ""),
        "scale": profile.scale,
        "unit": profile.unit.removeprefix("nats_per_"),
        "batch": profile.batch_size,
        "noise": round(profile.relative_sd, 3) if profile.scale != "additive" else None,
        "process": round(profile.process_sd, 3),
        "tails": profile.tails,
        "wander": (round(profile.wander_memory, 2), round(profile.wander_sd, 3)),
        "zeros": profile.n_zeros,
        "quantised": profile.quantum is not None,
    }


def _describe_header(profile: Profile, columns: Columns) -> dict[str, Any]:
    common: dict[str, Any] = {
        "kind": "reference",
        "unit": profile.unit,
        "aggregation": "batch_mean",
        "direction": "reverse",
        "temperature": 1.0,
    }
    primary = "k1" if profile.has_full_beside else profile.estimator
    series: dict[str, Any] = {"kl_update": {"kind": "update", "estimator": "k2", "unit": "nats_per_token", "aggregation": "token_mean"}}
    if profile.has_full_beside:
        series["kl_full"] = common | {"estimator": "full"}
    config: dict[str, Any] = {"beta": profile.beta}
    if profile.servo is not None:
        config |= {"target_kl": profile.servo.target_kl, "horizon": profile.servo.horizon}
    return {
        "format": "klaudit-steps/1",
        "run": {
            "name": f"seed-{profile.seed}-{profile.kind}",
            "algorithm": "grpo" if profile.estimator == "k3" else "ppo",
            "policy": "a policy",
            "reference": "its reference",
            "started_at": BEGAN_AT.isoformat(),
            "config": config,
        },
        "kl": common | {"estimator": primary},
        "series": series,
        "batch_size": profile.batch_size,
        "beta": float(columns["beta"][0]),
        "planned_steps": profile.n_steps,
    }


def _choose_columns(profile: Profile, columns: Columns, rng: Generator) -> Columns:
    """What this trainer logs: KL and what the kind needs always, everything else with a probability of the run's own."""
    share = rng.uniform(0.7, 1.0)
    kept = {name for name in columns if rng.random() < share} | set(ALWAYS) | set(REQUIRED.get(profile.kind, ()))
    if profile.servo is not None:
        # Every trainer that adapts beta logs it.
        kept.add("beta")
    return {name: column for name, column in columns.items() if name in kept}


def _describe_steps(plan: Plan, columns: Columns) -> Iterator[dict[str, Any]]:
    profile = plan.profile
    missing = range(profile.onset, profile.onset + plan.n_odd_steps) if profile.kind == "gap" else range(0)
    for at in range(profile.n_steps):
        if at in missing:
            continue
        values = {name: encode_float(float(column[at])) for name, column in columns.items()}
        yield {
            "step": profile.first_step + at,
            "segment": 0,
            "time": (BEGAN_AT + at * STEP_TAKES).isoformat(),
            **{name: values.pop(name) for name in OUTSIDE_METRICS if name in values},
            "metrics": values,
        }


def _list_budgets(plan: Plan, healthy: Trace, rng: Generator) -> Iterator[KLBudget]:
    """The budget that is to be broken; a generous one in every sixth other run."""
    profile = plan.profile
    limit = plan.budget_limit
    if limit is None and rng.random() < 1 / 6:
        limit = float(f"{3 * (healthy.governing / healthy.divisor).max():.3g}")
    if limit is None:
        return
    if rng.random() < 0.25:
        yield KLBudget(limit, profile.unit, scope="window", window_steps=10)
    else:
        yield KLBudget(limit, profile.unit)
