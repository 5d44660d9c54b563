from collections.abc import Iterator
from typing import Any

import pytest
import typer

import klaudit as package
from klaudit.cli.main import app
from tests.cli.conftest import Command


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, (*path, name))


COMMANDS = dict(walk(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help(klaudit: Command, path: tuple[str, ...]) -> None:
    assert COMMANDS[path].help
    outcome = klaudit(*path, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.split()[:2] == ["Usage:", "klaudit"]
    assert " ".join(COMMANDS[path].help.split()[:3]) in " ".join(outcome.out.split())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    wordless = [option.name for option in COMMANDS[path].params if option.param_type_name == "option" and not option.help]
    assert wordless == []


def test_the_commands_are_those_that_were_promised() -> None:
    # Scripts depend on these names.
    assert {" ".join(path) for path, command in COMMANDS.items() if not hasattr(command, "commands")} == {
        "demo", "train", "audit", "backtest", "report", "dashboard", "runs list", "runs show", "runs delete", "rules list", "rules show",
        "policy check", "policy list", "policy schema", "policy show",
        "drift measure", "drift show", "drift matrix", "budget set", "budget list", "budget show", "budget remove", "db upgrade", "db check",
        "import", "export", "frontier", "ledger head", "ledger list", "ledger verify",
    }  # fmt: skip


def test_the_version_is_that_of_the_package(klaudit: Command) -> None:
    outcome = klaudit("--version")
    assert (outcome.code, outcome.out) == (0, f"klaudit {package.__version__}\n")


@pytest.mark.parametrize("path", [(), ("runs",), ("budget",)])
def test_a_group_without_a_command_shows_its_help(klaudit: Command, path: tuple[str, ...]) -> None:
    outcome = klaudit(*path)
    assert (outcome.code, outcome.err) == (2, "")
    assert "Commands" in outcome.out
