"""Measured drift made by formula, for tests of the page Drift: nothing in it was measured."""

import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from klaudit.records import (
    DriftMeasurement,
    DriftProfile,
    DriftShard,
    Interval,
    LayerDrift,
    MeasuredSequence,
    ReferenceModel,
    Retention,
    SliceContrast,
)
from klaudit.records.drift_shard import Sampler
from klaudit.store import Store
from tests.browser.planted_store import FULL, HOSTILE_TOKEN, REFERENCE, WORDS

MEASURED_AT = datetime(2026, 11, 22, 13, tzinfo=UTC)
SLICES = ("reviews", "code", "trigger <b>phrase</b>")
N_PROMPTS = 30
N_SAMPLES = 3
LAYERS = ("embedding", *(f"layer {at}" for at in range(12)), "final norm")


def write_profiles(store: Store, name: str) -> None:
    """Every checkpoint of a run with completions of both models, slices, retention and layers; and the distances between all."""
    run = store.runs.get(name)
    checkpoints = store.checkpoints.list(run.id)
    for one in checkpoints:
        shards = list(make_shards(one.step))
        for shard in shards:
            store.drift.add_shard(shard, run_id=run.id)
        profile = make_profile(one.path, one.step, shards=tuple(shard.key for shard in shards), run_id=run.id)
        store.drift.add_profile(profile, make_forward(run.id, one.path, one.step))
    store.drift.add_distances(
        [
            make_distance(run.id, row.path, row.step, column.path, column.step)
            for row in checkpoints
            for column in checkpoints
            if row.step != column.step
        ]
    )


def name_key(*parts: object) -> str:
    return "sha256:" + hashlib.sha256(repr(parts).encode()).hexdigest()


def make_profile(checkpoint: str, step: int, *, shards: tuple[str, ...], run_id: str) -> DriftProfile:
    rise = 0.004 * step
    return DriftProfile(
        checkpoint=checkpoint,
        reference=REFERENCE,
        measured_at=MEASURED_AT,
        key=name_key("profile", step),
        ratio=Interval(1.0 - 0.001 * step, 0.97 - 0.002 * step, 1.02) if step < 60 else Interval(0.71, 0.62, 0.8),
        run_id=run_id,
        step=step,
        retention=Retention(
            "passages",
            name_key("text"),
            Interval(3.2 + rise, 3.1 + rise, 3.3 + rise),
            Interval(3.2, 3.1, 3.3),
            Interval(rise, rise - 0.01, rise + 0.01),
            4200,
            40,
        ),
        layers=tuple(
            LayerDrift(layer, at, step / 4000 * (1 + math.sin(at / 3)) + 0.0004 * at, 1_000_000 + 1000 * at)
            for at, layer in enumerate(LAYERS)
        ),
        contrasts=(
            SliceContrast(SLICES[0], Interval(0.11, 0.09, 0.13), Interval(0.14, 0.12, 0.16), Interval(0.79, 0.6, 1.02), 0.2, 10),
            SliceContrast(SLICES[1], Interval(0.05, 0.03, 0.07), Interval(0.16, 0.13, 0.19), Interval(0.31, 0.2, 0.5), 0.004, 10),
            SliceContrast(SLICES[2], Interval(0.51, 0.42, 0.6), Interval(0.08, 0.07, 0.09), Interval(6.4, 5.0, 8.1), 2e-7, 10),
        ),
        shards=shards,
        settings={"prompt_set": "planted", "n_prompts": N_PROMPTS, "seed": 0},
    )


def make_forward(run_id: str, checkpoint: str, step: int) -> list[DriftMeasurement]:
    """The other direction over all prompts, and both directions of each slice."""
    forward = replace(FULL, direction="forward")
    rows = [
        (forward, None, 0.14 * step),
        *((series, one, (0.1 + 0.06 * at) * step) for series in (FULL, forward) for at, one in enumerate(SLICES)),
    ]
    return [
        DriftMeasurement(
            checkpoint, REFERENCE, series, value, 0.9 * value, 1.1 * value, 90, 20.0, MEASURED_AT, run_id=run_id, step=step, slice=slice
        )
        for series, slice, value in rows
    ]


def make_distance(run_id: str, row: str, row_step: int, column: str, column_step: int) -> DriftMeasurement:
    value = 0.002 * (row_step - column_step) ** 2 * (1.2 if row_step > column_step else 1.0)
    other = ReferenceModel(column, name_key(column))
    return DriftMeasurement(row, other, FULL, value, 0.9 * value, 1.1 * value, 90, 20.0, MEASURED_AT, run_id=run_id, step=row_step)


def make_shards(step: int) -> Iterator[DriftShard]:
    """Completions of both models, ten prompts a shard."""
    for sampler in ("policy", "reference"):
        for start in range(0, N_PROMPTS, 10):
            rng = random.Random(f"{step} {sampler} {start}")
            sequences = tuple(
                make_sequence(index, sample, sampler, step=step, rng=rng)
                for index in range(start, start + 10)
                for sample in range(N_SAMPLES)
            )
            yield DriftShard(name_key(step, sampler, start), sequences)


def make_sequence(index: int, sample: int, sampler: Sampler, *, step: int, rng: random.Random) -> MeasuredSequence:
    words = [*rng.choices(WORDS, k=rng.randint(6, 24)), "  ", "<|im_end|>"]
    words[2] = HOSTILE_TOKEN
    level = 0.002 * step * (1 + index / 10)
    nats = [rng.expovariate(1) * level * (3 if at < 4 else 1) for at in range(len(words))]
    logprobs = [-0.4 - rng.random() for _ in words]
    return MeasuredSequence(
        prompt=f"Review {index}: The film was\nshown in <i>Paris</i> and",
        prompt_index=index,
        slice=SLICES[index // 10],
        weight=1.0,
        sample=sample,
        sampler=sampler,
        tokens=tuple(words),
        token_ids=tuple(range(len(words))),
        full=tuple(nats),
        policy_logprobs=tuple(logprobs),
        reference_logprobs=tuple(one - rng.gauss(0.2, 0.4) for one in logprobs),
        policy_entropy=tuple(2.0 for _ in words),
        top_tokens=tuple((" great", " best", HOSTILE_TOKEN) for _ in words),
        top_contributions=tuple((0.5 * one, 0.2 * one, 0.1 * one) for one in nats),
        ended=len(words) < 24,
    )
