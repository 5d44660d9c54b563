import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from klaudit.errors import InvalidImportFile
from klaudit.exchange.reader import ReadOptions
from tests.exchange.readers.reading import read_runs
from tests.exchange.readers.tracker_runs import STEPS


@pytest.fixture
def database(trackio_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(trackio_file, tmp_path / "project.db"))


def change(path: Path, statement: str, *parameters: object) -> Path:
    connection = sqlite3.connect(path)
    connection.execute(statement, parameters)
    connection.commit()
    connection.close()
    return path


def test_every_run_comes_with_its_name_configuration_and_numbers(trackio_file: Path) -> None:
    runs = read_runs(trackio_file)
    assert [(one.run.name, len(one.steps)) for one in runs] == [("first", 50), ("from a trainer", 3), ("resumed", 50)]
    first = runs[0]
    assert dict(first.run.config) == {"kl_coef": 0.05, "model": "a model"}
    assert first.run.framework == "trl"
    assert repr([one.kl.value for one in first.steps]) == repr([values["objective/kl"] for _, values in STEPS])
    assert {one.score for one in first.steps} == {-0.5}
    assert "what is no number is left out: note" in first.notes


def test_the_trainers_step_goes_before_trackios(trackio_file: Path) -> None:
    run = read_runs(trackio_file)[1]
    assert [(one.step, one.segment) for one in run.steps] == [(5, 0), (10, 0), (15, 0)]
    assert run.steps[-1].metrics["samples"] == 2.0


def test_a_resume_begins_a_segment(trackio_file: Path) -> None:
    run = read_runs(trackio_file)[2]
    assert [(one.segment, one.step) for one in run.steps] == [*((0, step) for step in range(1, 31)), *((1, step) for step in range(21, 41))]


def test_a_person_chooses_a_run(trackio_file: Path) -> None:
    assert [one.run.name for one in read_runs(trackio_file, ReadOptions(run_filter="from*"))] == ["from a trainer"]


def test_a_database_of_an_older_trackio_reads(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    change(path, "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)")
    for step in (1, 2):
        change(path, "INSERT INTO metrics VALUES (?, '2026-11-22T10:00:00', 'old', ?, '{\"kl\": 0.5}')", step, step)
    (run,) = read_runs(path)
    assert (run.run.name, [one.step for one in run.steps]) == ("old", [1, 2])


def test_what_a_killed_writer_left_in_the_log_is_read_and_stays(run_tracker: Callable[..., str], tmp_path: Path) -> None:
    asked = {"project": "killed", "runs": {"a": STEPS}, "config": {}, "is_killed": True}
    run_tracker("log_to_trackio.py", asked=asked, code=-9, TRACKIO_DIR=tmp_path)
    database, log = tmp_path / "killed.db", tmp_path / "killed.db-wal"
    before = [hashlib.sha256(one.read_bytes()).hexdigest() for one in (database, log)]
    assert log.stat().st_size > 0
    (run,) = read_runs(database)
    assert len(run.steps) == 50
    assert [hashlib.sha256(one.read_bytes()).hexdigest() for one in (database, log)] == before


def test_reading_a_database_that_nobody_writes_leaves_nothing_beside_it(database: Path) -> None:
    before = database.read_bytes()
    read_runs(database)
    assert database.read_bytes() == before
    assert [one.name for one in database.parent.iterdir()] == ["project.db"]


def test_rows_that_a_live_writer_has_committed_are_read(database: Path) -> None:
    writer = sqlite3.connect(database)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("INSERT INTO metrics (timestamp, run_id, run_name, step, metrics) VALUES ('', 'new', 'live', 1, '{\"kl\": 0.5}')")
    writer.commit()
    writer.execute("BEGIN IMMEDIATE")
    assert read_runs(database)[-1].run.name == "live"
    writer.close()


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ('{"objective/kl": ', "row 7, field 'metrics': expected a JSON object"),
        ("[1]", "row 7, field 'metrics': expected a JSON object; got [1]"),
        ("[" * 100_000, "row 7, field 'metrics': expected a JSON object"),
        ('{"objective/kl": "much"}', "expected a number; got 'much'"),
        ('{"objective/kl": ' + "9" * 400 + "}", "expected a number"),
        ('{"objective/kl": ' + "9" * 5000 + "}", "expected a JSON object"),
        (b"\x80\x04\x95", "row 7, field 'metrics': expected a JSON object"),
    ],
    ids=["cut", "list", "deep", "text", "huge", "longest", "pickle"],
)  # fmt: skip
def test_a_row_that_does_not_belong_there_is_refused_in_one_line(database: Path, metrics: object, expected: str) -> None:
    change(database, "UPDATE metrics SET metrics = ? WHERE id = 7", metrics)
    with pytest.raises(InvalidImportFile) as refused:
        read_runs(database)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600
