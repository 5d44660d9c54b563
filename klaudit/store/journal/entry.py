"""Entries of a journal: a kind and its content, as JSON."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from klaudit.errors import InvalidJournal, InvalidRecord
from klaudit.records import PRIMARY, UNDECLARED, KLReading, KLSeries, LoggedStep, StepRecord, TextSample, TokenScore
from klaudit.records.session import Session

STEPS = ("step", "numbers")
"""Kinds of entries that are steps."""

Entry = tuple[Any, ...]
"""A kind and its content, as JSON has them: see `encode_step`."""


def encode_session(session: Session) -> Entry:
    """The entry that a journal begins with."""
    return ("session", *_adapt_session().dump_python((session,), mode="json"))


def decode_session(entry: Entry) -> Session:
    """The session of a journal's first entry."""
    (session,) = _adapt_session().validate_python(entry[1:])
    return session


def encode_series(series: Mapping[str, KLSeries]) -> Entry:
    """What KLs are from here on."""
    return ("series", {key: _adapt_series().dump_python(one, mode="json") for key, one in series.items()})


def decode_series(entry: Entry) -> dict[str, KLSeries]:
    """The series of an entry, by key."""
    return {key: _adapt_series().validate_python(one) for key, one in entry[1].items()}


def encode_step(record: StepRecord, samples: Sequence[TextSample]) -> Entry:
    """A step, its readings without their series, which went before."""
    return (
        "step",
        record.step,
        record.logged_at.isoformat(),
        _encode_reading(record.kl),
        record.beta,
        record.score,
        {key: _encode_reading(one) for key, one in record.readings.items()},
        record.metrics if type(record.metrics) is dict else dict(record.metrics),
        [_encode_sample(one) for one in samples],
    )


def encode_numbers(
    step: int, *, kl: float | None, n_sequences: int | None, beta: float | None, score: float | None, metrics: Mapping[str, float] | None
) -> Entry:
    """A step of bare numbers, now."""
    return ("numbers", step, time.time_ns(), kl, n_sequences, beta, score, dict(metrics) if metrics else {})


def decode_step(entry: Entry, *, segment: int, series: Mapping[str, KLSeries]) -> LoggedStep:
    """The step of an entry, in the segment that its session got.

    Raises:
        InvalidRecord: numbers that are none.
        InvalidJournal: an entry of another shape.
    """
    try:
        if entry[0] == "numbers":
            return LoggedStep(_decode_numbers(entry, segment=segment, series=series.get(PRIMARY, UNDECLARED)))
        return _decode_step(entry, segment=segment, series=series)
    except InvalidRecord:
        raise
    except (TypeError, ValueError) as error:
        raise InvalidJournal(
            f"expected a {entry[0]!r} entry with the columns that klaudit knows; got one of a newer klaudit ({error}). Upgrade it"
        ) from error


def _decode_step(entry: Entry, *, segment: int, series: Mapping[str, KLSeries]) -> LoggedStep:
    _, step, logged_at, kl, beta, score, readings, metrics, samples = entry
    record = StepRecord(
        step=step,
        kl=KLReading(series.get("kl", UNDECLARED), *kl),
        logged_at=datetime.fromisoformat(logged_at),
        segment=segment,
        beta=beta,
        score=score,
        readings={key: KLReading(series.get(key, UNDECLARED), *one) for key, one in readings.items()},
        metrics=metrics,
    )
    return LoggedStep(record, tuple(_decode_sample(one, step=step, segment=segment) for one in samples))


def _decode_numbers(entry: Entry, *, segment: int, series: KLSeries) -> StepRecord:
    _, step, time_ns, kl, n_sequences, beta, score, given = entry
    try:
        metrics = {name: float(value) for name, value in given.items()}
        if kl is None:
            reading = KLReading.absent(series, "the loop gave no kl at this step")
        else:
            reading = KLReading(series, float(kl), None, n_sequences, metrics.get("response_length"))
        return StepRecord(
            step=step,
            kl=reading,
            logged_at=datetime.fromtimestamp(time_ns / 1e9, UTC),
            segment=segment,
            beta=None if beta is None else float(beta),
            score=None if score is None else float(score),
            metrics=metrics,
        )
    except (TypeError, ValueError) as error:
        raise InvalidRecord(f"step {step}: expected numbers; {error}") from error


def _encode_reading(reading: KLReading) -> tuple[Any, ...]:
    return (reading.value, reading.standard_error, reading.n_sequences, reading.mean_length, reading.not_measured)


def _encode_sample(sample: TextSample) -> tuple[Any, ...]:
    tokens = [(one.text, one.policy_logprob, one.reference_logprob, one.kl) for one in sample.tokens]
    return (sample.prompt, sample.completion, tokens, sample.index, sample.score)


def _decode_sample(columns: Sequence[Any], *, step: int, segment: int) -> TextSample:
    prompt, completion, tokens, index, score = columns
    return TextSample(step, prompt, completion, tuple(TokenScore(*one) for one in tokens), segment, index, score)


@cache
def _adapt_session() -> TypeAdapter[tuple[Session]]:
    return TypeAdapter(tuple[Session], config=ConfigDict(ser_json_inf_nan="constants"))


@cache
def _adapt_series() -> TypeAdapter[KLSeries]:
    return TypeAdapter(KLSeries)
