"""`klaudit export`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from klaudit.cli.options import RunArgument, StoreOption, read_given_store
from klaudit.cli.output import messages
from klaudit.cli.progress import track_steps
from klaudit.exchange.writers import WRITERS
from klaudit.report.views import format_count
from klaudit.workflows.exports import export_run, save_export


class Format(StrEnum):
    """What a run can be exported as."""

    steps_jsonl = "steps-jsonl"
    csv = "csv"
    parquet = "parquet"


def write_export(
    run: RunArgument,
    export_format: Annotated[
        Format, typer.Option("--format", help="steps-jsonl is klaudit-steps/1; csv and parquet have a column a number.")
    ] = Format.steps_jsonl,
    out: Annotated[Path | None, typer.Option("--out", metavar="PATH", help="File to write; default standard output.")] = None,
    store: StoreOption = None,
) -> None:
    """Write a run to a file that klaudit import reads back without loss."""
    name = export_format.value
    if out is None and not WRITERS[name].is_text and sys.stdout.isatty():
        raise typer.BadParameter(f"a terminal cannot show {name}: say --out PATH, or send standard output to a file")
    with read_given_store(store) as opened, track_steps("exported") as on_progress:
        if out is None:
            export_run(opened, run, sys.stdout.buffer, format_name=name, on_progress=on_progress)
            return
        n_steps = save_export(opened, run, out, format_name=name, on_progress=on_progress)
    messages.print(f"wrote {out} ({format_count(n_steps, 'step')}, {out.stat().st_size / 1000:,.0f} kB)", markup=False)
