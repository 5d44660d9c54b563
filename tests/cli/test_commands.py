import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest

from klaudit.audit import list_rules
from klaudit.exchange.recorded_run import write_recorded_run
from klaudit.records import KLBudget, Run, Segment
from klaudit.store import open_store
from tests.cli.conftest import Command
from tests.cli.outcome import look_at
from tests.exchange.test_recorded_run import make_recorded_run
from tests.workflows.recordings import FULL, begin, make_step

READING = {
    ("runs", "list"): {"runs"},
    ("runs", "show", "loud"): {"run"},
    ("audit", "quiet"): {"run", "policy", "governing_series", "coverage", "verdict", "findings"},
    ("rules", "list"): {"rules"},
    ("rules", "show", "KLA101"): {"rule"},
    ("policy", "list"): {"policies"},
    ("policy", "show", "strict"): {"policy"},
    ("backtest", "--policy", "strict"): {"policy", "against", "at_least", "within_steps", "runs", "totals"},
    ("drift", "show", "loud"): {"measurements", "forward", "profiles", "completions"},
    ("drift", "matrix", "loud"): {"distances"},
    ("budget", "list"): {"budgets"},
    ("db", "check"): {"store"},
}


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_every_reading_command_prints_one_json_object_with_a_schema_version(
    klaudit: Command, store_file: Path, command: tuple[str, ...]
) -> None:
    outcome = klaudit(*command, "--json")
    assert outcome.code == 0
    assert outcome.json["schema_version"] == 1
    assert set(outcome.json) - {"schema_version"} == READING[command]


@pytest.mark.parametrize("command", [one for one in READING if one[0] != "audit"], ids=" ".join)
def test_a_reading_command_changes_nothing(klaudit: Command, store_file: Path, command: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(store_file)) as connection:
        before = list(connection.iterdump())
    assert klaudit(*command).code == 0
    with closing(sqlite3.connect(store_file)) as connection:
        assert list(connection.iterdump()) == before


# --- runs


def test_runs_are_listed_with_what_was_promised(klaudit: Command, store_file: Path) -> None:
    runs = {run["name"]: run for run in klaudit("runs", "list", "--json").json["runs"]}
    assert set(runs) == {"quiet", "loud"}
    quiet = runs["quiet"]
    assert (quiet["status"], quiet["steps"], quiet["last_step"], quiet["last_beta"]) == ("finished", 3, 3, 0.05)
    assert quiet["last_kl"] == {
        "value": 0.12,
        "standard_error": 0.1,
        "kind": "reference",
        "estimator": "full",
        "unit": "nats_per_sequence",
        "not_measured": None,
    }
    assert runs["loud"]["findings"] == {"critical": 2}
    assert runs["loud"]["last_kl"]["value"] == "NaN"


def test_the_table_of_runs_has_unit_and_estimator(klaudit: Command, store_file: Path) -> None:
    lines = klaudit("runs", "list").out.splitlines()
    (quiet,) = [line for line in lines if line.startswith("quiet")]
    assert "0.12 ± 0.1 nats/sequence (full)" in quiet


def start_silently(store_url: str, name: str, *, minutes: int) -> None:
    """A run that says that it is running, was begun so long ago, and that nobody writes; at step 10 of 12."""
    began = datetime.now(UTC) - timedelta(minutes=minutes)
    with open_store(store_url) as store:
        run = Run(id=f"silent-{minutes}", name=name, started_at=began, planned_steps=12, series={"kl": FULL})
        store.runs.add(run)
        store.runs.add_segment(Segment(run.id, 0, began))
        store.steps.add(run.id, replace(make_step(10, 0.1), logged_at=began))


