"""CSV and JSON lines of loops that nobody knows."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from klaudit.errors import InvalidConfig, InvalidImportFile
from klaudit.exchange.own_keys import read_metric_map
from klaudit.records import UNDECLARED, KLSeries
from tests.exchange.readers.reading import describe, read_one, write

K3 = KLSeries(estimator="k3", unit="nats_per_token")
# The columns of KardeniaPoyu/SLM-RL-Comparation, logs/grpo_metrics.csv at edd24b5 (MIT), other numbers.
CSV = """\
step,success_rate,policy_entropy,kl_div,mean_advantage,adv_std,grad_norm
0,0.0,0.13,0.0,-0.5,0.0,0.0
1,0.0,0.14,0.25,-0.5,0.0,0.5
2,0.0,0.16,1.04,-0.5,,nan
"""


def test_a_csv_keeps_every_column_and_its_kl_is_of_unknown_kind(tmp_path: Path) -> None:
    read = read_one(write(tmp_path / "grpo_metrics.csv", CSV))
    assert (read.format_name, read.run.name, read.run.framework) == ("csv", "grpo_metrics", None)
    (series,) = read.run.series.values()
    assert (series.kind, series.estimator, series.unit, series.source_key) == ("unknown", "unknown", "unknown", "kl_div")
    assert read.run.governing_key is None
    assert read.places == [(0, 0), (0, 1), (0, 2)]
    assert read.kls == [0.0, 0.25, 1.04]
    assert read.steps[1].metrics == {"success_rate": 0.0, "policy_entropy": 0.14, "mean_advantage": -0.5, "adv_std": 0.0, "grad_norm": 0.5}
    assert "adv_std" not in read.steps[2].metrics
    assert math.isnan(read.steps[2].metrics["grad_norm"])


def test_the_person_says_what_columns_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", CSV)
    read = read_one(path, columns={"kl": "kl_div", "entropy": "policy_entropy", "score": "success_rate"}, series={"kl": K3}, name="mine")
    assert read.run.name == "mine"
    assert describe(read.run.series) == {"kl": ("reference", "k3", "nats_per_token")}
    assert read.run.governing_key == "kl"
    assert (read.kls, [step.score for step in read.steps]) == ([0.0, 0.25, 1.04], [0.0, 0.0, 0.0])
    assert read.steps[0].metrics["entropy"] == 0.13
    assert read_one(path, series={"kl": K3}).kls == read.kls


def test_a_metric_map_says_the_same_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", CSV)
    own = write(
        tmp_path / "map.toml", 'kl_div = { kind = "reference", estimator = "k3", unit = "nats_per_token" }\npolicy_entropy = "entropy"\n'
    )
    read = read_one(path, metric_map=read_metric_map(own))
    assert describe(read.run.series)["kl"] == ("reference", "k3", "nats_per_token")
    assert read.kls == [0.0, 0.25, 1.04]
    assert read.steps[0].metrics["entropy"] == 0.13


def test_a_kl_that_is_not_the_one_to_the_reference_stands_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "iter,kl,approx_kl\n1,0.1,0.01\n2,0.2,0.02\n")
    update = KLSeries(kind="update", estimator="k1", unit="nats_per_token", direction="forward")
    read = read_one(path, columns={"kl_update": "approx_kl"}, series={"kl_update": update, "kl": K3})
    assert describe(read.run.series) == {"kl": ("reference", "k3", "nats_per_token"), "kl_update": ("update", "k1", "nats_per_token")}
    assert [step.readings["kl_update"].value for step in read.steps] == [0.01, 0.02]
    assert read.kls == [0.1, 0.2]


@pytest.mark.parametrize(("delimiter", "ending", "mark"), [(",", "\n", ""), (";", "\r\n", "\ufeff"), ("\t", "\n", "\ufeff")])
def test_spreadsheets_have_delimiters_line_ends_and_marks_of_their_own(tmp_path: Path, delimiter: str, ending: str, mark: str) -> None:
    content = mark + CSV.replace(",", delimiter).replace("\n", ending)
    read = read_one(write(tmp_path / "a.csv", content))
    assert read.kls == [0.0, 0.25, 1.04]


def test_cells_may_hold_text_and_ends_of_lines(tmp_path: Path) -> None:
    read = read_one(write(tmp_path / "a.csv", 'step,text,kl\n1,"two\nlines, ""quoted""",0.1\n2,x,0.2\n'))
    assert read.kls == [0.1, 0.2]
    assert read.notes == ["what is no number is left out: text"]


def test_times_are_read_where_they_are_told(tmp_path: Path) -> None:
    second = datetime(2026, 11, 22, 10, 0, 1, tzinfo=UTC)
    read = read_one(write(tmp_path / "a.csv", "step,time,kl\n1,2026-11-22T10:00:00Z,0.1\n2,2026-11-22T11:00:01+01:00,0.2\n"))
    assert read.steps[1].logged_at == second
    assert read.run.started_at == read.steps[0].logged_at
    read = read_one(write(tmp_path / "b.jsonl", f'{{"step": 1, "_timestamp": {second.timestamp()}, "kl": 1}}\n'))
    assert read.steps[0].logged_at == second
    read = read_one(write(tmp_path / "c.jsonl", '{"step": 1, "time": 3.5, "kl": 1}\n'))
    assert (read.steps[0].metrics, read.steps[0].logged_at) == ({"time": 3.5}, read.run.started_at)


