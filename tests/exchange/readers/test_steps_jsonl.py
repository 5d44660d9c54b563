import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from klaudit.errors import InvalidStepsFile
from tests.exchange.readers.reading import describe, read_one, write

HEADER = {
    "format": "klaudit-steps/1",
    "run": {"name": "demo", "algorithm": "ppo", "framework": "klaudit"},
    "kl": {"kind": "reference", "estimator": "k1", "unit": "nats_per_sequence"},
    "batch_size": 8,
}


def write_lines(path: Path, *lines: Any) -> Path:
    return write(path, "".join(json.dumps(line) + "\n" for line in lines))


def test_a_run_is_read_line_by_line_with_its_labels(tmp_path: Path) -> None:
    steps = [{"step": 5, "time": "2026-11-22T10:00:00Z", "kl": 0.1}, {"step": 6, "kl": "NaN"}, {"step": 6, "segment": 1, "kl": 0.2}]
    read = read_one(write_lines(tmp_path / "s.jsonl", HEADER, *steps))
    assert (read.format_name, read.run.name, read.run.batch_size, read.run.framework) == ("steps-jsonl", "demo", 8, "klaudit")
    assert describe(read.run.series) == {"kl": ("reference", "k1", "nats_per_sequence")}
    assert (read.places, repr(read.kls)) == ([(0, 5), (0, 6), (1, 6)], "[0.1, nan, 0.2]")
    assert read.run.started_at == read.steps[0].logged_at == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert read.steps[0].kl.n_sequences == 8
    assert read_one(tmp_path / "s.jsonl", name="mine").run.name == "mine"


def test_a_run_without_steps_is_a_run(tmp_path: Path) -> None:
    read = read_one(write_lines(tmp_path / "s.jsonl", HEADER))
    assert (read.run.name, read.steps) == ("demo", ())


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{**HEADER, "format": "klaudit-steps/2"}], 'line 1, field "format": expected "klaudit-steps/1"'),
        ([{**HEADER, "run": {}}], 'line 1, field "run.name"'),
        ([HEADER, {"kl": 1}], 'line 2, field "step"'),
        ([HEADER, {"step": 1}, {"step": 1}], 'line 3, field "step": expected steps that go up, each once; segment 0, step 1 comes after'),
        ([HEADER, {"step": 2}, {"step": 1}], 'line 3, field "step": expected steps that go up'),
        ([HEADER, {"step": 1, "segment": 1}, {"step": 2}], 'line 3, field "step": expected steps that go up'),
        ([HEADER, {"step": 1}, [2]], "line 3: expected one JSON object; got [2]"),
        ([HEADER, {"step": 1, "metrics": {"entropy": "low"}}], 'line 2, field "metrics.entropy"'),
    ],
)
def test_a_bad_line_is_named_by_file_line_and_field(tmp_path: Path, lines: list[Any], said: str) -> None:
    path = write_lines(tmp_path / "s.jsonl", *lines)
    with pytest.raises(InvalidStepsFile) as caught:
        read_one(path)
    assert str(caught.value).startswith(f"{path} {said}")
    assert "\n" not in str(caught.value)
