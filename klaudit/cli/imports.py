"""`klaudit import`."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from klaudit.audit.audit import describe_series
from klaudit.cli.options import JsonOption, StoreOption, open_given_store
from klaudit.cli.output import console, print_json
from klaudit.cli.progress import track_bytes
from klaudit.errors import InvalidConfig
from klaudit.exchange.own_keys import read_metric_map
from klaudit.exchange.reader import ReadOptions
from klaudit.records import PRIMARY, KLSeries
from klaudit.records.series import Aggregation, Direction, Estimator, Kind, Unit
from klaudit.report.views import format_count
from klaudit.workflows.imports import RunImport, check_file, import_file

VOCABULARIES = {"kind": Kind, "estimator": Estimator, "unit": Unit, "aggregation": Aggregation, "direction": Direction}
DECLARE = "--kl reference,k3,nats_per_token"


def import_runs(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file, or a directory that a tool logged to. See docs/import.md.")],
    format_name: Annotated[str | None, typer.Option("--format", metavar="F", help="Default: told by what is in the file.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Of the run. Default: what the file is called.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="NAME=COLUMN",
            help="step, segment, time, kl, beta, score or a metric = the file's own name of it. Repeatable.",
        ),
    ] = None,
    kl: Annotated[
        list[str] | None,
        typer.Option("--kl", metavar="WHAT", help="What a KL is: reference,k3,nats_per_token; kl_update=update,k1,... Repeatable."),
    ] = None,
    metric_map: Annotated[
        Path | None, typer.Option("--map", metavar="FILE", help="What the file's own keys are (TOML): a KL or a name of klaudit's.")
    ] = None,
    framework: Annotated[
        str | None, typer.Option("--framework", metavar="NAME", help="Trainer that logged it. Default: told by its keys.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="PATTERN", help="Of a file with several runs, those of this id or name; * stands for anything."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import what another tool wrote, all of it or nothing. Importing a file again changes nothing."""
    options = ReadOptions(
        name=name,
        columns=dict(split_pair("--column", one) for one in column or ()),
        series=dict(read_declaration(one) for one in kl or ()),
        metric_map=read_metric_map(metric_map) if metric_map is not None else {},
        framework=framework,
        run_filter=run,
    )
    with track_bytes("checking") as on_progress:
        check_file(path, format_name=format_name, options=replace(options, on_progress=on_progress))
    with open_given_store(store, create=True) as opened, track_bytes("importing") as on_progress:
        imports = import_file(opened, path, format_name=format_name, options=replace(options, on_progress=on_progress))
    if as_json:
        print_json({"runs": [describe_import(one) for one in imports]})
        return
    for one in imports:
        print_import(one, option="" if store is None else f" --store {shlex.quote(store)}")


def split_pair(option: str, text: str) -> tuple[str, str]:
    """The two sides of NAME=COLUMN.

    Raises:
        InvalidConfig: one of them is missing.
    """
    name, _, column = text.partition("=")
    if not name.strip() or not column.strip():
        raise InvalidConfig(f"{option}: expected NAME=COLUMN, such as kl=kl_div; got {text!r}")
    return name.strip(), column.strip()


def read_declaration(text: str) -> tuple[str, KLSeries]:
    """Series key and series of `reference,k3,nats_per_token` or `kl_update=update,k1,nats_per_token`.

    Raises:
        InvalidConfig: a word that belongs to no vocabulary of a KL series, or two that belong to one.
    """
    key, words = split_pair("--kl", text) if "=" in text else (PRIMARY, text)
    chosen: dict[str, Any] = {}
    for word in (one.strip() for one in words.split(",")):
        field = next((field for field, words in VOCABULARIES.items() if word in set(get_args(words)) - {"unknown"}), None)
        if field is None or field in chosen:
            allowed = "; ".join(
                f"{field}: {', '.join(one for one in get_args(words) if one != 'unknown')}" for field, words in VOCABULARIES.items()
            )
            raise InvalidConfig(f"--kl: expected at most one word of each of {allowed}; got {word!r} in {text!r}")
        chosen[field] = word
    if chosen.get("kind") == "update":
        # KL(old policy || policy): the old policy is what is measured from.
        chosen.setdefault("direction", "forward")
    return key, KLSeries(**chosen)


def print_import(one: RunImport, *, option: str) -> None:
    """What became of a run, for people."""
    loaded, run = one.loaded, one.loaded.run
    if not loaded.is_new:
        console.print(
            f"run {run.name!r} (id {run.id}) holds this already: {format_count(loaded.n_steps, 'step')}; nothing was changed",
            markup=False,
            soft_wrap=True,
        )
        return
    console.print(
        f"run {run.name!r} (id {run.id}): {format_count(loaded.n_steps, 'step')} of {one.format_name}", markup=False, soft_wrap=True
    )
    for key, series in run.series.items():
        source = f"from {series.source_key!r}, " if series.source_key else ""
        console.print(f"{key:>12}  {source}taken for {series.label}", markup=False, soft_wrap=True)
    primary = run.series.get(PRIMARY)
    lines = [*one.notes]
    if not loaded.n_steps:
        lines.insert(0, "the file has no steps")
    elif not loaded.n_kl_measured and run.series.keys() <= {PRIMARY}:
        lines.insert(0, "no step has a KL; name its column with --column kl=COLUMN")
    elif primary is not None and run.governing_key is None:
        lines.insert(
            0, f"no KL is declared with kind, estimator and unit, so no budget is compared with it; say what it is, such as {DECLARE}"
        )
    for line in lines:
        console.print(f"{'note':>12}  {line}", markup=False, soft_wrap=True)
    called = shlex.quote(run.name) if run.name.isprintable() else run.id
    console.print(f"{'findings':>12}  {loaded.n_findings}; see: klaudit audit {called}{option}", markup=False, soft_wrap=True)


def describe_import(one: RunImport) -> dict[str, Any]:
    """What became of a run, as JSON."""
    loaded, run = one.loaded, one.loaded.run
    return {
        "id": run.id,
        "name": run.name,
        "is_new": loaded.is_new,
        "format": one.format_name,
        "framework": run.framework,
        "algorithm": run.algorithm,
        "steps": loaded.n_steps,
        "kl_measured": loaded.n_kl_measured,
        "series": {key: describe_series(series) for key, series in run.series.items()},
        "findings": loaded.n_findings,
        "notes": list(one.notes),
    }