def test_json_lines_of_any_loop_are_a_run(tmp_path: Path) -> None:
    lines = [
        {"global_step": 1, "train": {"kl": 0.1, "loss": 0.5}, "lr": 1e-5, "beta": 0.05, "text": "hello", "samples": [1, 2]},
        {"global_step": 2, "train": {"kl": "NaN", "loss": None}, "lr": 1e-5, "beta": 0.06},
        {"global_step": 2, "held_out": 0.7},
    ]
    read = read_one(write(tmp_path / "loop.jsonl", "\n\n".join(map(json.dumps, lines)) + "\n"))
    assert read.format_name == "jsonl"
    assert read.run.series["kl"].kind == "unknown"
    assert repr(read.kls) == "[0.1, nan]"
    assert [step.beta for step in read.steps] == [0.05, 0.06]
    assert read.steps[0].metrics == {"train/loss": 0.5, "learning_rate": 1e-5}
    assert read.steps[1].metrics == {"learning_rate": 1e-5, "held_out": 0.7}
    assert read.notes == ["what is no number is left out: samples, text"]


def test_a_known_trainers_keys_are_known_in_any_file(tmp_path: Path) -> None:
    header = "step,objective/kl,objective/scores,policy/approxkl_avg,objective/non_score_reward,objective/rlhf_reward\n"
    read = read_one(write(tmp_path / "a.csv", header + "1,0.4,0.5,0.01,-0.02,0.48\n"))
    assert (read.run.framework, read.run.algorithm, read.run.series["kl"].estimator) == ("trl", "ppo", "k1")


def test_the_person_names_the_trainer(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "step,kl,reward\n1,0.4,0.5\n")
    assert read_one(path).run.series["kl"].kind == UNDECLARED.kind
    read = read_one(path, framework="trl-rloo")
    assert (describe(read.run.series)["kl"], read.steps[0].score) == (("reference", "k1", "nats_per_token"), 0.5)
    with pytest.raises(InvalidConfig, match="expected the name of a trainer; got 'trl-pop'"):
        read_one(path, framework="trl-pop")


BAD: dict[str, tuple[str, str, str]] = {
    "no step column": ("a.csv", "kl,loss\n1,2\n", "line 2: expected a column of steps; there are kl, loss. Name it with --column step=NAME"),
    "no step key": ("a.jsonl", '{"kl": 1}\n', "line 1: expected a column of steps; there are kl"),
    "a step that is text": ("a.csv", "step,kl\n1,0\nx,0\n", "line 3, field 'step': expected a whole number, 0 or more; got 'x'"),
    "a step that is missing": ("a.csv", "step,kl\n,0\n", "line 2, field 'step': expected a whole number, 0 or more; got nothing"),
    "a step that is a fraction": ("a.csv", "step,kl\n1.5,0\n", "field 'step': expected a whole number"),
    "a step that is not a number": ("a.csv", "step,kl\nnan,0\n", "field 'step': expected a whole number"),
    "a step without bound": ("a.csv", "step,kl\ninf,0\n", "field 'step': expected a whole number"),
    "a negative step": ("a.csv", "step,kl\n-1,0\n", "field 'step': expected a whole number"),
    "a step of true": ("a.jsonl", '{"step": true, "kl": 1}\n', "field 'step': expected a whole number"),
    "a kl that is text": ("a.csv", "step,kl\n1,0\n2,low\n", "line 3, field 'kl': expected a number; got 'low'"),
    "a beta that is a list": ("a.jsonl", '{"step": 1, "kl": 1, "beta": [1]}\n', "field 'beta': expected a number; got [1]"),
    "a cell too many": ("a.csv", "step,kl\n1,0\n2,0,0\n", "line 3: expected 2 cells, one a column; got 3"),
    "a row that is cut off": ("a.csv", "step,loss,kl\n1,0,0\n2,0", "line 3: expected 3 cells, one a column; got 2"),
    "a quote that never ends": ("a.csv", 'step,kl\n1,"0\n2,0\n', "expected CSV; unexpected end of data"),
    "two columns of one name": ("a.csv", "step,kl,kl\n1,0,0\n", "line 1: expected column names, each once; got twice 'kl'"),
    "no row": ("a.csv", "step,kl\n", "expected steps; there are none"),
    "one step twice": ("a.csv", "step,kl\n1,0.1\n1,0.2\n", "line 3, field 'kl': expected one value a step; step 1 has 0.1 and 0.2"),
    "a line that is a list": ("a.jsonl", '{"step": 1, "kl": 1}\n[1]\n', "line 2: expected one JSON object; got [1]"),
    "a line that is cut off": ("a.jsonl", '{"step": 1, "kl": 1}\n{"step": 2, "k', "line 2: expected one JSON object"),
    "objects in objects": ("a.jsonl", '{"step": 1, "kl": 1}\n{"a":' * 3000, "line 2: expected one JSON object"),
    "a segment that goes back": ("a.csv", "step,segment,kl\n1,1,0\n2,0,0\n", "line 3: expected steps that go up; segment 0, step 2 comes after"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_table_is_one_line_that_says_where(tmp_path: Path, what: str) -> None:
    name, content, said = BAD[what]
    path = write(tmp_path / name, content)
    with pytest.raises(InvalidImportFile) as caught:
        read_one(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", CSV)
    with pytest.raises(InvalidImportFile, match="expected a column 'kls' for kl; there are success_rate, policy_entropy"):
        read_one(path, columns={"kl": "kls"})
    with pytest.raises(InvalidImportFile, match="expected a column 'iter'; there are step"):
        read_one(path, columns={"step": "iter"})
    with pytest.raises(InvalidImportFile, match="field 'kl_div': expected a time with its zone, or seconds since 1970"):
        read_one(path, columns={"time": "kl_div"})
