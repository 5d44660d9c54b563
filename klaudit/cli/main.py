"""The command tree, and how an error becomes one line and an exit code."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import Abort, Exit, TyperException

import klaudit
from klaudit.cli import audit, backtest, budget, dashboard, db, demo, drift, export, frontier, imports, ledger, policy, report, rules, runs
from klaudit.cli.output import messages
from klaudit.errors import KlauditError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
CLOSED_PIPE = 141
"""Exit code when who reads standard output has gone, as `head` does; as shells have it for SIGPIPE."""

app = typer.Typer(
    name="klaudit",
    help="Flight recorder and auditor of RLHF training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="demo")(demo.run_demo)
app.command(name="train")(demo.run_training)
app.add_typer(runs.app, name="runs")
app.command(name="import")(imports.import_runs)
app.command(name="export")(export.write_export)
app.command(name="audit")(audit.audit_run)
app.command(name="backtest")(backtest.run_backtest)
app.add_typer(rules.app, name="rules")
app.add_typer(policy.app, name="policy")
app.add_typer(drift.app, name="drift")
app.command(name="frontier")(frontier.show_frontier)
app.add_typer(budget.app, name="budget")
app.add_typer(ledger.app, name="ledger")
app.command(name="report")(report.write_report)
app.command(name="dashboard")(dashboard.open_dashboard)
app.add_typer(db.app, name="db")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"klaudit {klaudit.__version__}")
        raise Exit(0)


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)] = False,
) -> None:
    del version


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run a command; returns the exit code."""
    try:
        result = app(args=list(arguments), prog_name="klaudit", standalone_mode=False)
        sys.stdout.flush()
    except KlauditError as error:
        messages.print(f"klaudit: {error}", markup=False, soft_wrap=True)
        return error.exit_code
    except TyperException as error:
        # A group without a command has printed its help and has nothing to add.
        if text := error.format_message():
            said = text.replace(": Value error, ", ": ").rstrip(".")
            messages.print(*f"klaudit: {said}. See: klaudit --help".splitlines(), sep="\n", markup=False, soft_wrap=True)
        return 2
    except Abort:
        messages.print("klaudit: nothing was done", markup=False)
        return 2
    except (OSError, SystemExit) as error:
        return _end_refused(error)
    except Exception:
        # Python's own exit code would be 1, which means findings.
        traceback.print_exc()
        messages.print("klaudit: this is a fault of klaudit's own; please report it with the lines above", markup=False, soft_wrap=True)
        return 3
    if result == INTERRUPTED:
        messages.print("klaudit: interrupted", markup=False)
    return result if isinstance(result, int) else 0


def _end_refused(error: OSError | SystemExit) -> int:
    """The exit code of a command that the system refused something."""
    # SystemExit is typer's answer to a broken pipe; its code, 1, would mean findings.
    if isinstance(error, (BrokenPipeError, SystemExit)):
        # What is still in the buffer would be tried again when the interpreter ends, and complained about.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    messages.print(f"klaudit: the system refused: {error}", markup=False, soft_wrap=True)
    return 3
