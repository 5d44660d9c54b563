"""`klaudit import`: what it prints, and what a bad file leaves behind."""

import json
import os
import pickle
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.outcome import look_at

CSV = "step,kl_div,entropy\n" + "".join(f"{step},0.{step},1.5\n" for step in range(1, 6))


def test_an_import_says_which_run_it_made_and_what_its_kl_was_taken_for(klaudit: Command) -> None:
    Path("grpo.csv").write_text(CSV)
    outcome = klaudit("import", "grpo.csv", "--kl", "reference,k3,nats_per_token", "--name", "mine")
    assert (outcome.code, outcome.err) == (0, "")
    run = klaudit("runs", "list", "--json").json["runs"][0]
    assert (run["name"], run["steps"], run["last_kl"]["estimator"]) == ("mine", 5, "k3")
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert lines[0] == f"run 'mine' (id {run['id']}): 5 steps of csv"
    assert lines[1] == "kl from 'kl_div', taken for KL to reference (k3, nats/token)"
    assert lines[-1].endswith("see: klaudit audit mine")
    assert klaudit("audit", "mine").code == 0


def test_a_kl_that_nobody_declared_is_said_to_be_that(klaudit: Command) -> None:
    Path("grpo.csv").write_text(CSV)
    outcome = klaudit("import", "grpo.csv")
    assert "taken for KL of unknown kind (unknown estimator, unknown unit)" in outcome.out
    assert "say what it is, such as --kl reference,k3,nats_per_token" in outcome.out
    Path("no_kl.csv").write_text("step,loss\n1,0.5\n")
    assert "no step has a KL; name its column with --column kl=COLUMN" in klaudit("import", "no_kl.csv").out


def test_a_name_that_no_terminal_shows_is_replaced_by_the_id(klaudit: Command) -> None:
    Path("one.csv").write_text("step,kl_div\n1,0.5\n")
    outcome = klaudit("import", "one.csv", "--name", "calm\x1b[2J")
    run = klaudit("runs", "list", "--json").json["runs"][0]
    assert f"see: klaudit audit {run['id']}" in outcome.out
    assert ": 1 step of csv" in outcome.out
    assert "\x1b" not in outcome.out


def test_importing_again_says_which_run_it_is(klaudit: Command) -> None:
    Path("grpo.csv").write_text(CSV)
    first = klaudit("import", "grpo.csv", "--json").json["runs"][0]
    assert (first["is_new"], first["steps"], first["format"], first["framework"]) == (True, 5, "csv", None)
    assert first["series"]["kl"]["source_key"] == "kl_div"
    before = klaudit("runs", "list", "--json").json
    outcome = klaudit("import", "grpo.csv")
    assert (outcome.code, outcome.out) == (0, f"run 'grpo' (id {first['id']}) holds this already: 5 steps; nothing was changed\n")
    assert klaudit("runs", "list", "--json").json == before


def test_columns_trainer_and_map_are_given_on_the_line(klaudit: Command) -> None:
    Path("a.csv").write_text("iter,my_kl,r\n1,0.5,0.1\n")
    Path("map.toml").write_text('r = "score"\n')
    outcome = klaudit(
        "import", "a.csv", "--column", "step=iter", "--column", "kl=my_kl", "--kl", "k1,nats_per_sequence", "--map", "map.toml", "--json"
    )
    (run,) = outcome.json["runs"]
    assert [run["series"]["kl"][key] for key in ("kind", "estimator", "unit", "source_key")] == [
        "reference",
        "k1",
        "nats_per_sequence",
        "my_kl",
    ]
    assert klaudit("runs", "list", "--json").json["runs"][0]["last_score"] == 0.1
    Path("b.csv").write_text("step,kl,reward\n1,0.5,0.1\n")
    (run,) = klaudit("import", "b.csv", "--framework", "trl-rloo", "--json").json["runs"]
    assert (run["framework"], run["algorithm"], run["series"]["kl"]["estimator"]) == ("trl", "rloo", "k1")


def test_what_export_wrote_comes_back(klaudit: Command, store_file: Path) -> None:
    for export_format in ("steps-jsonl", "csv"):
        path = Path(f"loud.{export_format}")
        assert klaudit("export", "loud", "--format", export_format, "--out", path).code == 0
        (run,) = klaudit("import", path, "--name", f"again-{export_format}", "--json").json["runs"]
        assert (run["steps"], run["series"]["kl"]["estimator"]) == (4, "full")


