"""One point of the frontier: how far the policy had moved, and what it scored there."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from klaudit.records import KLReading, Run, StepRecord


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """What one step knows of reward against d. The reading, the score and the held-out score of a step belong to one policy."""

    d: float
    """sqrt(KL per sequence), in sqrt(nats)."""
    step: int
    score: float | None = None
    """The proxy: the reward that the policy is trained on."""
    heldout_score: float | None = None
    """A reward that it is not trained on."""
    score_se: float | None = None
    heldout_se: float | None = None
    beta: float | None = None
    """In reward/nat, as it was in force."""
    estimator: str = "unknown"
    """Of the KL that d is the root of."""
    run: str = ""
    """Name of the run; neighbours of one run are taken as dependent, points of two runs are not."""


LARGEST = 1e50
"""Numbers beyond this are no scores and no KLs, and their squares' squares are no numbers."""


def keep_number(value: float | None) -> float | None:
    """The number; None for NaN, an infinity, or what lies beyond LARGEST either way."""
    return value if value is not None and -LARGEST <= value <= LARGEST else None


def read_d(reading: KLReading | None) -> float | None:
    """The d of a reading, in sqrt(nats); a negative estimate counts as 0. None where it cannot be had in nats per sequence."""
    value = None if reading is None else keep_number(reading.value_in("nats_per_sequence"))
    return None if value is None else math.sqrt(max(value, 0.0))


def read_points(run: Run, steps: Iterable[StepRecord]) -> tuple[FrontierPoint, ...]:
    """The points of a run in the order of its steps; of a step that was logged in two segments the later counts.

    A step is left out where its governing KL cannot be had in nats per sequence, or where it has neither score.

    Args:
        run: as it was declared; its batch size turns a `score_std` into a standard error.
        steps: in any order.
    """
    latest: dict[int, tuple[int, FrontierPoint | None]] = {}
    for one in steps:
        if one.step not in latest or latest[one.step][0] <= one.segment:
            latest[one.step] = (one.segment, _read_point(run, one))
    return tuple(point for _, (_, point) in sorted(latest.items(), key=lambda item: item[0]) if point is not None)


def _read_point(run: Run, step: StepRecord) -> FrontierPoint | None:
    key = run.governing_key
    reading = None if key is None else step.reading(key)
    if reading is not None and reading.mean_length is None and (length := keep_number(step.metrics.get("response_length"))):
        reading = replace(reading, mean_length=length) if length > 0 else reading
    d, score, heldout = read_d(reading), keep_number(step.score), keep_number(step.metrics.get("heldout_score"))
    if d is None or (score is None and heldout is None):
        return None
    spread = keep_number(step.metrics.get("score_std"))
    return FrontierPoint(
        d=d,
        step=step.step,
        score=score,
        heldout_score=heldout,
        score_se=None if spread is None or run.batch_size is None else spread / math.sqrt(run.batch_size),
        heldout_se=keep_number(step.metrics.get("heldout_score_se")),
        beta=keep_number(run.beta if step.beta is None else step.beta),
        estimator="unknown" if reading is None else reading.series.estimator,
        run=run.name,
    )
