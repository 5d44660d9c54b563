"""One step as the rules see it: what several of them ask is worked out once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from klaudit.audit.change_watch import ChangeWatch, JumpOutcome, KLChange
from klaudit.frontier.point import read_d
from klaudit.records import PRIMARY, KLReading, Run, StepRecord
from klaudit.records.non_finite import encode_float

FARTHEST = 1e60
"""A number that is farther from zero counts as infinite: no training has it, and its powers are none."""
LONGEST = 1e7
"""Tokens; a mean length beyond is none."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One step of a run, and what the engine already knows of it."""

    record: StepRecord
    governing: KLReading | None
    """The governing reading with batch size and mean length filled in; None where no series governs or the step has no number."""
    non_finite: Mapping[str, str]
    """The step's numbers that are NaN or infinite, by name: `NaN`, `Infinity` or `-Infinity`."""
    d: float | None = None
    """Of the governing reading, in sqrt(nats); None where it cannot be had in nats per sequence."""
    change: KLChange | None = None
    """What has changed in the governing series at this step; None on a step whose KL is absent, NaN or infinite."""
    jump_outcome: JumpOutcome | None = None
    """What this step decided of the last jump."""

    @property
    def step(self) -> int:
        """The trainer's global step."""
        return self.record.step

    @property
    def segment(self) -> int:
        """The stretch of the run that the step is of."""
        return self.record.segment

    def number(self, name: str) -> float | None:
        """`beta`, `score` or a metric; None where it is absent, NaN or infinite."""
        if name == "beta":
            value = self.record.beta
        elif name == "score":
            value = self.record.score
        else:
            value = self.record.metrics.get(name)
        return value if value is None or not self.non_finite or math.isfinite(value) else None


def observe_record(record: StepRecord, *, run: Run, governing_key: str | None, changes: ChangeWatch) -> Observation:
    """A step as the rules see it; `changes` takes in its governing reading."""
    wild = list_wild(record)
    if wild:
        record = bound_record(record)
    governing = None if governing_key is None else complete_reading(record, key=governing_key, run=run)
    if governing is not None and governing.value is None:
        governing = None
    change, outcome = changes.observe(governing, step=record.step)
    return Observation(
        record=record,
        governing=governing,
        non_finite=name_non_finite(record, names=wild, first=governing_key or PRIMARY) if wild else {},
        d=read_d(governing),
        change=change,
        jump_outcome=outcome,
    )


def list_wild(record: StepRecord) -> list[str]:
    """Names of a step's numbers that are NaN, infinite, or too large for their squares to be numbers."""
    values = (*record.metrics.values(), record.kl.value, record.beta, record.score)
    total = sum(map(abs, filter(None, values)))
    for reading in record.readings.values():
        total += abs(reading.value or 0.0)
    # True of all but the rarest steps, and never of one with a NaN or an infinity in it.
    if total < FARTHEST:
        return []
    numbers = [("beta", record.beta), ("score", record.score), (PRIMARY, record.kl.value)]
    numbers += [(key, reading.value) for key, reading in record.readings.items()]
    wild = [name for name, number in numbers if number is not None and not -FARTHEST < number < FARTHEST]
    wild += [name for name, number in record.metrics.items() if not -FARTHEST < number < FARTHEST]
    return wild


def bound_record(record: StepRecord) -> StepRecord:
    """The record with numbers that are too large as the infinities that they as good as are."""
    return replace(
        record,
        kl=_bound_reading(record.kl),
        beta=None if record.beta is None else _bound(record.beta),
        score=None if record.score is None else _bound(record.score),
        readings={key: _bound_reading(reading) for key, reading in record.readings.items()},
        metrics={name: _bound(number) for name, number in record.metrics.items()},
    )


def name_non_finite(record: StepRecord, *, names: list[str], first: str) -> Mapping[str, str]:
    """Which kind of number each of the names is; the series `first` leads."""
    kinds: dict[str, str] = {}
    fields = {"beta": record.beta, "score": record.score}
    for name in sorted(names, key=lambda one: one != first):
        reading = record.reading(name)
        # A metric may be called as a field or a reading is.
        numbers = (fields.get(name), None if reading is None else reading.value, record.metrics.get(name))
        kinds[name] = next(str(encode_float(number)) for number in numbers if number is not None and not math.isfinite(number))
    return kinds


def _bound(number: float) -> float:
    return number if -FARTHEST < number < FARTHEST or number != number else math.copysign(math.inf, number)  # noqa: PLR0124


def _bound_reading(reading: KLReading) -> KLReading:
    return reading if reading.value is None else replace(reading, value=_bound(reading.value))


def complete_reading(record: StepRecord, *, key: str, run: Run) -> KLReading | None:
    """A step's reading, with batch size and mean length from run and metrics where the reading does not carry them itself."""
    reading = record.reading(key)
    if reading is None or reading.value is None:
        return reading
    n_sequences = reading.n_sequences or run.batch_size
    length = reading.mean_length or record.metrics.get("response_length")
    mean_length = length if length is not None and 0 < length < LONGEST else None
    if n_sequences == reading.n_sequences and mean_length == reading.mean_length:
        return reading
    return KLReading(reading.series, reading.value, reading.standard_error, n_sequences, mean_length)
