"""Runs, steps and policies that no sane trainer and no careful person makes."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, get_args

from klaudit.audit.policy import PRESET_NAMES
from klaudit.audit.policy_content import describe_schema
from klaudit.records import KLBudget, KLReading, KLSeries, Run, Segment, StepRecord
from klaudit.records.budget import Scope
from klaudit.report.views import METRICS

BEGAN = datetime(2026, 11, 22, tzinfo=UTC)
EXTREMES = (
    *(math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 1e-300, 1e-12, 1e300, 1.7976931348623157e308),
    *(-1.7976931348623157e308, 1e16, 0, 1, -1, 2**63, 2**70, -(2**1000)),
)
"""Floats at the ends of their range, and whole numbers that a loop may log as such."""
OTHER_METRICS = (
    *("kl_ref_clamped", "frac_reward_zero_std", "importance_weight", "sampling_logprob", "loss", "value_loss", "policy_loss", "target_kl"),
    *("rollout_probs_diff_mean", "reward_std", "advantage_mean", "unknown/metric", ""),
)
SERIES = {
    "kl": (
        KLSeries(estimator="k1", unit="nats_per_sequence"),
        KLSeries(estimator="full", unit="nats_per_sequence"),
        KLSeries(estimator="k3", unit="nats_per_token", aggregation="batch_mean"),
        KLSeries(kind="unknown", estimator="unknown", unit="unknown", aggregation="unknown", direction="unknown"),
    ),
    "kl_full": (
        KLSeries(estimator="full", unit="nats_per_token"),
        KLSeries(estimator="full", unit="nats_per_sequence", direction="forward"),
    ),
    "kl_update": (KLSeries(kind="update", estimator="k2", unit="nats_per_token"),),
    "kl_mismatch": (
        KLSeries(kind="mismatch", estimator="k1", unit="nats_per_token"),
        KLSeries(kind="mismatch", estimator="k3", unit="unknown"),
    ),
}
LONGEST_RUN = 160


@dataclass(frozen=True)
class HostileRun:
    """A run with all that an audit takes."""

    run: Run
    steps: tuple[StepRecord, ...]
    segments: tuple[Segment, ...]
    budgets: tuple[KLBudget, ...]


def make_run(seed: int, n_steps: int) -> HostileRun:
    """Steps that mostly walk along, stumble often, and go back with a resume now and then."""
    rng = random.Random(seed)
    chosen = {key: rng.choice(kinds) for key, kinds in SERIES.items() if key == "kl" or rng.random() < 0.6}
    run = Run(
        id="r1",
        name="hostile",
        started_at=BEGAN,
        status=rng.choice(("running", "finished", "failed")),
        algorithm=rng.choice((None, "ppo", "grpo", "dpo")),
        framework=rng.choice((None, "klaudit", "trl", "verl", "loop")),
        batch_size=rng.choice((None, 1, 16, 10**9)),
        beta=rng.choice((None, 0.05, 0.0, math.nan, -1.0)),
        planned_steps=rng.choice((None, 1, 500)),
        series=chosen,
        config=rng.choice(
            ({}, {"kl_coef": 0.05, "top_k": 50, "temperature": 0.7, "cliprange": "wide"}, {"beta": None, "num_ppo_epochs": []})
        ),
    )
    wildness, absence = rng.choice((0.0, 0.02, 0.3, 1.0)), rng.choice((0.0, 0.1, 0.9))
    names = [name for name in (*METRICS, *OTHER_METRICS) if rng.random() < 0.7]
    steps = tuple(_walk(rng, chosen, names, n_steps=n_steps, wildness=wildness, absence=absence))
    indices = sorted({one.segment for one in steps})
    return HostileRun(run, steps, tuple(_make_segment(rng, index) for index in indices), tuple(_make_budgets(rng)))


def _walk(
    rng: random.Random, series: dict[str, KLSeries], names: list[str], *, n_steps: int, wildness: float, absence: float
) -> Iterator[StepRecord]:
    segment, step, at = 0, rng.choice((0, 0, 1, 10**6, 2**62)), BEGAN
    levels = {name: rng.choice((0.0, 1e-6, 0.1, 5.0)) for name in (*series, *names, "beta", "score")}
    noise = rng.choice((0.0, 0.01, 0.5))

    def draw(name: str) -> float | int | None:
        if rng.random() < absence:
            return None
        if rng.random() < wildness:
            return rng.choice(EXTREMES)
        levels[name] *= math.exp(rng.gauss(0.01, noise))
        return min(levels[name], 1e12)

    for _ in range(n_steps):
        step += rng.choice((1, 1, 1, 1, 7, 10**5)) if rng.random() < 0.1 else 1
        if rng.random() < 0.03:
            segment, step = segment + rng.choice((1, 1, 2)), max(step - rng.randrange(20), 0)
        at += timedelta(seconds=rng.choice((1.0, 30.0, -5.0, 1e6)))
        readings = {key: _read(rng, one, draw(key)) for key, one in series.items()}
        yield StepRecord(
            step=step,
            segment=segment,
            kl=readings.pop("kl"),
            logged_at=at,
            beta=draw("beta"),
            score=draw("score"),
            readings={key: one for key, one in readings.items() if rng.random() < 0.9},
            metrics={name: value for name in names if (value := draw(name)) is not None},
        )


def _read(rng: random.Random, series: KLSeries, value: float | None) -> KLReading:
    if value is None:
        return KLReading.absent(series, "not logged")
    error = rng.choice((None, None, 0.0, 0.05, 1e300, math.nan, math.inf))
    length = rng.choice((None, None, 0.0, 16.0, 1e300, math.nan, math.inf))
    return KLReading(series, value, error, rng.choice((None, 1, 16, 10**6)), length)


def _make_segment(rng: random.Random, index: int) -> Segment:
    n_lost = rng.choice((0, 0, 1, 10**6))
    return Segment(
        "r1",
        index,
        BEGAN,
        resumed_from_step=rng.choice((None, 5)),
        reference_digest=rng.choice((None, "sha256:" + "a" * 64, "sha256:" + "b" * 64, "params:" + "c" * 64)),
        controller=rng.choice((None, {}, {"value": 0.1}, {"kind": 7, "beta": None})),
        n_lost=n_lost,
        lost_first_step=rng.choice((None, 3)) if n_lost else None,
        lost_last_step=rng.choice((None, 4)) if n_lost else None,
        lost_reason="full disk" if n_lost else None,
    )


def _make_budgets(rng: random.Random) -> Iterator[KLBudget]:
    for _ in range(rng.choice((0, 1, 4))):
        scope: Scope = rng.choice(get_args(Scope))
        yield KLBudget(
            rng.choice((1e-300, 0.1, 1.0, 1e300)),
            rng.choice(("nats_per_sequence", "nats_per_token")),
            scope=scope,
            window_steps=rng.choice((1, 5, 10**6)) if scope == "window" else None,
            on=rng.choice(("bound", "value")),
            action=rng.choice(("alert", "stop")),
        )


def make_content(seed: int) -> dict[str, Any]:
    """A policy in which anything that the schema allows is set, near its bounds as likely as not."""
    rng = random.Random(seed)
    tables = dict(list_tables())
    share = rng.choice((0.0, 0.05, 0.5))
    detection = _choose(rng, tables.pop("DetectionParameters"), share)
    rules = {code: _choose(rng, properties, share) for code, properties in tables.items() if rng.random() < 0.7}
    return {"name": "hostile", "extends": rng.choice(PRESET_NAMES), "detection": detection, "rules": rules}


@cache
def list_tables() -> dict[str, dict[str, Any]]:
    """The properties of every table of a policy, by the rule's code."""
    return {name: table["properties"] for name, table in describe_schema()["$defs"].items() if name != "Rules"}


def _choose(rng: random.Random, properties: dict[str, Any], share: float) -> dict[str, Any]:
    return {name: _choose_value(rng, one) for name, one in properties.items() if rng.random() < share}


def _choose_value(rng: random.Random, one: dict[str, Any]) -> Any:
    if "enum" in one:
        return rng.choice(one["enum"])
    match one.get("type"):
        case "boolean":
            return rng.random() < 0.7
        case "integer":
            low, high = one.get("minimum", 0), one.get("maximum", 10**6)
            return rng.choice((low, high, one["default"], rng.randint(low, min(high, low + 50))))
        case "number":
            low = one.get("minimum", one.get("exclusiveMinimum", -1e6) + 1e-9)
            high = one.get("maximum", one.get("exclusiveMaximum", 1e300))
            return rng.choice((low, one["default"], rng.uniform(low, min(high, low + 10)), high if "maximum" in one else 1e300))
    return one["default"]