def test_a_running_run_that_nobody_writes_is_said_to_be_silent(klaudit: Command, store_file: Path, store_url: str) -> None:
    start_silently(store_url, "killed", minutes=90)
    live = {run["name"]: run["is_live"] for run in klaudit("runs", "list", "--json").json["runs"]}
    assert live == {"killed": False, "quiet": None, "loud": None}
    (line,) = [line for line in klaudit("runs", "list").out.splitlines() if line.startswith("killed")]
    assert "running (no sign of life since" in line
    assert "10/12" in line
    assert "running (no sign of life since" in klaudit("runs", "show", "killed").out


def test_a_name_cannot_command_the_terminal(klaudit: Command, store_file: Path, store_url: str) -> None:
    name = "calm\x1b[2J\nrun\u202e\u2028 [bold]x"
    start_silently(store_url, name, minutes=1)
    (run,) = [run for run in klaudit("runs", "list", "--json").json["runs"] if run["name"] == name]
    for command in (("runs", "list"), ("runs", "show", run["id"]), ("audit", run["id"]), ("ledger", "list"), ("ledger", "head")):
        shown = klaudit(*command).out
        assert r"calm\x1b[2J\nrun\u202e\u2028 [bold]x" in shown, command
        assert not {"\x1b", "\u202e", "\u2028"} & set(shown)


def test_an_empty_store_says_how_to_fill_it(klaudit: Command) -> None:
    klaudit("db", "upgrade")
    assert klaudit("runs", "list").out == "no runs yet: klaudit demo, or klaudit demo --replay for recorded ones\n"
    assert klaudit("runs", "list", "--json").json["runs"] == []


def test_a_run_is_shown_by_name_and_by_id_with_its_series(klaudit: Command, store_file: Path) -> None:
    run = klaudit("runs", "show", "loud", "--json").json["run"]
    assert klaudit("runs", "show", run["id"], "--json").json["run"] == run
    assert run["segments"] == 1
    assert run["series"]["kl"]["estimator"] == "full"
    shown = klaudit("runs", "show", "loud").out
    assert "KL to reference (full, nats/sequence), from the loop itself" in shown
    assert "{" not in shown


def test_numbers_of_a_run_are_rounded_for_people_and_whole_for_programs(klaudit: Command, store_url: str) -> None:
    with begin(store_url, "sums") as recorder:
        recorder.log(replace(make_step(1, 0.1), beta=0.1 + 0.2, score=0.4 * 3))
    shown = klaudit("runs", "show", "sums").out
    assert "last_beta  0.3\n" in shown
    assert "last_score  1.2\n" in shown
    assert klaudit("runs", "show", "sums", "--json").json["run"]["last_score"] == 0.4 * 3


def test_a_run_is_deleted_when_the_person_says_so(klaudit: Command, store_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("n\n"))
    declined = klaudit("runs", "delete", "loud")
    assert (declined.code, declined.err.endswith("klaudit: nothing was done\n")) == (2, True)
    assert len(klaudit("runs", "list", "--json").json["runs"]) == 2
    monkeypatch.setattr("sys.stdin", StringIO("y\n"))
    assert klaudit("runs", "delete", "loud").code == 0
    assert klaudit("runs", "delete", "quiet", "--yes").code == 0
    assert klaudit("runs", "list", "--json").json["runs"] == []


# --- audit


@pytest.mark.parametrize(
    ("run", "fail_on", "code"),
    [("quiet", None, 0), ("quiet", "info", 0), ("loud", None, 1), ("loud", "critical", 1), ("loud", "info", 1)],
)
def test_an_audit_exits_with_one_when_it_finds_something_at_or_above_the_mark(
    klaudit: Command, store_file: Path, run: str, fail_on: str | None, code: int
) -> None:
    assert klaudit("audit", run, *([] if fail_on is None else ["--fail-on", fail_on])).code == code


