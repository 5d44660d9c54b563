import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from klaudit.errors import InvalidStepsFile
from klaudit.exchange import read_steps_file, write_steps_file
from klaudit.records import KLReading, KLSeries, ReferenceModel, Run
from klaudit.records.non_finite import encode_float
from tests.exchange.strategies import RecordedSteps, recorded_steps, spell

# The format's own example, each of its two records on one line.
EXAMPLE = """\
{"format": "klaudit-steps/1", "run": {"name": "demo", "algorithm": "ppo", "framework": "klaudit", "policy": "SmolLM2-135M-Instruct", "reference": "SmolLM2-135M-Instruct"}, "kl": {"kind": "reference", "estimator": "k1", "unit": "nats_per_sequence", "aggregation": "batch_mean", "temperature": 1.0}, "series": {"kl_full": {"kind": "reference", "estimator": "full", "unit": "nats_per_sequence", "aggregation": "batch_mean"}, "kl_update": {"kind": "update", "estimator": "k2", "unit": "nats_per_token", "aggregation": "batch_mean"}}, "batch_size": 64, "beta": 0.05, "planned_steps": 500}
{"step": 1, "segment": 0, "time": "2026-11-22T10:00:00Z", "kl": 0.02, "beta": 0.05, "score": 0.31, "metrics": {"kl_full": 0.018, "kl_full_se": 0.001, "kl_update": 0.004, "entropy": 2.1, "clip_fraction": 0.02, "response_length": 24.0, "heldout_score": 0.3, "kl_penalty": 0.001, "rlhf_reward": 0.309}}
"""
HEADER, STEP = (json.loads(line) for line in EXAMPLE.splitlines())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(recorded=recorded_steps())
def test_a_run_comes_back_with_every_number_and_every_label(tmp_path: Path, recorded: RecordedSteps) -> None:
    path = tmp_path / "steps.jsonl"
    write_steps_file(path, run=recorded.run, steps=recorded.steps)
    file = read_steps_file(path)
    assert spell(RecordedSteps(file.run, file.steps)) == spell(recorded)


def test_a_name_may_hold_what_other_formats_take_for_the_end_of_a_line(tmp_path: Path) -> None:
    run = Run("", "a\u2028b\x85c\x1cd\r\n", datetime(2026, 11, 22, tzinfo=UTC), series={"kl": KLSeries()})
    write_steps_file(tmp_path / "s.jsonl", run=run, steps=[])
    assert read_steps_file(tmp_path / "s.jsonl").run == run


def write_lines(path: Path, *objects: Any) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in objects), encoding="utf-8")
    return path


