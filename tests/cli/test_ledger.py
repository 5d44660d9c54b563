import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.cli.outcome import look_at

pytestmark = pytest.mark.usefixtures("store_file")


def execute(path: Path, statements: str) -> None:
    """As somebody does who has the file."""
    with sqlite3.connect(path) as connection:
        connection.executescript(statements)
    connection.close()


@pytest.fixture
def anchor(klaudit: Command, tmp_path: Path) -> Path:
    path = tmp_path / "anchor.json"
    path.write_text(klaudit("ledger", "head", "--json").out, encoding="utf-8")
    return path


def test_a_store_that_nobody_touched_verifies(klaudit: Command, anchor: Path) -> None:
    before = look_at(Path.cwd())
    plain = klaudit("ledger", "verify")
    assert (plain.code, plain.err) == (0, "")
    assert "7 recomputed" in plain.out
    assert "intact, as far as it shows by itself" in plain.out
    anchored = klaudit("ledger", "verify", "--anchor", anchor)
    assert anchored.code == 0
    assert "intact, and holds the anchored entry" in anchored.out
    assert {name: one for name, one in look_at(Path.cwd()).items() if name == "klaudit.db"} == {"klaudit.db": before["klaudit.db"]}


def test_an_edited_step_breaks_it(klaudit: Command, store_file: Path) -> None:
    execute(store_file, "UPDATE steps SET kl = 0.11 WHERE step = 2")
    people = klaudit("ledger", "verify")
    assert people.code == 4
    assert "edited in the store" in people.out
    assert "BROKEN: 2 things are not as the ledger says" in people.out
    program = klaudit("ledger", "verify", "--json")
    assert program.code == 4
    found = program.json["ledger"]
    assert program.json["schema_version"] == 1
    assert (found["intact"], found["n_breaks"], len(found["breaks"])) == (False, 2, 2)
    assert set(found["breaks"][0]) == {"seq", "run_id", "what", "expected", "came"}


def test_a_cut_tail_breaks_it_with_an_anchor_only(klaudit: Command, store_file: Path, tmp_path: Path) -> None:
    assert klaudit("budget", "set", "--limit", 2, "--unit", "nats_per_sequence", "--run", "quiet").code == 0
    anchor = tmp_path / "later.json"
    anchor.write_text(klaudit("ledger", "head", "--json").out, encoding="utf-8")
    execute(
        store_file,
        "DELETE FROM kl_budgets WHERE kl_limit = 2; DELETE FROM ledger_entries WHERE seq = (SELECT max(seq) FROM ledger_entries)",
    )
    assert klaudit("ledger", "verify").code == 0
    cut = klaudit("ledger", "verify", "--anchor", anchor)
    assert cut.code == 4
    assert "the ledger was cut off" in cut.out


BAD_ANCHORS: dict[str, Any] = {
    "empty": "",
    "not JSON": "sha256:",
    "another JSON": "[]",
    "no head": '{"schema_version": 1}',
    "no hash": '{"head": {"seq": 3}}',
    "a hash that is none": '{"head": {"seq": 3, "hash": "abc"}}',
    "a number as text": '{"head": {"seq": "3", "hash": "sha256:' + "a" * 64 + '"}}',
    "true as a number": '{"head": {"seq": true, "hash": "sha256:' + "a" * 64 + '"}}',
    "a negative number": '{"head": {"seq": -1, "hash": "sha256:' + "a" * 64 + '"}}',
    "an empty ledger with a hash": '{"head": {"seq": 0, "hash": "sha256:' + "a" * 64 + '"}}',
    "too deep": "[" * 100_000,
    "no text": b"\xff\xfe",
}


