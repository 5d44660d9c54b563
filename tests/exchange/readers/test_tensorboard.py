import json
import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from klaudit.errors import InvalidImportFile
from klaudit.exchange.event_file import HEADER_BYTES, mask_checksum, read_events
from klaudit.exchange.reader import ReadOptions
from tests.exchange.readers.reading import read_runs

Log = Callable[..., Path]

STEPS = [[step, {"objective/kl": step / 7, "objective/scores": -0.5, "loss/policy_avg": math.inf}] for step in range(1, 51)]
STEPS[9][1]["objective/kl"] = math.nan  # type: ignore[index]
OTHER = [[step, {"kl": step / 3}] for step in range(20)]


def to_float32(number: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", number))[0])


@pytest.fixture(scope="session")
def log(run_tracker: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Log:
    def write(runs: dict[str, Any], *, as_tensors: bool = False) -> Path:
        directory = tmp_path_factory.mktemp("tensorboard") / "logs"
        run_tracker("log_to_tensorboard.py", asked={"directory": str(directory), "runs": runs, "as_tensors": as_tensors})
        return directory

    return write


@pytest.fixture(scope="session")
def logs(log: Log) -> Path:
    """A log directory with two runs, one inside the other."""
    return log({".": STEPS, "second/inner": OTHER})


def find_file(directory: Path) -> Path:
    (file,) = directory.glob("*.tfevents.*")
    return file


def test_a_log_directory_gives_a_run_for_every_directory_with_event_files(logs: Path) -> None:
    first, second = read_runs(logs)
    assert [(one.run.name, one.part, len(one.steps)) for one in (first, second)] == [
        ("logs", ".", 50),
        ("logs/second/inner", "second/inner", 20),
    ]
    assert first.run.framework == "trl"
    series = first.run.series["kl"]
    assert (series.kind, series.unit, series.source_key) == ("reference", "nats_per_sequence", "objective/kl")
    assert second.run.series["kl"].estimator == "unknown"
    assert [len(one.files) for one in (first, second)] == [1, 1]


def test_every_number_and_time_is_what_was_logged(logs: Path) -> None:
    first, _ = read_runs(logs)
    for record, (step, numbers) in zip(first.steps, STEPS, strict=True):
        assert (record.step, record.segment) == (step, 0)
        assert record.kl.value == pytest.approx(to_float32(numbers["objective/kl"]), nan_ok=True, rel=0, abs=0)  # type: ignore[index]
        assert record.score == -0.5
        assert record.metrics["policy_loss"] == math.inf
        assert record.logged_at == datetime.fromtimestamp(1_790_000_000.25 + step, UTC)  # type: ignore[operator]


def test_a_single_file_is_a_run_called_like_its_directory(logs: Path) -> None:
    (run,) = read_runs(find_file(logs / "second" / "inner"))
    assert (run.run.name, len(run.steps), run.notes) == ("inner", 20, [])


@pytest.mark.parametrize(
    ("pattern", "names"), [("second/inner", ["logs/second/inner"]), ("logs", ["logs"]), ("*inner", ["logs/second/inner"])]
)
def test_a_person_chooses_one_of_the_runs(logs: Path, pattern: str, names: list[str]) -> None:
    assert [one.run.name for one in read_runs(logs, ReadOptions(run_filter=pattern))] == names


@pytest.mark.parametrize("as_tensors", [False, True])
def test_klaudit_reads_what_tensorboard_reads(log: Log, run_tracker: Callable[..., str], as_tensors: bool) -> None:
    file = find_file(log({".": STEPS}, as_tensors=as_tensors))
    expected = json.loads(run_tracker("read_tensorboard.py", file))
    events = list(read_events(file, on_progress=lambda done: None, on_cut=lambda path: None))
    found = [[event.step, tag, number] for event in events for tag, number in event.scalars]
    assert repr(found) == repr(expected)
    assert len(found) == 150


def test_a_writer_that_resumes_begins_a_segment(log: Log) -> None:
    directory = log({".": [*STEPS[:30], *STEPS[20:40]]})
    (run,) = read_runs(directory)
    assert [(one.segment, one.step) for one in run.steps] == [*((0, step) for step in range(1, 31)), *((1, step) for step in range(21, 41))]
    assert len(run.files) == 2


def test_tags_that_were_logged_one_after_the_other_are_one_segment(log: Log) -> None:
    one_by_one = [[step, {"kl": 0.5}] for step in range(5)], [[step, {"beta": 0.1}] for step in range(5)]
    directory = log({"a": one_by_one[0]})
    again = log({"a": one_by_one[1]})
    joined = directory / "a" / find_file(again / "a").name
    joined.write_bytes(find_file(again / "a").read_bytes())
    (run,) = read_runs(directory)
    assert [(one.segment, one.step, one.kl.value, one.beta) for one in run.steps] == [(0, step, 0.5, to_float32(0.1)) for step in range(5)]


@pytest.mark.parametrize("n_lost", [1, 3, 5, 11, 30, 47])
def test_a_file_that_a_killed_run_left_gives_all_that_is_whole(logs: Path, tmp_path: Path, n_lost: int) -> None:
    whole = find_file(logs / "second" / "inner").read_bytes()
    file = tmp_path / "events.out.tfevents.1"
    file.write_bytes(whole[:-n_lost])
    (run,) = read_runs(file)
    assert len(run.steps) == 20
    assert run.notes == ["events.out.tfevents.1 ends inside a record, as a killed run leaves it; all that comes before is here"]


def test_zeros_behind_the_last_record_are_the_end_of_a_killed_run(logs: Path, tmp_path: Path) -> None:
    file = tmp_path / "events.out.tfevents.1"
    file.write_bytes(find_file(logs / "second" / "inner").read_bytes() + bytes(4096))
    (run,) = read_runs(file)
    assert (len(run.steps), len(run.notes)) == (20, 1)


def frame(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", mask_checksum(length)) + content + struct.pack("<I", mask_checksum(content))


VERSION = frame(b"\x1a\x0dbrain.Event:2")


def make_scalar(tag: bytes, content: bytes = b"\x15" + struct.pack("<f", 0.5), step: bytes = b"\x10\x01") -> bytes:
    value = b"\x0a" + bytes([len(tag)]) + tag + content
    summary = b"\x0a" + bytes([len(value)]) + value
    return b"\x09" + struct.pack("<d", 1.79e9) + step + b"\x2a" + bytes([len(summary)]) + summary


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (frame(make_scalar(b"kl"))[:-4] + b"\0\0\0\0", "its checksum is wrong"),
        (b"\xff" * 12 + frame(make_scalar(b"kl")), "the checksum of its length is wrong"),
        (frame(b"\x2a\xff\xff\x03\x0a"), "ends outside its message"),
        (frame(b"\xff" * 12), "a number of more than 64 bits"),
        (frame(b"\x0f\x01"), "a field of kind 7"),
        (frame(make_scalar(b"\xff\xfe")), "can't decode byte"),
        (frame(make_scalar(b"kl", step=b"\x10" + b"\xff" * 9 + b"\x01")), "expected a whole number from 0 to 2^63 - 1; got -1"),
        (frame(b"\x28\x05"), "expected an event of TensorBoard"),
    ],
    ids=["checksum", "length", "outside", "varint", "kind", "tag", "step", "summary"],
)  # fmt: skip
def test_a_damaged_file_is_refused_in_one_line_that_names_the_place(tmp_path: Path, records: bytes, expected: str) -> None:
    file = tmp_path / "events.out.tfevents.1"
    file.write_bytes(VERSION + records)
    with pytest.raises(InvalidImportFile) as refused:
        read_runs(file)
    assert expected in str(refused.value)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("records", [b"", frame(b"\x2a\x02\x0a\x00")], ids=["nothing", "no number"])
def test_a_file_without_a_number_holds_no_run(tmp_path: Path, records: bytes) -> None:
    file = tmp_path / "events.out.tfevents.1"
    file.write_bytes(VERSION + records)
    assert read_runs(file) == []


def test_a_length_that_no_file_has_takes_no_memory(tmp_path: Path) -> None:
    length = struct.pack("<Q", 2**62)
    file = tmp_path / "events.out.tfevents.1"
    file.write_bytes(VERSION + frame(make_scalar(b"kl")) + length + struct.pack("<I", mask_checksum(length)))
    (run,) = read_runs(file)
    assert [one.kl.value for one in run.steps] == [0.5]
    assert HEADER_BYTES == 12


def test_progress_ends_at_the_size_of_the_files(logs: Path) -> None:
    calls: list[tuple[int, int]] = []
    read_runs(logs, ReadOptions(on_progress=lambda done, total: calls.append((done, total))))
    n_bytes = sum(file.stat().st_size for file in logs.rglob("*.tfevents.*"))
    assert calls[-1] == (n_bytes, n_bytes)
    assert calls == sorted(calls)


def test_known_checksums_are_computed() -> None:
    # RFC 3720 B.4: 32 bytes of zeros give 0x8A9136AA; masked as record_writer.h does it.
    expected = (((0x8A9136AA >> 15) | (0x8A9136AA << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    assert mask_checksum(bytes(32)) == expected