def test_the_example_of_the_format_reads(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text(EXAMPLE, encoding="utf-8")
    run, (step,) = (file := read_steps_file(path)).run, file.steps
    assert (run.name, run.algorithm, run.framework, run.policy) == ("demo", "ppo", "klaudit", "SmolLM2-135M-Instruct")
    assert run.reference == ReferenceModel("SmolLM2-135M-Instruct")
    assert (run.batch_size, run.beta, run.planned_steps) == (64, 0.05, 500)
    assert run.governing_key == "kl_full"
    moment = datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert (step.step, step.segment, step.logged_at, step.beta, step.score) == (1, 0, moment, 0.05, 0.31)
    assert step.kl == KLReading(KLSeries("reference", "k1", "nats_per_sequence", "batch_mean", temperature=1.0), 0.02, None, 64, 24.0)
    full = KLSeries("reference", "full", "nats_per_sequence", "batch_mean")
    assert step.readings["kl_full"] == KLReading(full, 0.018, 0.001, 64, 24.0)
    assert step.readings["kl_update"].value == 0.004
    assert step.metrics == {
        "entropy": 2.1, "clip_fraction": 0.02, "response_length": 24.0, "heldout_score": 0.3, "kl_penalty": 0.001, "rlhf_reward": 0.309
    }  # fmt: skip


def test_format_name_and_step_are_enough_and_what_is_not_declared_is_unknown(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "s.jsonl", {"format": "klaudit-steps/1", "run": {"name": "a"}}, {"step": 1, "kl": 0.5}, {"step": 2})
    file = read_steps_file(path)
    assert [step.kl.value for step in file.steps] == [0.5, None]
    series = file.steps[0].kl.series
    assert (series.kind, series.estimator, series.unit, series.direction) == ("unknown", "unknown", "unknown", "unknown")
    assert file.run.governing_key is None


def test_a_run_that_does_not_say_when_it_began_began_with_its_first_step(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "s.jsonl", HEADER, STEP)
    assert read_steps_file(path).run.started_at == datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.mark.parametrize(("spelled", "value"), [("NaN", math.nan), ("Infinity", math.inf), ("-Infinity", -math.inf)])
def test_non_finite_numbers_are_strings_in_the_file(tmp_path: Path, spelled: str, value: float) -> None:
    path = write_lines(tmp_path / "s.jsonl", HEADER, {"step": 1, "kl": spelled, "score": spelled, "metrics": {"entropy": spelled}})
    (step,) = read_steps_file(path).steps
    assert [encode_float(number) for number in (step.kl.value, step.score, step.metrics["entropy"])] == [spelled] * 3
    copy = tmp_path / "copy.jsonl"
    write_steps_file(copy, run=read_steps_file(path).run, steps=[step])
    assert json.loads(copy.read_text().splitlines()[1])["kl"] == spelled
    assert encode_float(value) == spelled


BAD_STEPS: dict[str, tuple[dict[str, Any], str]] = {
    "no step": ({"kl": 0.1}, "step"),
    "a step that is a fraction": ({"step": 1.5}, "step"),
    "a negative step": ({"step": -1}, "step"),
    "a step beyond every database": ({"step": 2**63}, "step"),
    "a step that is a boolean": ({"step": True}, "step"),
    "the step of an earlier line": ({"step": 1}, "step"),
    "a segment that is a word": ({"step": 2, "segment": "last"}, "segment"),
    "a kl that is a word": ({"step": 2, "kl": "high"}, "kl"),
    "a kl too large for a float": ({"step": 2, "kl": 10**400}, "kl"),
    "a negative standard error": ({"step": 2, "kl": 0.1, "kl_se": -1}, "kl"),
    "a negative standard error of another series": ({"step": 2, "metrics": {"kl_full": 0.1, "kl_full_se": -1}}, "metrics.kl_full"),
    "a beta that is a list": ({"step": 2, "beta": []}, "beta"),
    "a score that is a boolean": ({"step": 2, "score": True}, "score"),
    "a metric that is a word": ({"step": 2, "metrics": {"entropy": "low"}}, "metrics.entropy"),
    "metrics that are no object": ({"step": 2, "metrics": [1]}, "metrics"),
    "a time without a zone": ({"step": 2, "time": "2026-11-22T10:00:00"}, "time"),
    "a time that is none": ({"step": 2, "time": "yesterday"}, "time"),
}


@pytest.mark.parametrize("what", BAD_STEPS)
def test_a_bad_step_is_named_by_file_line_and_field(tmp_path: Path, what: str) -> None:
    line, field = BAD_STEPS[what]
    path = write_lines(tmp_path / "s.jsonl", HEADER, STEP, line)
    with pytest.raises(InvalidStepsFile) as caught:
        read_steps_file(path)
    assert str(caught.value).startswith(f'{path} line 3, field "{field}": ')
    assert "\n" not in str(caught.value)


BAD_HEADERS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another format": (lambda header: header.update(format="klaudit-steps/2"), "format"),
    "no format": (lambda header: header.pop("format"), "format"),
    "no run": (lambda header: header.pop("run"), "run.name"),
    "a run without a name": (lambda header: header["run"].pop("name"), "run.name"),
    "a name that is blank": (lambda header: header["run"].update(name=" "), "run"),
    "a name that is a number": (lambda header: header["run"].update(name=5), "run.name"),
    "a status that is none": (lambda header: header["run"].update(status="lost"), "run"),
    "a kl of unknown estimator": (lambda header: header["kl"].update(estimator="k4"), "kl"),
    "a kl with a key that does not exist": (lambda header: header["kl"].update(sign=1), "kl"),
    "a series that is no object": (lambda header: header["series"].update(kl_full="full"), "series.kl_full"),
    "a batch of none": (lambda header: header.update(batch_size=0), "run"),
    "a batch size that is a word": (lambda header: header.update(batch_size="64"), "batch_size"),
    "a beta that is a word": (lambda header: header.update(beta="small"), "beta"),
}


@pytest.mark.parametrize("what", BAD_HEADERS)
def test_a_bad_header_is_named_by_file_line_and_field(tmp_path: Path, what: str) -> None:
    spoil, field = BAD_HEADERS[what]
    header = json.loads(json.dumps(HEADER))
    spoil(header)
    path = write_lines(tmp_path / "s.jsonl", header, STEP)
    with pytest.raises(InvalidStepsFile) as caught:
        read_steps_file(path)
    assert str(caught.value).startswith(f'{path} line 1, field "{field}": ')


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"\n \n", "the file is empty"),
        (b'{"format": "klaudit-steps/1", "run"\n', "line 1: expected one JSON object"),
        (b"[1, 2]\n", "line 1: expected one JSON object"),
        (b"\xff\xfe\x00", "expected a klaudit-steps/1 file in UTF-8"),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidStepsFile, match=said) as caught:
        read_steps_file(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidStepsFile, match="nowhere"):
        read_steps_file(tmp_path / "nowhere.jsonl")


def test_a_file_that_cannot_be_written_whole_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(EXAMPLE, encoding="utf-8")
    file = read_steps_file(path)
    with pytest.raises(UnicodeEncodeError):
        write_steps_file(path, run=replace(file.run, name="\ud800"), steps=file.steps)
    assert path.read_text(encoding="utf-8") == EXAMPLE
    assert list(tmp_path.iterdir()) == [path]
