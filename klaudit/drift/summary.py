"""Shards to measurements: means over sequences, with intervals over prompts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from klaudit.drift.interval import estimate_mean
from klaudit.drift.plan import ModelIdentity
from klaudit.records import DriftMeasurement, DriftShard, KLSeries, MeasuredSequence, ReferenceModel
from klaudit.records.drift_shard import Sampler
from klaudit.records.series import Direction, Estimator

FLOORS: Mapping[Estimator, float] = {"full": 0.0, "k1": -math.inf, "k3": 0.0}
"""What is measured, and the least value that it can take: k1 of a sequence may be negative, the other two not."""

DIRECTIONS: Mapping[Sampler, Direction] = {"policy": "reverse", "reference": "forward"}
"""Which KL the completions of a sampler give."""


def summarise_shards(
    shards: Sequence[DriftShard],
    *,
    checkpoint: ModelIdentity,
    reference: ModelIdentity,
    settings: Mapping[str, Any],
    measured_at: datetime,
    step: int | None = None,
    run_id: str | None = None,
) -> tuple[DriftMeasurement, ...]:
    """Drift of one checkpoint in nats per sequence: KL(policy || reference) by full, k1 and k3, over all prompts and then over each slice.

    The same of KL(reference || policy) follows, where the shards hold completions of the reference. The expectation is over prompts and
    completions of at most `max_new_tokens` tokens; the interval speaks of prompts like these, so that more samples of the same prompts narrow
    it only so far.

    Args:
        shards: every shard of the checkpoint, in any order.
        checkpoint: what was measured.
        reference: against what.
        settings: from `describe_settings`.
        measured_at: with a time zone.
        step: updates done when the checkpoint was saved.
        run_id: of the run that saved it.
    """
    sequences = list_sequences(shards)
    return tuple(
        DriftMeasurement(
            checkpoint=checkpoint.name,
            reference=ReferenceModel(name=reference.name, digest=reference.digest),
            series=_describe_series(estimator, sampler=sampler, temperature=settings.get("temperature", 1.0)),
            value=mean.value,
            low=mean.low,
            high=mean.high,
            n_sequences=len(group),
            mean_length=measure_length(group),
            measured_at=measured_at,
            run_id=run_id,
            step=step,
            slice=name,
            checkpoint_digest=checkpoint.digest,
            settings=settings,
        )
        for sampler, name, group in _group_sequences(sequences)
        for estimator, floor in FLOORS.items()
        for mean in [
            estimate_mean(
                [sum_nats(one)[estimator] for one in group],
                clusters=[one.prompt for one in group],
                weights=[one.weight for one in group],
                floor=floor,
            )
        ]
    )


def list_sequences(shards: Sequence[DriftShard], *, sampler: Sampler | None = None) -> list[MeasuredSequence]:
    """The sequences of shards by prompt and sample, whatever order the shards come in: sums come out the same to the last bit."""
    found = (one for shard in shards for one in shard.sequences if sampler in (None, one.sampler))
    return sorted(found, key=lambda one: (one.sampler, one.prompt_index, one.sample))


def sum_nats(sequence: MeasuredSequence) -> dict[Estimator, float]:
    """KL of one completion by each estimator, nats per sequence, in the direction of its sampler."""
    log_ratio = np.subtract(sequence.policy_logprobs, sequence.reference_logprobs)
    if sequence.sampler == "reference":
        log_ratio = -log_ratio
    with np.errstate(over="ignore", invalid="ignore"):
        gap = np.maximum(np.expm1(-log_ratio) + log_ratio, 0)
    # exp(-l) outgrows l on the way to minus infinity
    gap[log_ratio == -math.inf] = math.inf
    return {"full": sum(sequence.full), "k1": float(log_ratio.sum()), "k3": float(gap.sum())}


def measure_length(sequences: Sequence[MeasuredSequence]) -> float:
    """Mean tokens a sequence, weighted as the KL is: KL per token is KL per sequence over this."""
    heaviest = max(one.weight for one in sequences)
    weights = [one.weight / heaviest for one in sequences]
    return math.fsum(weight * len(one) for weight, one in zip(weights, sequences, strict=True)) / math.fsum(weights)


def _group_sequences(sequences: Sequence[MeasuredSequence]) -> Iterator[tuple[Sampler, str | None, list[MeasuredSequence]]]:
    for sampler in DIRECTIONS:
        sampled = [one for one in sequences if one.sampler == sampler]
        slices = dict.fromkeys(one.slice for one in sampled if one.slice is not None)
        if sampled:
            yield sampler, None, sampled
        for name in slices:
            yield sampler, name, [one for one in sampled if one.slice == name]


def _describe_series(estimator: Estimator, *, sampler: Sampler, temperature: float) -> KLSeries:
    return KLSeries(
        kind="reference",
        estimator=estimator,
        unit="nats_per_sequence",
        aggregation="batch_mean",
        direction=DIRECTIONS[sampler],
        temperature=temperature,
    )