USAGE = {
    ("nowhere.csv",): "nowhere.csv: expected a file that can be read; no such file or directory",
    ("a.csv", "--format", "xls"): "expected a format of ",
    ("a.csv", "--column", "kl"): "--column: expected NAME=COLUMN, such as kl=kl_div; got 'kl'",
    ("a.csv", "--column", "kl=no"): "a.csv: expected a column 'no' for kl; there are kl_div, entropy",
    ("a.csv", "--kl", "reference,k9"): "--kl: expected at most one word of each of kind: reference",
    ("a.csv", "--kl", "k1,k3"): "got 'k3' in 'k1,k3'",
    ("a.csv", "--kl", "unknown"): "got 'unknown' in 'unknown'",
    ("a.csv", "--framework", "trl-pop"): "expected the name of a trainer; got 'trl-pop'",
    ("a.csv", "--map", "nowhere.toml"): "nowhere.toml: expected a metric map",
    ("a.csv", "--name", " "): "Run.name must not be empty",
}


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_wrong_usage_is_two_and_makes_no_store(klaudit: Command, arguments: tuple[str, ...]) -> None:
    Path("a.csv").write_text(CSV)
    outcome = klaudit("import", *arguments)
    assert outcome.code == 2
    assert USAGE[arguments] in outcome.line
    assert list(look_at(Path.cwd())) == ["a.csv"]


STATE = json.dumps({"log_history": [{"step": 1, "kl": 0.1, "loss": 0.1, "reward_std": 0.1, "completion_length": 2.0}], "max_steps": 7})
HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "a pickle": pickle.dumps({"step": 1}),
    "random bytes": bytes(range(256)) * 100,
    "a state that is cut off": STATE[:-30].encode(),
    "a state with a word for a kl": STATE.replace("0.1", '"x"', 1).encode(),
    "a state of lists": b'{"log_history": ' + b"[" * 100_000,
    "a table that is cut off": CSV[:-6].encode(),
    "a table with a word for a step": CSV.replace("5,0.5", "five,0.5").encode(),
    "a table that is no text": CSV.encode().replace(b"5,0.5", b"5,0.\xff"),
    "lines that are cut off": b'{"step": 1, "kl": 1}\n{"step": 2, "kl"',
    "a huge number": b'{"step": 1, "kl": 1' + b"0" * 5000 + b"}\n",
    "a number beyond every float": b'{"step": 1, "kl": 1' + b"0" * 400 + b"}\n",
    "a line of 11 MB": b'{"step": 1, "kl": 1}\n{"a": "' + b"x" * (11 << 20) + b'"}\n',
    "half a gzip file": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    "another version of our own": b'{"format": "klaudit-steps/9", "run": {"name": "a"}}\n',
    "our own with a bad last line": b'{"format": "klaudit-steps/1", "run": {"name": "a"}}\n{"step": 1, "kl": 1}\n{"step": 1, "kl": 2}\n',
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_one_line_and_changes_nothing(klaudit: Command, store_file: Path, what: str) -> None:
    path = Path("hostile.log")
    path.write_bytes(HOSTILE[what])
    before = look_at(Path.cwd())
    outcome = klaudit("import", path)
    assert outcome.code == 2
    assert "hostile.log" in outcome.line
    assert len(outcome.line) < 600
    assert look_at(Path.cwd()) == before


def test_what_is_no_file_changes_nothing(klaudit: Command, store_file: Path) -> None:
    os.mkfifo("pipe")
    Path("empty").mkdir()
    before = look_at(Path.cwd())
    for path in ("pipe", "empty", "/dev/zero", "nowhere"):
        outcome = klaudit("import", path)
        assert (outcome.code, path in outcome.line) == (2, True)
    assert look_at(Path.cwd()) == before


def test_a_name_that_looks_like_a_path_stays_a_name(klaudit: Command, store_file: Path) -> None:
    Path("own.jsonl").write_text('{"format": "klaudit-steps/1", "run": {"name": "../../escaped"}}\n{"step": 1, "kl": 1}\n')
    outcome = klaudit("import", "own.jsonl")
    assert (outcome.code, "run '../../escaped'" in outcome.out) == (0, True)
    assert klaudit("audit", "../../escaped").code == 0
    assert not Path("../../escaped").exists()