def test_a_finding_below_the_mark_does_not_fail_an_audit(klaudit: Command, store_file: Path) -> None:
    Path("soft.toml").write_text('name = "soft"\n[rules.KLA101]\nseverity = "warning"\n[rules.KLA303]\nenabled = false\n')
    outcome = klaudit("audit", "loud", "--policy", "soft.toml", "--json")
    assert (outcome.code, outcome.json["verdict"], outcome.json["policy"]["name"]) == (0, "warn", "soft")
    assert klaudit("audit", "loud", "--policy", "soft.toml", "--fail-on", "warning").code == 1


def test_the_audit_in_json_has_every_field_that_was_promised(klaudit: Command, store_file: Path) -> None:
    audit = klaudit("audit", "loud", "--json").json
    assert audit["run"]["name"] == "loud"
    assert set(audit["policy"]) == {"name", "version", "digest"}
    assert audit["governing_series"]["estimator"] == "full"
    assert {"steps", "kl_measured", "gaps", "non_finite", "rules_not_run"} == set(audit["coverage"])
    assert (audit["coverage"]["steps"], audit["coverage"]["kl_measured"], audit["coverage"]["non_finite"]) == (4, 3, 1)
    assert audit["verdict"] == "fail"
    assert [(one["code"], one["detected_step"]) for one in audit["findings"]] == [("KLA101", 3), ("KLA303", 4)]
    # A promise: these keys in this order.
    promised = (
        "id, code, rule, rule_version, severity, status, segment, series, first_step, detected_step, last_step, value, threshold, unit, "
        "message, remedy, evidence"
    )
    assert list(audit["findings"][0]) == promised.split(", ")


def test_the_audit_for_people_says_what_to_do_and_what_was_not_judged(klaudit: Command, store_file: Path) -> None:
    out = klaudit("audit", "loud").out
    assert out.startswith("Audit of run loud: fail\n")
    assert "critical KLA101 budget_exceeded, step 3, seen at 3" in out
    assert "What to do: Raise beta" in out
    assert "not judged: KLA201" in out
    assert "no findings" in klaudit("audit", "quiet").out


def test_a_stop_that_a_budget_made_is_shown(klaudit: Command, store_url: str) -> None:
    with begin(store_url, "stopped", budgets=[KLBudget(1.0, "nats_per_sequence", on="value", action="stop")]) as recorder:
        (finding,) = [one for one in recorder.log(make_step(1, 3.0)) if one.code == "KLA101"]
        recorder.note_stop(finding)
    said = f"after step 1 of segment 0, by a KL budget: {finding.message}"
    assert f"  stopped {said}\n" in klaudit("audit", "stopped").out
    assert f"stopped  {said}\n" in klaudit("runs", "show", "stopped").out
    (stop,) = klaudit("runs", "show", "stopped", "--json").json["run"]["stops"]
    assert (stop["segment"], stop["step"], stop["budget"]["action"]) == (0, 1, "stop")
    assert "step 1: KL to reference" in klaudit("ledger", "list", "--run", "stopped").out
    assert "  stopped" not in klaudit("audit", "quiet").out


def test_an_audit_keeps_what_it_finds_for_the_pages(klaudit: Command, store_file: Path, store_url: str) -> None:
    klaudit("budget", "set", "--limit", "0.05", "--unit", "nats_per_sequence", "--run", "quiet")
    assert klaudit("audit", "quiet").code == 0
    with open_store(store_url) as store:
        (finding,) = store.findings.list(store.runs.get("quiet").id)
    assert (finding.code, str(finding.severity)) == ("KLA101", "warning")


# --- rules


def test_every_rule_is_listed_and_shown_with_its_sections(klaudit: Command) -> None:
    rules = klaudit("rules", "list", "--json").json["rules"]
    assert [(rule["code"], rule["rule"]) for rule in rules] == [(rule.code, rule.name) for rule in list_rules()]
    listed = klaudit("rules", "list").out
    for rule in list_rules():
        assert rule.code in listed
        shown = klaudit("rules", "show", rule.code.lower()).out
        assert shown.startswith(f"{rule.code} {rule.name}, version {rule.version}: ")
        assert all(f"\n{title}\n" in shown for title in rule.sections)
        assert all(parameter.name in shown for parameter in rule.parameters)
        described = klaudit("rules", "show", rule.name, "--json").json["rule"]
        assert described["sections"] == dict(rule.sections)
        assert {one["name"]: one["default"] for one in described["parameters"]} == {one.name: one.default for one in rule.parameters}


