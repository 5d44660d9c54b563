"""`klaudit-steps/1`: a header line, then one JSON line a step."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from klaudit.errors import InvalidStepsFile
from klaudit.exchange.whole_file import write_whole
from klaudit.records import PRIMARY, UNDECLARED, KLReading, KLSeries, ReferenceModel, Run, StepRecord
from klaudit.records.non_finite import decode_float, encode_float, encode_json

FORMAT = "klaudit-steps/1"
SE_SUFFIX = "_se"
NO_KL = "the file has no kl for this step"
SERIES_FIELDS = tuple(field.name for field in fields(KLSeries))
LARGEST_STEP = 2**63 - 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StepsFile:
    """A run and its steps, as a file holds them. The run's `id` is empty: a store gives it."""

    run: Run
    steps: tuple[StepRecord, ...]


def write_steps_file(path: Path, *, run: Run, steps: Iterable[StepRecord]) -> None:
    """Write a run; the file appears whole or not at all."""
    with write_whole(path) as file:
        file.writelines(format_lines(run, steps))


def format_lines(run: Run, steps: Iterable[StepRecord]) -> Iterator[str]:
    """The lines of the file, each with its end."""
    yield encode_line(describe_run(run)) + "\n"
    for record in steps:
        yield encode_line(describe_step(record, run=run)) + "\n"


def read_run(content: Mapping[str, Any], where: str, *, began_at: datetime) -> Run:
    """The run that a header describes.

    Args:
        content: the header.
        where: it stands, for errors.
        began_at: when the run began, where the header does not say.

    Raises:
        InvalidStepsFile: a field that cannot be read.
    """
    header = _Object(content, where)
    if content.get("format") != FORMAT:
        raise header.refuse("format", f'expected "{FORMAT}"; got {content.get("format")!r}')
    return _read_run(header, began_at=began_at)


def read_step(content: Mapping[str, Any], where: str, *, run: Run) -> StepRecord:
    """The step that a line's object describes.

    Raises:
        InvalidStepsFile: a field that cannot be read.
    """
    return _read_step(_Object(content, where), run=run)


def read_steps_file(path: Path) -> StepsFile:
    """Read a run. One that does not say when it began, began with its first step.

    Raises:
        InvalidStepsFile: a line that cannot be read; the message names file, line and field.
    """
    header, *lines = _read_lines(path)
    first_time = lines[0].take("time", _read_time) if lines else None
    run = read_run(header.content, header.where, began_at=first_time or datetime.fromtimestamp(path.stat().st_mtime, UTC))
    steps: dict[tuple[int, int], StepRecord] = {}
    for line in lines:
        step = _read_step(line, run=run)
        if (step.segment, step.step) in steps:
            raise line.refuse("step", f"expected each step once; segment {step.segment} has step {step.step} on an earlier line too")
        steps[step.segment, step.step] = step
    return StepsFile(run=run, steps=tuple(steps.values()))


@dataclass(frozen=True, slots=True)
class _Object:
    """A JSON object of the file, and where it stands."""

    content: Mapping[str, Any]
    where: str
    inside: str = ""
    """The field that it is the value of, with a dot."""

    def refuse(self, field: str, why: object) -> InvalidStepsFile:
        return InvalidStepsFile(f'{self.where}, field "{self.inside}{field}": {why}')

    @contextmanager
    def reading(self, field: str) -> Iterator[None]:
        """Say of every error inside where it arose."""
        try:
            yield
        except InvalidStepsFile:
            raise
        except (ValueError, TypeError, OverflowError) as error:
            raise self.refuse(field, error) from error

    def take(self, field: str, read: Callable[[Any], T]) -> T | None:
        """A field's value; None where the field is missing or null."""
        value = self.content.get(field)
        if value is None:
            return None
        with self.reading(field):
            return read(value)

    def enter(self, field: str) -> "_Object":
        """The object that a field holds; an empty one where the field is missing."""
        return _Object(self.take(field, _require_object) or {}, self.where, f"{self.inside}{field}.")


def _read_lines(path: Path) -> list[_Object]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidStepsFile(f"{path}: expected a {FORMAT} file in UTF-8; {error}") from error
    # Not splitlines(): it also breaks at characters that JSON allows inside a string.
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not numbered:
        raise InvalidStepsFile(f"{path}: expected a {FORMAT} header on line 1; the file is empty")
    return [_Object(_decode(line, where=f"{path} line {number}"), f"{path} line {number}") for number, line in numbered]


