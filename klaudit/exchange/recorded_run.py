"""A run in a directory: steps, sampled texts, drift measurements and budgets, as the sample runs are kept.

| file | holds |
|---|---|
| `steps.jsonl` | the run and its steps, `klaudit-steps/1` |
| `samples.json` | sampled completions with per-token log-probabilities |
| `drift.json` | drift of the checkpoints, whose weights are not kept |
| `budgets.json` | the KL budgets that were set for it |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from klaudit.errors import InvalidStepsFile
from klaudit.exchange.steps_file import read_steps_file, write_steps_file
from klaudit.exchange.whole_file import write_whole
from klaudit.records import DriftMeasurement, KLBudget, Run, StepRecord, TextSample

R = TypeVar("R")
JSON = ConfigDict(ser_json_inf_nan="strings", extra="forbid")


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run as a directory holds it."""

    run: Run
    steps: Sequence[StepRecord]
    samples: Sequence[TextSample] = ()
    drift: Sequence[DriftMeasurement] = ()
    budgets: Sequence[KLBudget] = ()


def write_recorded_run(directory: Path, recorded: RecordedRun) -> None:
    """Write a run into a directory, made when it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    write_steps_file(directory / "steps.jsonl", run=recorded.run, steps=recorded.steps)
    _write_records(directory / "samples.json", recorded.samples, TextSample)
    _write_records(directory / "drift.json", recorded.drift, DriftMeasurement)
    _write_records(directory / "budgets.json", recorded.budgets, KLBudget)


def read_recorded_run(directory: Path) -> RecordedRun:
    """Read a run; files other than `steps.jsonl` may be missing.

    Raises:
        InvalidStepsFile: a file that cannot be read; the message names it, and the field.
    """
    steps_file = read_steps_file(directory / "steps.jsonl")
    return RecordedRun(
        run=steps_file.run,
        steps=steps_file.steps,
        samples=_read_records(directory / "samples.json", TextSample),
        drift=_read_records(directory / "drift.json", DriftMeasurement),
        budgets=_read_records(directory / "budgets.json", KLBudget),
    )


def _write_records(path: Path, records: Sequence[R], kind: type[R]) -> None:
    adapter = TypeAdapter(list[kind], config=JSON)  # type: ignore[valid-type]
    lines = (adapter.dump_json([record], exclude_none=True)[1:-1].decode() for record in records)
    with write_whole(path) as file:
        file.write("[\n" + ",\n".join(lines) + "\n]\n")


def _read_records(path: Path, kind: type[R]) -> tuple[R, ...]:
    if not path.exists():
        return ()
    try:
        return TypeAdapter(tuple[kind, ...], config=JSON).validate_json(path.read_bytes())  # type: ignore[valid-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidStepsFile(f"{path}, field {where!r}: {first['msg']}; got {first['input']!r:.80}") from error
