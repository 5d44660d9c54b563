import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from klaudit.errors import InvalidImportFile
from klaudit.exchange.reader import ReadOptions
from klaudit.records import KLSeries
from tests.exchange.readers.reading import read_runs

CHART = """\
"Step","a - run - objective/kl","a - run - objective/kl__MIN","a - run - objective/kl__MAX","b - objective/kl","b - objective/kl__MIN","b - objective/kl__MAX"
"1","0.1","0.1","0.1","","",""
"2","NaN","NaN","NaN","0.5","0.5","0.5"
"4","-Infinity","-Infinity","-Infinity","0.7","0.6","0.8"
"""
HISTORY = """\
,_step,_runtime,_timestamp,train/global_step,objective/kl,objective/scores,media
0,0,1.5,1790000000.25,10,0.1,1.0,
1,1,2.5,1790000001.25,20,NaN,1.0,image
2,2,3.5,1790000002.25,,,,
3,3,4.5,1790000003.25,20,0.3,,
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "wandb_export.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_charts_export_gives_a_run_for_every_run_in_it(tmp_path: Path) -> None:
    first, second = read_runs(write(tmp_path, CHART))
    assert [one.run.name for one in (first, second)] == ["a - run", "b"]
    assert repr([(one.step, one.kl.value) for one in first.steps]) == repr([(1, 0.1), (2, math.nan), (4, -math.inf)])
    assert [(one.step, one.kl.value, dict(one.metrics)) for one in second.steps] == [(2, 0.5, {}), (4, 0.7, {})]
    assert first.run.series["kl"].kind == "unknown"
    assert "the file holds the points that the chart shows, which can be fewer than were logged" in first.notes


def test_a_person_says_what_the_charts_kl_is_and_which_run(tmp_path: Path) -> None:
    series = KLSeries("reference", "k1", "nats_per_sequence")
    (run,) = read_runs(write(tmp_path, CHART), ReadOptions(series={"kl": series}, run_filter="b"))
    assert (run.run.name, run.run.series["kl"].estimator) == ("b", "k1")


def test_a_history_goes_by_the_trainers_step_and_joins_what_was_logged_in_several_calls(tmp_path: Path) -> None:
    (run,) = read_runs(write(tmp_path, HISTORY))
    assert run.run.framework == "trl"
    assert [(one.step, one.segment, one.score) for one in run.steps] == [(10, 0, 1.0), (20, 0, 1.0)]
    assert run.steps[1].kl.value == 0.3
    assert run.steps[0].logged_at == datetime.fromtimestamp(1790000000.25, UTC)
    assert {"numbers that were logged again at the same step: 1; the later ones are kept", "what is no number is left out: media"} <= set(
        run.notes
    )


def test_a_history_without_a_trainers_step_goes_by_wandbs(tmp_path: Path) -> None:
    (run,) = read_runs(write(tmp_path, "_step,_timestamp,kl\n0,1790000000,0.1\n1,1790000001,0.2\n"))
    assert [(one.step, one.kl.value) for one in run.steps] == [(0, 0.1), (1, 0.2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CHART.replace('"2"', '"two"'), "line 3, field 'Step': expected a whole number, 0 or more; got 'two'"),
        (CHART.replace('"0.1","0.1","0.1"', '"much","0.1","0.1"'), "expected a number; got 'much'"),
        (CHART.splitlines()[0], "expected rows below the names of the columns; there are none"),
        (CHART.replace('"4","-Infinity",', '"4",'), "line 4: expected 7 cells, one a column; got 6"),
        (HISTORY.replace(",10,0.1", ",ten,0.1"), "line 2, field 'train/global_step': expected a whole number, 0 or more; got 'ten'"),
        (HISTORY.replace("\n3,3", '\n"3,3'), "expected CSV"),
    ],
)  # fmt: skip
def test_a_bad_row_is_refused_in_one_line_that_names_it(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(InvalidImportFile) as refused:
        read_runs(write(tmp_path, text))
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_wandbs_offline_file_is_refused_with_what_to_do(run_tracker: Callable[..., str], tmp_path: Path) -> None:
    run_tracker("log_to_wandb.py", tmp_path)
    (file,) = tmp_path.rglob("*.wandb")
    with pytest.raises(InvalidImportFile, match="W&B's offline files are not read: sync the run and export its history as CSV"):
        read_runs(file)