def _decode(line: str, *, where: str) -> dict[str, Any]:
    try:
        return _require_object(json.loads(line))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidStepsFile(f"{where}: expected one JSON object; {error}") from error


def encode_line(value: Mapping[str, Any]) -> str:
    """A JSON object on one line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


def _describe_series(series: KLSeries) -> dict[str, Any]:
    described = {name: getattr(series, name) for name in SERIES_FIELDS}
    return {name: value for name, value in described.items() if value is not None}


def describe_run(run: Run) -> dict[str, Any]:
    """The header of a run."""
    header: dict[str, Any] = {
        "format": FORMAT,
        "run": {
            "name": run.name,
            "algorithm": run.algorithm,
            "framework": run.framework,
            "policy": run.policy,
            "reference": run.reference.name if run.reference else None,
            "reference_digest": run.reference.digest if run.reference else None,
            "status": run.status,
            "started_at": run.started_at.isoformat(),
            "finished_at": run.finished_at.isoformat() if run.finished_at else None,
            "config": encode_json(dict(run.config)) or None,
            "identity": encode_json(dict(run.identity)) if run.identity is not None else None,
        },
        "series": {key: _describe_series(series) for key, series in run.series.items() if key != PRIMARY},
        "batch_size": run.batch_size,
        "beta": encode_float(run.beta),
        "planned_steps": run.planned_steps,
    }
    if PRIMARY in run.series:
        header["kl"] = _describe_series(run.series[PRIMARY])
    header["run"] = {name: value for name, value in header["run"].items() if value is not None}
    return {name: value for name, value in header.items() if value not in (None, {})}


def describe_step(record: StepRecord, *, run: Run) -> dict[str, Any]:
    """The JSON object of one step of a run.

    What a reading is beyond value and standard error follows from the header and from the metric `response_length`; where it does not,
    `readings` says it.
    """
    described: dict[str, Any] = {"step": record.step, "segment": record.segment, "time": record.logged_at.isoformat()}
    metrics: dict[str, Any] = {}
    said: dict[str, Any] = {key: None for key in run.series if key != PRIMARY and key in record.metrics and key not in record.readings}
    for key, reading in ((PRIMARY, record.kl), *record.readings.items()):
        stands_beside = reading.value is not None and _is_unambiguous(key, record, run)
        if stands_beside:
            numbers = {key: reading.value, key + SE_SUFFIX: reading.standard_error}
            beside = described if key == PRIMARY else metrics
            beside.update({name: encode_float(number) for name, number in numbers.items() if number is not None})
        if not stands_beside or reading != _infer_reading(run, key, record.metrics, reading.value, reading.standard_error):
            said[key] = _describe_reading(reading, with_numbers=not stands_beside)
    if said.get(PRIMARY) == {"not_measured": NO_KL}:
        del said[PRIMARY]
    described |= {
        "beta": encode_float(record.beta),
        "score": encode_float(record.score),
        "metrics": metrics | {name: encode_float(value) for name, value in record.metrics.items()} or None,
        "readings": said or None,
    }
    return {name: value for name, value in described.items() if value is not None}


def _is_unambiguous(key: str, record: StepRecord, run: Run) -> bool:
    """Whether a reading's numbers can stand among the step's metrics: nothing else there bears their names."""
    if key == PRIMARY:
        return True
    taken = record.metrics.keys() | run.series.keys()
    return key in run.series and not key.endswith(SE_SUFFIX) and key not in record.metrics and key + SE_SUFFIX not in taken


def _describe_reading(reading: KLReading, *, with_numbers: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "n_sequences": reading.n_sequences,
        "mean_length": encode_float(reading.mean_length),
        "not_measured": reading.not_measured,
    }
    if with_numbers:
        described |= {"value": encode_float(reading.value), "standard_error": encode_float(reading.standard_error)}
    return {name: value for name, value in described.items() if value is not None}


def _infer_reading(run: Run, key: str, metrics: Mapping[str, float], value: float | None, error: float | None) -> KLReading:
    """The reading that a value and its standard error are, where the step says nothing more of it."""
    series = run.series.get(key, UNDECLARED)
    if value is None:
        return KLReading.absent(series, NO_KL)
    length = metrics.get("response_length")
    return KLReading(series, value, error, run.batch_size, length if length is not None and 0 < length < math.inf else None)


def _read_run(header: _Object, *, began_at: datetime) -> Run:
    declared, series = header.enter("run"), header.enter("series")
    name = declared.take("name", _require_text)
    if name is None:
        raise declared.refuse("name", "expected the run's name; it is missing")
    reference = declared.take("reference", _require_text)
    with header.reading("run"):
        return Run(
            id="",
            name=name,
            status=declared.content.get("status", "finished"),
            started_at=declared.take("started_at", _read_time) or began_at,
            finished_at=declared.take("finished_at", _read_time),
            algorithm=declared.take("algorithm", _require_text),
            framework=declared.take("framework", _require_text),
            policy=declared.take("policy", _require_text),
            reference=ReferenceModel(reference, declared.take("reference_digest", _require_text)) if reference else None,
            batch_size=header.take("batch_size", _require_whole),
            beta=header.take("beta", decode_float),
            planned_steps=header.take("planned_steps", _require_whole),
            series={PRIMARY: header.take(PRIMARY, _read_series) or UNDECLARED}
            | {key: series.take(key, _read_series) or UNDECLARED for key in series.content},
            config=declared.take("config", _require_object) or {},
            identity=declared.take("identity", _require_object),
        )


def _read_step(line: _Object, *, run: Run) -> StepRecord:
    step = line.take("step", _require_whole)
    if step is None:
        raise line.refuse("step", "expected a whole number; it is missing")
    given, said = line.enter("metrics"), line.enter("readings")
    metrics = {name: value for name in given.content if (value := given.take(name, decode_float)) is not None}
    beside = {
        key: (metrics.pop(key), metrics.pop(key + SE_SUFFIX, None))
        for key in run.series
        if key != PRIMARY and key in metrics and _takes_numbers_beside(said, key)
    }
    readings = {}
    for key in dict.fromkeys((*beside, *said.content)):
        if key != PRIMARY and said.content.get(key, {}) is not None:
            with (said if key in said.content else given).reading(key):
                readings[key] = _read_reading(said, key, run, metrics, *beside.get(key, (None, None)))
    with line.reading(PRIMARY):
        kl = _read_reading(said, PRIMARY, run, metrics, line.take(PRIMARY, decode_float), line.take(PRIMARY + SE_SUFFIX, decode_float))
    with line.reading("metrics"):
        return StepRecord(
            step=step,
            segment=line.take("segment", _require_whole) or 0,
            logged_at=line.take("time", _read_time) or run.started_at,
            kl=kl,
            readings=readings,
            beta=line.take("beta", decode_float),
            score=line.take("score", decode_float),
            metrics=metrics,
        )


def _takes_numbers_beside(said: _Object, key: str) -> bool:
    """Whether a reading's numbers stand among the metrics: `readings` does not give them, nor says that there are none."""
    entry = said.content.get(key, {})
    return isinstance(entry, dict) and not {"value", "not_measured"} & entry.keys()


