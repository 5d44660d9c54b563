"""Any run that can be recorded, with every label and every kind of number that its records may hold."""

import math
import string
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

from hypothesis import strategies as st

from klaudit.records import PRIMARY, KLReading, KLSeries, ReferenceModel, Run, StepRecord
from klaudit.records.series import Aggregation, Direction, Estimator, Kind, Unit

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
HOSTILE_NAMES = st.sampled_from(["=1+1", "+a", "-a", "@a", "\ta", "'a", "''=a", 'a",=b', "a;b", "a\nb", "step", "kl", "kl_se", "readings", "metric:a", "response_length", "a_se"])  # fmt: skip
KEYS = st.text(string.ascii_lowercase + "/_", min_size=1, max_size=12).filter(lambda key: key != PRIMARY)
METRIC_NAMES = KEYS | HOSTILE_NAMES | TEXTS
MOMENTS = st.datetimes(
    min_value=datetime(1990, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=9)), timezone(-timedelta(hours=3, minutes=30))]),
).map(lambda moment: moment.replace(fold=0))
FLOATS = st.floats(allow_nan=True, allow_infinity=True)
SIZES = st.floats(min_value=0, allow_infinity=True)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
SERIES = st.builds(
    KLSeries,
    kind=st.sampled_from(get_args(Kind)),
    estimator=st.sampled_from(get_args(Estimator)),
    unit=st.sampled_from(get_args(Unit)),
    aggregation=st.sampled_from(get_args(Aggregation)),
    direction=st.sampled_from(get_args(Direction)),
    temperature=st.none() | st.floats(0.01, 10),
    source_key=st.none() | TEXTS,
)


@dataclass(frozen=True)
class RecordedSteps:
    """A run and its steps, in order of segment and step."""

    run: Run
    steps: Sequence[StepRecord]


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """A run without an id, as a file holds one."""
    keys = draw(st.lists(KEYS | st.sampled_from(["kl_full", "kl_update", "a", "a_se"]), max_size=4, unique=True))
    return Run(
        id="",
        name=draw(TEXTS),
        started_at=draw(MOMENTS),
        status=draw(st.sampled_from(["running", "finished", "failed"])),
        finished_at=draw(st.none() | MOMENTS),
        algorithm=draw(st.none() | TEXTS),
        framework=draw(st.none() | TEXTS),
        policy=draw(st.none() | TEXTS),
        reference=draw(st.none() | st.builds(ReferenceModel, TEXTS, st.none() | st.just("sha256:" + "0a" * 32))),
        batch_size=draw(st.none() | st.integers(1, 1024)),
        beta=draw(st.none() | FLOATS),
        planned_steps=draw(st.none() | st.integers(0, 10**6)),
        series={key: draw(SERIES) for key in (PRIMARY, *keys)},
        config=draw(st.dictionaries(TEXTS, JSON_VALUES, max_size=3)),
        identity=draw(st.none() | st.dictionaries(TEXTS, JSON_VALUES, max_size=2)),
    )


@st.composite
def readings(draw: st.DrawFn, series: KLSeries, *, batch_size: int | None, length: float | None) -> KLReading:
    """A measured reading or one that says why it is none; often of the run's batch size and the step's length, as trainers log it."""
    n_sequences = draw(st.just(batch_size) | st.none() | st.integers(1, 512))
    mean_length = draw(st.just(length) | st.none() | FLOATS)
    error = draw(st.none() | SIZES)
    if draw(st.booleans()):
        return KLReading(series, draw(FLOATS), error, n_sequences, mean_length)
    reason = draw(TEXTS | st.just("the file has no kl for this step"))
    return KLReading(series, None, error, n_sequences, mean_length, not_measured=reason)


@st.composite
def steps(draw: st.DrawFn, run: Run, *, segment: int, step: int) -> StepRecord:
    """A step of a run."""
    length = draw(st.none() | st.floats(0.5, 4096))
    metrics = draw(st.dictionaries(METRIC_NAMES, FLOATS, max_size=4))
    if length is not None:
        metrics["response_length"] = length

    def read(key: str) -> KLReading:
        return draw(readings(run.series[key], batch_size=run.batch_size, length=length))

    return StepRecord(
        step=step,
        segment=segment,
        logged_at=draw(MOMENTS),
        kl=read(PRIMARY),
        beta=draw(st.none() | FLOATS),
        score=draw(st.none() | FLOATS),
        readings={key: read(key) for key in run.series if key != PRIMARY and draw(st.booleans())},
        metrics=metrics,
    )


@st.composite
def recorded_steps(draw: st.DrawFn, *, most_steps: int = 4) -> RecordedSteps:
    """A run with a few steps in a few segments."""
    run = draw(runs())
    places = sorted(draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**9)), max_size=most_steps, unique=True)))
    return RecordedSteps(run, tuple(draw(steps(run, segment=segment, step=step)) for segment, step in places))


def spell(value: Any) -> Any:
    """Records as data that compares as the bits do: NaN equals NaN, and 0.0 is not -0.0."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else struct.pack("d", value)
    if isinstance(value, dict):
        return {key: spell(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [spell(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: spell(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
