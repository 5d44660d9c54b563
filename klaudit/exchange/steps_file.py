"""`klaudit-steps/1`: a header line, then one JSON line a step (DESIGN 6.3)."""

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
        file.write(_encode(_describe_run(run)) + "\n")
        for record in steps:
            file.write(_encode(_describe_step(record)) + "\n")


def read_steps_file(path: Path) -> StepsFile:
    """Read a run. One that does not say when it began, began with its first step.

    Raises:
        InvalidStepsFile: a line that cannot be read; the message names file, line and field.
    """
    header, *lines = _read_lines(path)
    if header.content.get("format") != FORMAT:
        raise header.refuse("format", f'expected "{FORMAT}"; got {header.content.get("format")!r}')
    first_time = lines[0].take("time", _read_time) if lines else None
    run = _read_run(header, began_at=first_time or datetime.fromtimestamp(path.stat().st_mtime, UTC))
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


def _encode(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


def _describe_series(series: KLSeries) -> dict[str, Any]:
    described = {name: getattr(series, name) for name in SERIES_FIELDS}
    return {name: value for name, value in described.items() if value is not None}


def _describe_run(run: Run) -> dict[str, Any]:
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


def _describe_step(record: StepRecord) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for key, reading in record.readings.items():
        if reading.value is not None:
            metrics[key] = encode_float(reading.value)
            if reading.standard_error is not None:
                metrics[key + SE_SUFFIX] = encode_float(reading.standard_error)
    metrics.update({name: encode_float(value) for name, value in record.metrics.items()})
    described = {
        "step": record.step,
        "segment": record.segment,
        "time": record.logged_at.isoformat(),
        "kl": encode_float(record.kl.value),
        "kl_se": encode_float(record.kl.standard_error),
        "beta": encode_float(record.beta),
        "score": encode_float(record.score),
        "metrics": metrics or None,
    }
    return {name: value for name, value in described.items() if value is not None}


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
        )


def _read_step(line: _Object, *, run: Run) -> StepRecord:
    step = line.take("step", _require_whole)
    if step is None:
        raise line.refuse("step", "expected a whole number; it is missing")
    given = line.enter("metrics")
    metrics = {name: value for name in given.content if (value := given.take(name, decode_float)) is not None}
    length = metrics.get("response_length")
    mean_length = length if length is not None and 0 < length < math.inf else None

    def read(key: str, value: float, error: float | None) -> KLReading:
        return KLReading(run.series[key], value, error, run.batch_size, mean_length)

    readings = {}
    for key in run.series:
        if key in metrics:
            with given.reading(key):
                readings[key] = read(key, metrics.pop(key), metrics.pop(key + SE_SUFFIX, None))
    with line.reading("kl"):
        value = line.take("kl", decode_float)
        absent = KLReading.absent(run.series[PRIMARY], "the file has no kl for this step")
        kl = absent if value is None else read(PRIMARY, value, line.take("kl_se", decode_float))
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