def _read_reading(said: _Object, key: str, run: Run, metrics: Mapping[str, float], value: float | None, error: float | None) -> KLReading:
    if key not in said.content:
        return _infer_reading(run, key, metrics, value, error)
    entry = said.enter(key)
    return KLReading(
        series=run.series.get(key, UNDECLARED),
        value=entry.take("value", decode_float) if value is None else value,
        standard_error=entry.take("standard_error", decode_float) if error is None else error,
        n_sequences=entry.take("n_sequences", _require_whole),
        mean_length=entry.take("mean_length", decode_float),
        not_measured=entry.take("not_measured", _require_text),
    )


def _read_series(described: Any) -> KLSeries:
    unknown = sorted(_require_object(described).keys() - set(SERIES_FIELDS))
    if unknown:
        raise ValueError(f"unknown key {', '.join(map(repr, unknown))}; known are {', '.join(SERIES_FIELDS)}")
    return KLSeries(**described)


def _read_time(value: Any) -> datetime:
    moment = datetime.fromisoformat(_require_text(value))
    if moment.tzinfo is None:
        raise ValueError(f"expected a time with its zone, such as 2026-11-22T10:00:00Z; got {value!r}")
    return moment


def _require_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object; got {value!r:.80}")
    return value


def _require_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string; got {value!r:.80}")
    return value


def _require_whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_STEP:
        raise TypeError(f"expected a whole number, 0 or more; got {value!r:.80}")
    return value
