"""`klaudit report`."""

import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from klaudit.audit import find_policy
from klaudit.cli.options import PolicyOption, RunArgument, StoreOption, read_given_store
from klaudit.cli.output import messages
from klaudit.workflows.reports import compose_report, save_report


class Format(StrEnum):
    """What a report can be."""

    html = "html"
    json = "json"
    md = "md"


def write_report(
    run: RunArgument,
    report_format: Annotated[Format, typer.Option("--format", help="html is one file with its charts in it.")] = Format.html,
    out: Annotated[Path | None, typer.Option("--out", metavar="PATH", help="File to write; default standard output.")] = None,
    policy: PolicyOption = None,
    store: StoreOption = None,
) -> None:
    """Write a report of a run."""
    chosen = None if policy is None else find_policy(policy)
    with read_given_store(store) as opened:
        text = compose_report(opened, run, report_format=report_format.value, generated_at=datetime.now(UTC), policy=chosen)
    if out is None:
        sys.stdout.write(text)
        return
    save_report(out, text)
    messages.print(f"wrote {out} ({len(text.encode()) / 1000:,.0f} kB)", markup=False)