# --- budgets


def test_a_budget_is_set_listed_shown_and_removed(klaudit: Command, store_file: Path) -> None:
    arguments = (
        "--limit",
        "0.1",
        "--unit",
        "nats_per_token",
        "--scope",
        "window",
        "--window-steps",
        "5",
        "--owner",
        "me",
        "--reason",
        "why",
    )
    added = klaudit("budget", "set", *arguments, "--match", "prod-*", "--on", "value", "--action", "stop", "--json").json["budget"]
    assert (added["limit"], added["unit"], added["scope"], added["window_steps"]) == (0.1, "nats_per_token", "window", 5)
    assert (added["match"], added["on"], added["action"], added["owner"], added["reason"]) == ("prod-*", "value", "stop", "me", "why")
    budgets = klaudit("budget", "list", "--json").json["budgets"]
    assert len(budgets) == 2
    assert added in budgets
    assert "0.1 nats/token, EWMA over 5 steps  prod-*" in klaudit("budget", "list").out
    assert klaudit("budget", "show", added["id"], "--json").json["budget"] == added
    assert "nats_per_token" in klaudit("budget", "show", added["id"]).out
    assert klaudit("budget", "remove", added["id"]).code == 0
    assert added not in klaudit("budget", "list", "--json").json["budgets"]
    for command in ("show", "remove"):
        outcome = klaudit("budget", command, added["id"])
        assert (outcome.code, "klaudit budget list" in outcome.line) == (2, True)


def test_a_budget_of_a_run_is_that_runs_alone(klaudit: Command, store_file: Path) -> None:
    outcome = klaudit("budget", "set", "--limit", "3", "--unit", "nats_per_sequence", "--run", "quiet")
    assert "3 nats/sequence, per step, for quiet" in outcome.err
    listed = klaudit("budget", "list").out.splitlines()
    assert [line.split()[-4] for line in listed[1:]] == ["loud", "quiet"]


def test_a_budget_for_runs_to_come_makes_the_store(klaudit: Command) -> None:
    assert klaudit("budget", "set", "--limit", "3", "--unit", "nats_per_sequence", "--match", "*").code == 0
    assert len(klaudit("budget", "list", "--json").json["budgets"]) == 1


# --- reports


def test_a_report_goes_to_a_file_or_to_standard_output_in_three_formats(klaudit: Command, store_file: Path) -> None:
    starts: dict[str, Callable[[str], object]] = {
        "html": lambda text: text.lower().startswith("<!doctype html>"),
        "md": lambda text: text.startswith("#"),
        "json": lambda text: json.loads(text)["schema_version"] == 1,
    }
    for report_format, holds in starts.items():
        printed = klaudit("report", "loud", "--format", report_format)
        assert (printed.code, printed.err) == (0, "")
        assert holds(printed.out)
        written = klaudit("report", "loud", "--format", report_format, "--out", f"reports/loud.{report_format}")
        assert (written.code, written.out) == (0, "")
        assert holds(Path(f"reports/loud.{report_format}").read_text(encoding="utf-8"))


# --- the store


def test_a_store_is_made_checked_and_left_alone_when_it_is_current(klaudit: Command) -> None:
    assert "was empty and is at revision" in klaudit("db", "upgrade").out
    assert "already" in klaudit("db", "upgrade").out
    status = klaudit("db", "check", "--json").json["store"]
    assert (status["is_current"], status["integrity"]) == (True, "ok")
    assert klaudit("db", "check").code == 0
    assert set(look_at(Path.cwd())) == {"klaudit.db"}


