import csv
import io
import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import HealthCheck, example, given, settings

from klaudit.errors import InvalidImportFile, KlauditError
from klaudit.exchange.reader import ImportedRun, ReadOptions
from klaudit.exchange.readers import find_reader
from klaudit.exchange.writers import WRITERS
from klaudit.exchange.writers.csv_table import neutralise, restore
from klaudit.records import KLReading, KLSeries, Run, StepRecord
from tests.exchange.strategies import TEXTS, RecordedSteps, recorded_steps, spell

FULL = KLSeries("reference", "full", "nats_per_sequence", "batch_mean", temperature=0.7, source_key="objective/kl")
UPDATE = KLSeries("update", "k2", "nats_per_token")
MOMENT = datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)
RUN = Run("", "a run", MOMENT, status="finished", batch_size=8, series={"kl": FULL, "kl_update": UPDATE})


def make_step(step: int, **fields: Any) -> StepRecord:
    return replace(StepRecord(step, KLReading(FULL, 0.5, 0.1, 8), MOMENT), **fields)


STEPS = [
    make_step(1, metrics={"entropy": 2.0}),
    make_step(2, kl=KLReading(FULL, math.nan, None, 8), readings={"kl_update": KLReading(UPDATE, -math.inf, None, 8)}, beta=-0.0),
    make_step(3, kl=KLReading.absent(FULL, "no probe here"), score=-0.5, metrics={"entropy": math.inf, "=1+1": 1.0}),
    make_step(2, segment=1, readings={"kl_update": KLReading(UPDATE, 0.1, None, 3, 17.5)}),
]


def write(path: Path, format_name: str, recorded: RecordedSteps) -> Path:
    with path.open("wb") as file:
        WRITERS[format_name].write(file, recorded.run, recorded.steps)
    return path


def read(path: Path, options: ReadOptions | None = None) -> RecordedSteps:
    (imported,) = (RecordedSteps(one.run, tuple(one.steps)) for one in find_reader(path).read(path, options or ReadOptions()))
    return imported


