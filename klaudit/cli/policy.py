"""`klaudit policy`."""

from pathlib import Path
from typing import Annotated

import typer

from klaudit.audit import read_policy
from klaudit.cli.options import JsonOption
from klaudit.cli.output import console, print_json

app = typer.Typer(no_args_is_help=True, help="Policy files: which rules are on, with which numbers.")


@app.command("check")
def check_policy(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Policy file (TOML); docs/rules.md says what it may hold.")],
    as_json: JsonOption = False,
) -> None:
    """Read a policy file and say which policy it is; exits with 2 when it cannot be read."""
    policy = read_policy(file)
    if as_json:
        print_json({"policy": {"name": policy.name, "version": policy.version, "digest": policy.digest}})
        return
    console.print(f"policy {policy.name}, version {policy.version}, {policy.digest}", markup=False, soft_wrap=True)


@app.callback()
def _group() -> None:
    """Keeps `check` a command of its own: typer folds a group of one."""