@pytest.mark.parametrize("how", ["option", "environment", "file"])
def test_the_store_is_named_by_option_environment_or_file(
    klaudit: Command, store_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    store_file.rename(tmp_path / "elsewhere.db")
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    if how == "environment":
        monkeypatch.setenv("KLAUDIT_STORE", url)
    if how == "file":
        Path("klaudit.toml").write_text(f'store = "{url}"')
    assert len(klaudit("runs", "list", "--json", *(["--store", url] if how == "option" else [])).json["runs"]) == 2


# --- replay and dashboard


@pytest.fixture
def sample_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_recorded_run(tmp_path / "samples" / "one", make_recorded_run())
    (tmp_path / "samples" / "not-recorded-yet").mkdir()
    monkeypatch.setattr("klaudit.cli.demo.locate_asset", lambda name: tmp_path / "samples")
    return tmp_path / "samples"


def test_a_replay_loads_the_sample_runs_once(klaudit: Command, sample_runs: Path) -> None:
    first = klaudit("demo", "--replay")
    assert (first.code, first.out) == (0, "")
    assert "a run: 2 steps, 0 findings" in first.err
    assert "klaudit dashboard" in first.err
    assert "a run: is there already" in klaudit("demo", "--replay").err
    assert [run["steps"] for run in klaudit("runs", "list", "--json").json["runs"]] == [2]


def test_the_drift_of_a_replayed_run_is_shown_with_its_interval(klaudit: Command, sample_runs: Path) -> None:
    klaudit("demo", "--replay")
    (measurement,) = klaudit("drift", "show", "a run", "--json").json["measurements"]
    promised = {"checkpoint", "step", "slice", "series", "value", "low", "high", "n_sequences", "mean_length"}
    assert promised <= set(measurement)
    assert (measurement["checkpoint"], measurement["value"], measurement["low"], measurement["high"]) == (
        "checkpoint-2",
        0.9,
        0.5,
        "Infinity",
    )
    assert measurement["series"]["estimator"] == "full"
    assert "0.900 [0.500, Infinity]" in klaudit("drift", "show", "a run").out


def test_an_installation_without_sample_runs_says_what_to_do(klaudit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klaudit.cli.demo.locate_asset", lambda name: tmp_path)
    outcome = klaudit("demo", "--replay")
    assert (outcome.code, "klaudit demo" in outcome.line) == (2, True)
    assert look_at(Path.cwd()) == {}


def test_the_dashboard_serves_the_store_on_this_machine_only(klaudit: Command, store_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], str]] = []

    class Server:
        def __init__(self, command: list[str], env: dict[str, str]) -> None:
            started.append((command, env["KLAUDIT_STORE"]))

        def wait(self) -> int:
            return 0

    monkeypatch.setattr("klaudit.cli.dashboard.subprocess.Popen", Server)
    outcome = klaudit("dashboard", "--port", "8502")
    assert outcome.code == 0
    assert "http://127.0.0.1:8502" in outcome.err
    ((command, url),) = started
    assert command[command.index("--server.address") + 1] == "127.0.0.1"
    assert command[command.index("--server.port") + 1] == "8502"
    assert Path(command[4]).name == "streamlit_app.py"
    assert Path(command[4]).is_file()
    assert url == "sqlite:///klaudit.db"


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("streamlit", ("dashboard",), "dashboard"),
        ("torch", ("demo",), "demo"),
        ("vaderSentiment", ("demo",), "demo"),
        ("torch", ("drift", "measure", "--run", "loud", "--reference", "x"), "train"),
    ],
)
def test_a_missing_part_is_named_with_its_pip_line(
    klaudit: Command, monkeypatch: pytest.MonkeyPatch, module: str, command: tuple[str, ...], extra: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    outcome = klaudit(*command)
    assert outcome.code == 2
    assert f'pip install "klaudit[{extra}]"' in outcome.line
    assert look_at(Path.cwd()) == {}