@pytest.mark.parametrize("format_name", WRITERS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(recorded=recorded_steps())
@example(recorded=RecordedSteps(RUN, STEPS))
def test_what_is_exported_comes_back_with_every_number_and_every_label(tmp_path: Path, format_name: str, recorded: RecordedSteps) -> None:
    path = write(tmp_path / "exported", format_name, recorded)
    assert spell(read(path)) == spell(recorded)


@pytest.mark.parametrize("format_name", WRITERS)
def test_an_export_of_many_steps_comes_back_in_order(tmp_path: Path, format_name: str) -> None:
    recorded = RecordedSteps(RUN, [make_step(step, metrics={f"m{step % 7}": step / 3}) for step in range(11_000)])
    again = read(write(tmp_path / "exported", format_name, recorded))
    assert [one.step for one in again.steps] == list(range(11_000))
    assert spell(again.steps[10_123]) == spell(recorded.steps[10_123])


@pytest.mark.parametrize("format_name", WRITERS)
def test_a_person_names_the_run_that_comes_back(tmp_path: Path, format_name: str) -> None:
    path = write(tmp_path / "exported", format_name, RecordedSteps(RUN, STEPS))
    assert read(path, ReadOptions(name="another")).run == replace(RUN, name="another")


def test_the_csv_reads_in_pandas_with_its_first_row_skipped(tmp_path: Path) -> None:
    table = pandas.read_csv(write(tmp_path / "run.csv", "csv", RecordedSteps(RUN, STEPS)), skiprows=1)
    assert list(table["step"]) == [1, 2, 3, 2]
    assert list(table.columns) == ["step", "segment", "time", "kl", "kl_se", "beta", "score", "entropy", "kl_update", "'=1+1", "readings"]
    assert table["kl_update"][1] == -math.inf
    assert table["score"][2] == -0.5


def test_the_parquet_reads_in_pandas_with_its_numbers_as_numbers(tmp_path: Path) -> None:
    table = pandas.read_parquet(write(tmp_path / "run.parquet", "parquet", RecordedSteps(RUN, STEPS)))
    assert str(table["step"].dtype) == "int64"
    assert str(table["time"].dtype) == "datetime64[us, UTC]"
    assert table["kl"].dtype == float
    assert table["entropy"][2] == math.inf


@given(name=TEXTS)
def test_no_cell_of_a_csv_begins_as_a_formula_does(name: str) -> None:
    file = io.BytesIO()
    WRITERS["csv"].write(file, replace(RUN, name=name + ",=1+1"), [make_step(1, metrics={name: -1.0}, score=-0.5)])
    rows = list(csv.reader(io.StringIO(file.getvalue().decode(), newline="")))
    texts = [*rows[0], *rows[1]]
    assert len(rows[0]) == 1
    assert not [cell for cell in texts if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    assert rows[2][rows[1].index("score")] == "-0.5"


@pytest.mark.parametrize("text", ["=cmd|'/c calc'!A1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "'=1", "''", "plain", "＝1"])
def test_what_is_neutralised_is_restored(text: str) -> None:
    assert restore(neutralise(text)) == text


def test_a_number_without_a_column_is_refused_and_not_dropped() -> None:
    class GrowingRun:
        n_passes = 0

        def __iter__(self) -> Any:
            self.n_passes += 1
            return iter([make_step(1, metrics={"new": 1.0} if self.n_passes > 1 else {})])

    for name in ("csv", "parquet"):
        with pytest.raises(KlauditError, match="step 1 came to hold new while the run was exported; export it again"):
            WRITERS[name].write(io.BytesIO(), RUN, GrowingRun())


def read_all(path: Path) -> list[ImportedRun]:
    return [replace(one, steps=iter(tuple(one.steps))) for one in find_reader(path).read(path, ReadOptions())]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (",0.5,0.1,", ",zero,0.1,", """line 3, field "kl": expected a number, "NaN", "Infinity" or "-Infinity"; got 'zero'"""),
        ("\n1,0,", "\n-1,0,", """line 3, field "step": expected a whole number, 0 or more; got '-1'"""),
        ("\n1,0,", "\n1" + "0" * 5000 + ",0,", 'line 3, field "step": expected a whole number, 0 or more; got'),
        ("\n3,0,", "\n1,0,", "expected each step once, in order of segment and step"),
        ('"step","segment",', '"step","step",', "expected the names of the columns, each once"),
        ('""kind"": ""update""', '""kind"": ""other""', "KLSeries.kind must be one of"),
        ("{""\"\"kl\"\": {\"\"not", "{nonsense", "field 'readings': expected a JSON object"),
        ("2026-11-22T10:00:00.123456+00:00,0.5", "yesterday,0.5", 'line 3, field "time"'),
        (",0.5,0.1,", ",0.5,", "expected 11 cells; got 10"),
    ],
)  # fmt: skip
def test_a_csv_that_somebody_edited_badly_is_refused_in_one_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = write(tmp_path / "run.csv", "csv", RecordedSteps(RUN, STEPS))
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InvalidImportFile) as refused:
        read_all(path)
    assert expected in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("format_name", WRITERS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.999])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, format_name: str, share: float) -> None:
    path = write(tmp_path / "cut", format_name, RecordedSteps(RUN, STEPS))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InvalidImportFile) as refused:
        read_all(path)
    assert "\n" not in str(refused.value)


def test_parquet_of_another_tool_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pandas.DataFrame({"step": [1], "kl": [0.5]}).to_parquet(path)
    with pytest.raises(InvalidImportFile, match="expected Parquet that klaudit export wrote"):
        read_all(path)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("kl", ["much"] * 4, "row 1, field \"kl\": expected a number"),
        ("step", [1, 1, 1, 1], "expected each step once"),
        ("step", [[1], [2], [3], [4]], "row 1, field \"step\": expected a whole number"),
        ("time", ["now"] * 4, "row 1, field \"time\""),
    ],
)  # fmt: skip
def test_parquet_with_columns_of_other_types_is_refused(tmp_path: Path, column: str, values: list[Any], expected: str) -> None:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    path = write(tmp_path / "run.parquet", "parquet", RecordedSteps(RUN, STEPS))
    table = parquet.read_table(path)
    index = table.schema.names.index(column)
    parquet.write_table(table.set_column(index, column, pyarrow.array(values)), path)
    with pytest.raises(InvalidImportFile) as refused:
        read_all(path)
    assert expected in str(refused.value)


def test_the_header_of_a_csv_is_json_in_one_cell(tmp_path: Path) -> None:
    path = write(tmp_path / "run.csv", "csv", RecordedSteps(RUN, STEPS))
    with path.open(encoding="utf-8", newline="") as file:
        (cell,) = next(csv.reader(file))
    assert json.loads(cell.removeprefix("# "))["kl"]["temperature"] == 0.7
