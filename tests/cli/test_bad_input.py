"""Bad input: one line that says what was expected and what to do, the promised exit code, and nothing written."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from klaudit.cli.main import main
from tests.cli.conftest import Command
from tests.cli.outcome import look_at

NEEDS_STORE = [
    ("runs", "list"),
    ("runs", "show", "loud"),
    ("runs", "delete", "loud", "--yes"),
    ("audit", "loud"),
    ("backtest", "--policy", "strict"),
    ("report", "loud"),
    ("drift", "show", "loud"),
    ("drift", "measure", "--run", "loud", "--reference", "."),
    ("budget", "list"),
    ("budget", "show", "b"),
    ("budget", "remove", "b"),
    ("budget", "set", "--limit", "1", "--unit", "nats_per_token", "--run", "loud"),
    ("dashboard",),
    ("db", "check"),
]
MAKES_STORE = [
    ("budget", "set", "--limit", "1", "--unit", "nats_per_token", "--match", "*"),
    ("demo", "--replay"),
    ("demo", "--model", "."),
    ("db", "upgrade"),
]
NAMES_RUN = [
    ("runs", "show", "laud"),
    ("runs", "delete", "laud", "--yes"),
    ("audit", "laud"),
    ("backtest", "quiet", "laud", "--policy", "strict"),
    ("report", "laud", "--out", "report.html"),
    ("drift", "show", "laud"),
    ("drift", "measure", "--run", "laud", "--reference", "."),
    ("budget", "set", "--limit", "1", "--unit", "nats_per_token", "--run", "laud"),
]


@pytest.mark.parametrize("command", NEEDS_STORE, ids=" ".join)
def test_a_missing_store_is_named_with_the_command_that_makes_one(klaudit: Command, command: tuple[str, ...]) -> None:
    outcome = klaudit(*command)
    assert outcome.code == 3
    assert "klaudit db upgrade" in outcome.line
    assert look_at(Path.cwd()) == {}


@pytest.mark.parametrize("command", NAMES_RUN, ids=" ".join)
def test_an_unknown_run_is_named_with_those_that_are_near(klaudit: Command, store_file: Path, command: tuple[str, ...]) -> None:
    before = look_at(Path.cwd())
    outcome = klaudit(*command)
    assert outcome.code == 2
    assert "got 'laud'. Nearest names: loud" in outcome.line
    assert look_at(Path.cwd()) == before


@pytest.mark.parametrize("command", [*NEEDS_STORE, *MAKES_STORE], ids=" ".join)
def test_a_file_that_is_no_database_is_left_as_it_is(klaudit: Command, command: tuple[str, ...]) -> None:
    Path("klaudit.db").write_text("Dear diary, today the policy collapsed again. " * 50)
    before = look_at(Path.cwd())
    outcome = klaudit(*command)
    assert outcome.code == 3
    assert "no database" in outcome.line
    assert look_at(Path.cwd()) == before


@pytest.mark.parametrize("command", [*NEEDS_STORE, *MAKES_STORE], ids=" ".join)
def test_somebody_elses_database_is_left_as_it_is(klaudit: Command, command: tuple[str, ...]) -> None:
    with closing(sqlite3.connect("klaudit.db")) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    before = look_at(Path.cwd())
    outcome = klaudit(*command)
    assert outcome.code == 3
    assert "belongs to something else" in outcome.line
    assert look_at(Path.cwd()) == before


@pytest.mark.parametrize("command", [one for one in (*NEEDS_STORE, *MAKES_STORE) if one != ("db", "check")], ids=" ".join)
def test_a_newer_database_says_how_to_catch_up_with_it(klaudit: Command, store_file: Path, command: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(store_file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("UPDATE klaudit_meta SET value = '99.0' WHERE name = 'upgraded_by'")
    before = look_at(Path.cwd())
    outcome = klaudit(*command)
    assert outcome.code == 3
    assert "klaudit 99.0 made it" in outcome.line
    assert "pip install -U klaudit" in outcome.line
    assert look_at(Path.cwd()) == before


def test_a_newer_database_is_not_current(klaudit: Command, store_file: Path) -> None:
    with closing(sqlite3.connect(store_file, isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    outcome = klaudit("db", "check", "--json")
    assert outcome.code == 3
    assert (outcome.json["store"]["revision"], outcome.json["store"]["is_current"]) == ("9999", False)


@pytest.mark.parametrize("url", ["klaudit.db", "oracle://host/db", "sqlite:///", "postgresql://host:notaport/x", "postgresql://[::1/x"])
def test_a_store_that_is_no_store_is_refused(klaudit: Command, url: str) -> None:
    outcome = klaudit("runs", "list", "--store", url)
    assert outcome.code in (2, 3)
    assert outcome.line
    assert look_at(Path.cwd()) == {}


USAGE = {
    ("nonsense",): "No such command 'nonsense'",
    ("audit",): "Missing argument 'RUN'",
    ("audit", "loud", "--fail-on", "never"): "'never' is not one of 'info', 'warning', 'critical'",
    ("report", "loud", "--format", "docx"): "'docx' is not one of 'html', 'json', 'md'",
    ("runs", "list", "--colour"): "No such option",
    ("dashboard", "--port", "99999999"): "65535",
    ("export", "loud", "--format", "xml"): "Invalid value for '--format': 'xml' is not one of",
    ("demo", "--steps", "0"): "greater than or equal to 1. See: klaudit --help",
    ("rules", "show", "KLA999"): "no rule 'KLA999'; known: KLA101 budget_exceeded",
    ("budget", "set", "--limit", "1", "--unit", "nats_per_token"): "either --run RUN or --match PATTERN; got neither",
    ("budget", "set", "--limit", "1", "--unit", "nats_per_token", "--run", "a", "--match", "b"): "got both",
    ("budget", "set", "--limit", "-1", "--unit", "nats_per_token", "--match", "*"): "KLBudget.limit must be a positive number",
    ("budget", "set", "--limit", "nan", "--unit", "nats_per_token", "--match", "*"): "KLBudget.limit must be a positive number",
    ("budget", "set", "--limit", "1", "--unit", "bits", "--match", "*"): "KLBudget.unit must be one of",
    ("budget", "set", "--limit", "1", "--unit", "nats_per_token", "--match", "*", "--scope", "window"): "window_steps goes with scope",
    ("budget", "set", "--limit", "1", "--unit", "nats_per_token", "--match", "*", "--action", "raise_beta"): "not there yet",
    ("drift", "measure", "--reference", "x"): "either --run RUN or --checkpoints DIR; got neither",
    ("policy", "check", "nowhere.toml"): "nowhere.toml: expected a policy file",
    ("train", "nowhere.toml"): "expected a TOML file at nowhere.toml; there is none",
}


@pytest.mark.parametrize("command", USAGE, ids=" ".join)
def test_wrong_usage_is_two_and_one_line(klaudit: Command, command: tuple[str, ...]) -> None:
    outcome = klaudit(*command)
    assert outcome.code == 2
    assert USAGE[command] in outcome.line
    assert look_at(Path.cwd()) == {}


POLICIES = {
    'name = "a"\n[rules.KLA999]\n': "rules: unknown key 'KLA999'",
    'name = "a"\n[rules.KLA201]\nwarning = 3.0\n': "unknown key 'warning'",
    'name = "a"\n[rules.KLA201]\ncritical_kl = "high"\n': "critical_kl",
    "name = \n": "expected TOML",
}


@pytest.mark.parametrize("content", POLICIES)
@pytest.mark.parametrize("command", [("policy", "check", "bad.toml"), ("audit", "loud", "--policy", "bad.toml")], ids=" ".join)
def test_a_bad_policy_is_named_by_file_and_key(klaudit: Command, store_file: Path, command: tuple[str, ...], content: str) -> None:
    Path("bad.toml").write_text(content)
    before = look_at(Path.cwd())
    outcome = klaudit(*command)
    assert outcome.code == 2
    assert "bad.toml" in outcome.line
    assert POLICIES[content] in outcome.line
    assert look_at(Path.cwd()) == before


RECIPES = {
    'name = "a"\nsteps = 5\n': "unknown key 'steps'; known are name, policy",
    'name = "a"\n[ppo]\nmax_step = 5\n': "table [ppo]: unknown PPO setting 'max_step'",
    'name = "a"\n[ppo]\nmax_steps = "five"\n': "table [ppo]: max_steps must be",
    'name = "a"\n[ppo]\nbeta = -1\n': "table [ppo]: beta must be 0 or more",
    'name = "a"\nppo = 5\n': "expected ppo to be a table [ppo]; got 5",
    'name = "a"\nbudget = 5\n': "expected budget to be tables [[budget]]; got 5",
    'name = "a"\nbudget = [5]\n': "expected tables [[budget]]; got 5 among them",
    'name = "a"\n[[budget]]\nlimit = 5.0\n': "unit missing; a limit needs its unit",
    'name = "a"\n[[budget]]\nlimit = "5"\nunit = "nats_per_token"\n': "KLBudget.limit must be a positive number of nats; got '5'",
    'name = "a"\n[[budget]]\nlimt = 5.0\n': "table [[budget]]: unknown key 'limt'",
    'name = "a"\n[[budget]]\nlimit = 5.0\nunit = "nats_per_token"\naction = "raise_beta"\n': "'raise_beta' is not there yet",
    'policy = "a"\n': "expected a name for the run",
    'name = "a"\npolicy = 5\n': "expected policy to be a string; got 5",
    'name = "a"\npolicy = "./nowhere"\n': "No model directory at './nowhere'",
    "name = \n": "expected TOML",
}


@pytest.mark.parametrize("content", RECIPES)
def test_a_bad_recipe_trains_nothing_and_writes_nothing(klaudit: Command, content: str) -> None:
    Path("bad.toml").write_text(content)
    before = look_at(Path.cwd())
    outcome = klaudit("train", "bad.toml")
    assert outcome.code == 2
    assert RECIPES[content] in outcome.line
    assert look_at(Path.cwd()) == before


def test_a_model_that_is_not_there_trains_nothing_and_writes_nothing(klaudit: Command) -> None:
    outcome = klaudit("demo", "--model", "./nowhere")
    assert outcome.code == 2
    assert "No model directory at './nowhere'" in outcome.line
    assert look_at(Path.cwd()) == {}


def test_a_checkpoint_that_is_not_there_is_named(klaudit: Command, store_file: Path) -> None:
    Path("a.toml").write_text('name = "a"\n')
    outcome = klaudit("train", "a.toml", "--resume", "nowhere")
    assert outcome.code == 2
    assert "--resume: expected a checkpoint's directory; there is none at nowhere" in outcome.line
    before = look_at(Path.cwd())
    outcome = klaudit("drift", "measure", "--run", "loud", "--reference", ".")
    assert outcome.code == 2
    assert "the run has no checkpoints" in outcome.line
    assert look_at(Path.cwd()) == before


@pytest.mark.parametrize("content", ['stroe = "a"', "store = 5", "store ="])
def test_a_bad_settings_file_is_named(klaudit: Command, content: str) -> None:
    Path("klaudit.toml").write_text(content)
    outcome = klaudit("runs", "list")
    assert outcome.code == 2
    assert "klaudit.toml" in outcome.line


def test_a_report_that_cannot_be_written_is_three(klaudit: Command, store_file: Path) -> None:
    Path("taken").mkdir()
    outcome = klaudit("report", "loud", "--out", "taken")
    assert outcome.code == 3
    assert "cannot write taken" in outcome.line
    assert [path.name for path in Path.cwd().iterdir() if path.name.endswith(".part")] == []


def test_the_process_exits_with_the_code_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["runs", "list"])
    assert exited.value.code == 3
    assert "Traceback" not in capsys.readouterr().err
