"""`klaudit-steps/1`: a header line, then one JSON line a step (DESIGN 6.3)."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from klaudit.errors import InvalidRecord, InvalidStepsFile
from klaudit.records import PRIMARY, KLReading, KLSeries, ReferenceModel, Run, StepRecord
from klaudit.records.non_finite import decode_float, encode_float

FORMAT = "klaudit-steps/1"
SE_SUFFIX = "_se"


@dataclass(frozen=True, slots=True)
class StepsFile:
    """A run and its steps, as a file holds them. The run's `id` is empty: a store gives it."""

    run: Run
    steps: tuple[StepRecord, ...]


def write_steps_file(path: Path, *, run: Run, steps: Iterable[StepRecord]) -> None:
    """Write a run; the file appears whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(_encode(_describe_run(run)) + "\n")
        for record in steps:
            file.write(_encode(_describe_step(record)) + "\n")
    part.replace(path)


def read_steps_file(path: Path) -> StepsFile:
    """Read a run.

    Raises:
        InvalidStepsFile: a line that cannot be read; the message names file, line and field.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidStepsFile(f"{path}: expected a {FORMAT} file in UTF-8; {error}") from error
    if not lines:
        raise InvalidStepsFile(f"{path}: expected a {FORMAT} header on line 1; the file is empty")
    header = _decode(lines[0], path=path, number=1)
    if header.get("format") != FORMAT:
        raise InvalidStepsFile(f'{path} line 1, field "format": expected "{FORMAT}"; got {header.get("format")!r}')
    run = _read_field(path, 1, "run", lambda: _read_run(header))
    steps = []
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            described = _decode(line, path=path, number=number)
            steps.append(_read_step(described, run=run, path=path, number=number))
    return StepsFile(run=run, steps=tuple(steps))


def _encode(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


def _decode(line: str, *, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidStepsFile(f"{path} line {number}: expected one JSON object; {error}") from error
    if not isinstance(value, dict):
        raise InvalidStepsFile(f"{path} line {number}: expected one JSON object; got {type(value).__name__}")
    return value


def _describe_series(series: KLSeries) -> dict[str, Any]:
    described = {field.name: getattr(series, field.name) for field in fields(series)}
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
            "config": dict(run.config) or None,
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


def _read_run(header: Mapping[str, Any]) -> Run:
    declared = header.get("run")
    if not isinstance(declared, dict) or not isinstance(declared.get("name"), str):
        raise TypeError(f'expected an object with a "name"; got {declared!r}')
    series = {PRIMARY: KLSeries(**header["kl"]) if "kl" in header else KLSeries(kind="unknown", direction="unknown")}
    series |= {key: KLSeries(**described) for key, described in header.get("series", {}).items()}
    finished_at = declared.get("finished_at")
    reference = declared.get("reference")
    return Run(
        id="",
        name=declared["name"],
        status=declared.get("status", "finished"),
        started_at=datetime.fromisoformat(declared["started_at"]) if "started_at" in declared else datetime.now(UTC),
        finished_at=datetime.fromisoformat(finished_at) if finished_at else None,
        algorithm=declared.get("algorithm"),
        framework=declared.get("framework"),
        policy=declared.get("policy"),
        reference=ReferenceModel(reference, declared.get("reference_digest")) if reference else None,
        batch_size=header.get("batch_size"),
        beta=decode_float(header["beta"]) if "beta" in header else None,
        planned_steps=header.get("planned_steps"),
        series=series,
        config=declared.get("config", {}),
    )


def _read_step(described: Mapping[str, Any], *, run: Run, path: Path, number: int) -> StepRecord:
    def take(name: str, convert: Any, default: Any = None) -> Any:
        if name not in described:
            return default
        return _read_field(path, number, name, lambda: convert(described[name]))

    if "step" not in described:
        raise InvalidStepsFile(f'{path} line {number}, field "step": expected a whole number; it is missing')
    metrics = take("metrics", lambda values: {name: decode_float(value) for name, value in values.items()}, {})
    length = metrics.get("response_length")
    mean_length = length if length is not None and math.isfinite(length) and length > 0 else None

    def read(key: str, value: float, error: float | None) -> KLReading:
        return KLReading(run.series[key], value, error, run.batch_size, mean_length)

    readings = {key: read(key, metrics.pop(key), metrics.pop(key + SE_SUFFIX, None)) for key in run.series if key in metrics}
    kl = take("kl", decode_float)
    absent = KLReading.absent(run.series[PRIMARY], "the file has no kl for this step")
    record: StepRecord = _read_field(
        path,
        number,
        "step",
        lambda: StepRecord(
            step=_require_whole(described["step"]),
            segment=take("segment", _require_whole, 0),
            logged_at=take("time", datetime.fromisoformat, run.started_at),
            kl=absent if kl is None else read(PRIMARY, kl, take("kl_se", decode_float)),
            readings=readings,
            beta=take("beta", decode_float),
            score=take("score", decode_float),
            metrics=metrics,
        ),
    )
    return record


def _require_whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected a whole number; got {value!r}")
    return value


def _read_field(path: Path, number: int, name: str, read: Any) -> Any:
    try:
        return read()
    except InvalidStepsFile:
        raise
    except (ValueError, TypeError, AttributeError, KeyError, InvalidRecord) as error:
        raise InvalidStepsFile(f'{path} line {number}, field "{name}": {error}') from error
