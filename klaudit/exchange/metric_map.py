"""What each trainer's metric names mean: one table per framework.

A trainer's `logs` are a flat mapping of names to numbers. Here a name is turned into a KL series with kind, estimator and unit, into
one of klaudit's metric names (DESIGN 6.3), or kept as it is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from klaudit.records import PRIMARY, UNDECLARED, KLReading, KLSeries, StepRecord, find_governing_series
from klaudit.records.series import Estimator


@dataclass(frozen=True, slots=True)
class Framework:
    """How one trainer names what it logs."""

    name: str
    algorithm: str
    source: str
    """Where the meanings were read."""
    detected_by: frozenset[str]
    """Keys that only this trainer logs, all of them."""
    series: Mapping[str, KLSeries]
    """The trainer's key -> what that KL is; `source_key` is filled in from the key."""
    series_keys: Mapping[str, str] = field(default_factory=dict)
    """The trainer's key -> klaudit's series key, where it differs."""
    standard_error_suffix: str | None = None
    """A KL's standard error is logged under its key and this suffix."""
    estimator_set_by_arguments: str | None = None
    """The key whose estimator is a setting of the trainer."""
    score: str | None = None
    beta: str | None = None
    """Logged key of the KL coefficient; None where only the arguments know it."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """The trainer's key -> klaudit's metric name, where it differs."""
    negated: frozenset[str] = frozenset()
    """Keys whose sign is the opposite of klaudit's."""
    ignored: frozenset[str] = frozenset()
    """Keys that say nothing about a step."""
    reads_should_stop: bool = True
    """Whether the trainer heeds `control.should_training_stop`."""


def _reference(estimator: Estimator) -> KLSeries:
    return KLSeries(kind="reference", estimator=estimator, unit="nats_per_sequence", aggregation="batch_mean")


KLAUDIT_PPO = Framework(
    name="klaudit",
    algorithm="ppo",
    source="klaudit/ppo/trainer.py",
    detected_by=frozenset({"kl_full", "kl_k1"}),
    series={
        "kl_full": _reference("full"),
        "kl_k1": _reference("k1"),
        "kl_k3": _reference("k3"),
        "kl_update": KLSeries(kind="update", estimator="full", unit="nats_per_token", aggregation="token_mean", direction="forward"),
    },
    standard_error_suffix="_se",
    score="score",
    beta="beta",
)

TRL_PPO = Framework(
    name="trl",
    algorithm="ppo",
    source="TRL 1.12.0 trl/experimental/ppo/ppo_trainer.py lines 880-908",
    detected_by=frozenset({"objective/kl", "objective/scores"}),
    series={
        "objective/kl": _reference("k1"),
        # Mean over padded positions too (line 857), so the aggregation is not a token mean.
        "policy/approxkl_avg": KLSeries(kind="update", estimator="k2", unit="nats_per_token", aggregation="unknown", direction="forward"),
    },
    series_keys={"policy/approxkl_avg": "kl_update"},
    estimator_set_by_arguments="objective/kl",
    score="objective/scores",
    metrics={
        "objective/rlhf_reward": "rlhf_reward",
        "objective/non_score_reward": "kl_penalty",
        "objective/entropy": "entropy_per_sequence",
        "policy/entropy_avg": "entropy",
        "policy/clipfrac_avg": "clip_fraction",
        "val/ratio": "ratio",
        "loss/policy_avg": "policy_loss",
        "loss/value_avg": "value_loss",
        "lr": "learning_rate",
    },
    # The code has -kl_coef * kl (line 775); klaudit's kl_penalty is beta * kl.
    negated=frozenset({"objective/non_score_reward"}),
    ignored=frozenset({"epoch"}),
    # Set by DefaultFlowCallback and never read: only an exception stops it (research/trainers.md 1.3).
    reads_should_stop=False,
)

UNKNOWN_TRAINER = Framework(
    name="unknown",
    algorithm="unknown",
    source="none: no key is known, and what is logged under `kl` may be anything",
    detected_by=frozenset(),
    series={PRIMARY: UNDECLARED},
    metrics={"lr": "learning_rate"},
    ignored=frozenset({"epoch"}),
)

FRAMEWORKS: tuple[Framework, ...] = (KLAUDIT_PPO, TRL_PPO)


def detect_framework(logs: Mapping[str, Any]) -> Framework | None:
    """The framework whose keys these are; None where none is known."""
    return next((framework for framework in FRAMEWORKS if framework.detected_by <= logs.keys()), None)


def declare_series(framework: Framework, *, temperature: float | None = None, estimator: Estimator | None = None) -> dict[str, KLSeries]:
    """The run's series by klaudit's keys; the best reference series is the primary one, `kl`.

    Args:
        framework: whose keys they are.
        temperature: at which the trainer samples and scores.
        estimator: the trainer's own setting, where it has one (`kl_estimator` of TRL's PPOConfig).
    """
    governing = find_governing_series(framework.series) or PRIMARY
    declared: dict[str, KLSeries] = {}
    for source_key, series in framework.series.items():
        described = replace(series, source_key=source_key, temperature=temperature)
        if estimator is not None and source_key == framework.estimator_set_by_arguments:
            described = replace(described, estimator=estimator)
        declared[PRIMARY if source_key == governing else framework.series_keys.get(source_key, source_key)] = described
    return declared


def read_logs(
    logs: Mapping[str, Any],
    *,
    framework: Framework,
    series: Mapping[str, KLSeries],
    step: int,
    segment: int,
    logged_at: datetime,
    beta: float | None = None,
    n_sequences: int | None = None,
) -> StepRecord:
    """One step's logs as a record.

    A number that is None, as TRL logs it when every micro-batch was NaN, is NaN: it was computed, and was not a number. What is no
    number at all, such as a histogram, is left out.

    Args:
        logs: what the trainer logged.
        framework: whose keys they are.
        series: the run's series, as `declare_series` made them.
        step: the trainer's global step.
        segment: of the run.
        logged_at: now, with a time zone.
        beta: KL coefficient from the trainer's arguments, for trainers that do not log it.
        n_sequences: sequences in the batch.
    """
    numbers = {key: number for key, value in logs.items() if (number := _to_number(value)) is not None}
    mean_length = numbers.get("response_length")
    consumed = {*framework.ignored, framework.score, framework.beta}
    readings: dict[str, KLReading] = {}
    for key, described in series.items():
        source_key = described.source_key or key
        error_key = source_key + framework.standard_error_suffix if framework.standard_error_suffix else None
        consumed |= {source_key, error_key}
        if source_key in numbers:
            readings[key] = KLReading(described, numbers[source_key], _find(numbers, error_key), n_sequences, mean_length)
        else:
            readings[key] = KLReading.absent(described, f"the trainer did not log {source_key} at this step")
    return StepRecord(
        step=step,
        segment=segment,
        logged_at=logged_at,
        kl=readings.pop(PRIMARY),
        readings=readings,
        beta=beta if framework.beta is None else _find(numbers, framework.beta),
        score=_find(numbers, framework.score),
        metrics={
            framework.metrics.get(key, key): -number if key in framework.negated else number
            for key, number in numbers.items()
            if key not in consumed
        },
    )


def _find(numbers: Mapping[str, float], key: str | None) -> float | None:
    return None if key is None else numbers.get(key)


def _to_number(value: Any) -> float | None:
    if value is None:
        return math.nan
    if isinstance(value, str):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
