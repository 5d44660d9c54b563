import hashlib
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from klaudit.errors import InvalidImportFile
from klaudit.exchange.reader import ReadOptions
from tests.exchange.readers.reading import read_runs
from tests.exchange.readers.tracker_runs import STEPS


@pytest.fixture
def database(mlflow_file: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copy(mlflow_file, tmp_path / "mlflow.db"))


def change(path: Path, *statements: str) -> Path:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path


def test_every_run_that_is_not_deleted_comes_with_its_name_status_and_parameters(mlflow_file: Path) -> None:
    runs = read_runs(mlflow_file)
    assert [(one.run.name, one.run.status, len(one.steps)) for one in runs] == [
        ("first", "finished", 50),
        ("resumed", "finished", 50),
        ("broken", "failed", 1),
    ]
    assert len({one.part for one in runs}) == 3
    first = runs[0].run
    assert first.framework == "trl"
    assert first.series["kl"].source_key == "objective/kl"
    assert dict(first.config) == {
        "kl_coef": 0.05, "temperature": 0.7, "use_lora": True, "seed": 7, "model": "a model", "target_kl": None
    }  # fmt: skip
    assert datetime.now(UTC) - timedelta(hours=1) < first.started_at < datetime.now(UTC)


def test_every_number_is_what_was_logged(mlflow_file: Path) -> None:
    run = read_runs(mlflow_file)[0]
    assert [one.step for one in run.steps] == [step for step, _ in STEPS]
    assert repr([one.kl.value for one in run.steps]) == repr([values["objective/kl"] for _, values in STEPS])
    assert {one.score for one in run.steps} == {-0.5}
    assert {one.segment for one in run.steps} == {0}
    times = [one.logged_at for one in run.steps]
    assert times == sorted(times)
    assert times[0] >= run.run.started_at


def test_a_resume_begins_a_segment_and_keeps_the_steps_that_it_repeats(mlflow_file: Path) -> None:
    run = read_runs(mlflow_file)[1]
    assert [(one.segment, one.step) for one in run.steps] == [*((0, step) for step in range(1, 31)), *((1, step) for step in range(21, 41))]


def test_a_person_chooses_a_run_by_name_or_id(mlflow_file: Path) -> None:
    part = read_runs(mlflow_file, ReadOptions(run_filter="broken"))[0].part
    assert [one.run.name for one in read_runs(mlflow_file, ReadOptions(run_filter=part))] == ["broken"]
    assert [one.run.name for one in read_runs(mlflow_file, ReadOptions(run_filter="resu*"))] == ["resumed"]


def test_numbers_logged_again_at_a_step_are_the_later_ones_and_said(database: Path) -> None:
    change(database, "INSERT INTO metrics SELECT key, 9.5, timestamp + 1, run_uuid, step, 0 FROM metrics WHERE key = 'kl'")
    run = read_runs(database)[2]
    assert [one.kl.value for one in run.steps] == [9.5]
    assert run.notes[0] == "numbers that were logged again at the same step: 1; the later ones are kept"


def test_evaluations_and_the_summary_at_the_end_do_not_hide_the_step_that_they_follow(database: Path) -> None:
    change(
        database,
        *(
            f"INSERT INTO metrics SELECT '{key}', 1.0, timestamp, run_uuid, 50, 0 FROM metrics WHERE key = 'objective/kl' AND step = 50"
            for key in ("eval_loss", "train_runtime")
        ),
    )
    assert read_runs(database)[0].steps[-1].step == 50


def test_reading_writes_nothing(database: Path) -> None:
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    read_runs(database)
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
    assert [one.name for one in database.parent.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE metrics SET value = 'much' WHERE rowid = 7", "table 'metrics', row 7, field 'value': expected a number; got 'much'"),
        ("UPDATE metrics SET step = 'first' WHERE rowid = 7", "row 7, field 'step': expected a whole number from 0 to 2^63 - 1; got 'first'"),
        ("UPDATE metrics SET step = -1 WHERE rowid = 7", "row 7, field 'step': expected a whole number from 0 to 2^63 - 1; got -1"),
        ("UPDATE metrics SET key = x'80' WHERE rowid = 7", "row 7, field 'key': expected a name; got b'\\x80'"),
        ("UPDATE metrics SET key = zeroblob(20000000) WHERE rowid = 7", "expected an SQLite database that can be read; string or blob too big"),
        ("UPDATE runs SET name = cast(x'80' AS TEXT)", "expected an SQLite database that can be read; Could not decode to UTF-8"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_belong_there_is_refused_in_one_line_that_names_it(database: Path, statement: str, expected: str) -> None:
    change(database, "PRAGMA ignore_check_constraints = ON", statement)
    with pytest.raises(InvalidImportFile) as refused:
        read_runs(database)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.9])
def test_a_database_that_was_cut_off_is_refused(database: Path, share: float) -> None:
    database.write_bytes(database.read_bytes()[: int(database.stat().st_size * share)])
    with pytest.raises(InvalidImportFile, match=r"expected an SQLite database") as refused:
        read_runs(database)
    assert "\n" not in str(refused.value)


def test_a_database_of_another_program_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    path = change(tmp_path / "other.db", "CREATE TABLE runs (a)", "CREATE TABLE users (a)")
    with pytest.raises(InvalidImportFile, match="expected an SQLite database of MLflow or trackio"):
        read_runs(path)
    with pytest.raises(InvalidImportFile, match=r"expected MLflow's columns .* in table 'runs'"):
        read_runs(path, format_name="mlflow")
    with pytest.raises(InvalidImportFile, match="expected trackio's table 'metrics'; there are runs, users"):
        read_runs(path, format_name="trackio")


def test_a_view_is_no_table(database: Path) -> None:
    change(database, "ALTER TABLE metrics RENAME TO real_metrics", "CREATE VIEW metrics AS SELECT * FROM real_metrics")
    with pytest.raises(InvalidImportFile, match="expected an SQLite database of MLflow or trackio"):
        read_runs(database)