@pytest.mark.parametrize("content", BAD_ANCHORS.values(), ids=BAD_ANCHORS)
def test_a_file_that_is_no_anchor_is_a_usage_error(klaudit: Command, tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    outcome = klaudit("ledger", "verify", "--anchor", path)
    assert outcome.code == 2
    assert f"{path}: expected what `klaudit ledger head --json` printed" in outcome.line


@pytest.mark.parametrize(
    ("what", "said"), [("another JSON", "expected a JSON object"), ("no head", "no field 'head'"), ("no hash", "no field 'hash'")]
)
def test_a_bad_anchor_is_told_what_it_lacks(klaudit: Command, tmp_path: Path, what: str, said: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(str(BAD_ANCHORS[what]))
    assert said in klaudit("ledger", "verify", "--anchor", path).line


def test_an_anchor_of_another_store_may_be_that(klaudit: Command, store_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    head = {"seq": 1, "hash": "sha256:" + "a" * 64}
    path.write_text(json.dumps({"store": "sqlite:///other.db", "head": head}))
    verified = klaudit("ledger", "verify", "--anchor", path)
    assert verified.code == 4
    assert "or the anchor is of another store" in verified.out
    assert "entry 1 of sqlite:///other.db" in verified.out


def test_an_anchor_that_is_not_there_is_a_usage_error(klaudit: Command, tmp_path: Path) -> None:
    outcome = klaudit("ledger", "verify", "--anchor", tmp_path / "none.json")
    assert (outcome.code, "expected an anchor at" in outcome.line) == (2, True)


@pytest.mark.parametrize("command", ["head", "list", "verify"])
def test_a_store_that_cannot_be_read_is_not_called_broken(klaudit: Command, store_file: Path, command: str) -> None:
    missing = klaudit("ledger", command, "--store", "sqlite:///nowhere.db")
    assert (missing.code, "no store at" in missing.line) == (3, True)
    store_file.write_bytes(b"this is no database, and never was one" * 100)
    garbled = klaudit("ledger", command)
    assert (garbled.code, bool(garbled.line)) == (3, True)


def test_the_head_is_shown_with_those_of_the_runs(klaudit: Command) -> None:
    head = klaudit("ledger", "head", "--json").json
    entries = klaudit("ledger", "list", "--json").json["entries"]
    assert head["head"] == {"seq": len(entries), "hash": entries[-1]["hash"], "at": entries[-1]["at"], "entries": len(entries)}
    for run in head["runs"]:
        own = [one for one in entries if one["run_id"] == run["run_id"]]
        assert (run["run_seq"], run["hash"]) == (len(own), own[-1]["hash"])
    people = klaudit("ledger", "head").out
    assert head["head"]["hash"] in people
    assert "quiet" in people
    assert "loud" in people


def test_entries_are_listed_by_run(klaudit: Command) -> None:
    runs = {one["name"]: one["id"] for one in klaudit("runs", "list", "--json").json["runs"]}
    entries = klaudit("ledger", "list", "--run", "quiet", "--json").json["entries"]
    assert {one["run_id"] for one in entries} == {runs["quiet"]}
    assert entries[0]["kind"] == "run_opened"
    assert klaudit("ledger", "list", "--run", "quiet", "--limit", 1, "--after", entries[1]["seq"], "--json").json["entries"] == entries[2:3]
    lines = klaudit("ledger", "list", "--run", "loud").out.splitlines()
    assert any("budget_set" in line and "1.0 nats_per_sequence, per_step, alert" in line for line in lines)
    assert any(" steps " in line and "segment 0, step" in line for line in lines)
    unknown = klaudit("ledger", "list", "--run", "quite")
    assert (unknown.code, "Nearest names: quiet" in unknown.line) == (2, True)


def test_entries_of_a_deleted_run_stay(klaudit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {one["name"]: one["id"] for one in klaudit("runs", "list", "--json").json["runs"]}
    monkeypatch.setenv("KLAUDIT_ACTOR", "Ada")
    assert klaudit("runs", "delete", "quiet", "--yes").code == 0
    entries = klaudit("ledger", "list", "--run", runs["quiet"], "--json").json["entries"]
    assert (entries[-1]["kind"], entries[-1]["actor"]["name"], entries[-1]["body"]["n_steps"]) == ("run_deleted", "Ada", 3)
    verified = klaudit("ledger", "verify")
    assert verified.code == 0
    assert "1 run, with an entry each" in verified.out


def test_who_sets_and_removes_a_budget_is_named(klaudit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAUDIT_ACTOR", "Ada")
    budget = klaudit("budget", "set", "--limit", 2, "--unit", "nats_per_sequence", "--match", "prod-*", "--json").json["budget"]["id"]
    assert klaudit("budget", "remove", budget, "--by", "Grace").code == 0
    entries = klaudit("ledger", "list", "--json").json["entries"][-2:]
    assert [(one["kind"], one["body"]["budget"], one["actor"]["name"]) for one in entries] == [
        ("budget_set", budget, "Ada"),
        ("budget_removed", budget, "Grace"),
    ]
    assert "Grace (" in klaudit("ledger", "list", "--after", entries[0]["seq"]).out


def test_the_hash_of_an_entry_can_be_recomputed_from_what_is_listed(klaudit: Command) -> None:
    """By somebody who has the JSON and the words of docs/ledger.md, and none of this code."""
    for entry in klaudit("ledger", "list", "--json").json["entries"]:
        sealed = {name: value for name, value in entry.items() if name != "hash"}
        # These bodies hold neither numbers with exponents nor keys beyond ASCII, so that sorted keys are all of RFC 8785 but whole floats.
        text = json.dumps(sealed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).replace(".0,", ",").replace(".0}", "}")
        assert entry["hash"] == "sha256:" + hashlib.sha256(b"klaudit-ledger-entry/1\n" + text.encode()).hexdigest()
