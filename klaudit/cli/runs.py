"""`klaudit runs`."""

from typing import Annotated, Any

import typer

from klaudit.audit.audit import describe_series
from klaudit.cli.options import ByOption, JsonOption, RunArgument, StoreOption, open_given_store, read_given_store
from klaudit.cli.output import console, messages, print_json, print_table
from klaudit.records import UNIT_LABELS, KLReading, RunSummary

app = typer.Typer(no_args_is_help=True, help="List, show and delete runs.")


@app.command("list")
def list_runs(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """All runs, the newest first."""
    with read_given_store(store) as opened:
        summaries = opened.runs.list()
    if as_json:
        print_json({"runs": [describe_summary(one) for one in summaries]})
        return
    print_table(
        ("run", "id", "status", "steps>", "last KL>", "beta>", "score>", "findings"),
        [_to_row(one) for one in summaries],
        empty="no runs yet: klaudit demo, or klaudit demo --replay for recorded ones",
    )


@app.command("show")
def show_run(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """One run: what it is, what its KLs are, where it stands."""
    with read_given_store(store) as opened:
        found = opened.runs.get(run)
        summary = next(one for one in opened.runs.list() if one.run.id == found.id)
        segments = opened.runs.segments(found.id)
    if as_json:
        series = {key: describe_series(one) for key, one in found.series.items()}
        print_json({"run": {**describe_summary(summary), "segments": len(segments), "series": series, "config": dict(found.config)}})
        return
    described = describe_summary(summary) | {"last_kl": format_kl(summary.last_kl), "findings": format_findings(summary)}
    for name, value in described.items():
        if value is not None:
            console.print(f"{name:>16}  {value}", markup=False, soft_wrap=True)
    for key, one in found.series.items():
        console.print(f"{key:>16}  {one.label}, from {one.source_key or 'the loop itself'}", markup=False, soft_wrap=True)


@app.command("delete")
def delete_run(
    run: RunArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    by: ByOption = None,
    store: StoreOption = None,
) -> None:
    """Delete a run and everything that was recorded of it; the ledger keeps that it was there."""
    with open_given_store(store, by=by) as opened:
        found = opened.runs.get(run)
        if not yes:
            typer.confirm(
                f"Delete run {found.name!r} and its {opened.steps.count(found.id)} steps? This cannot be undone", abort=True, err=True
            )
        opened.runs.delete(found.id)
    messages.print(f"deleted run {found.name!r}", markup=False)


def describe_summary(summary: RunSummary) -> dict[str, Any]:
    """A line of the list as JSON."""
    run = summary.run
    return {
        "id": run.id,
        "name": run.name,
        "status": run.status,
        "algorithm": run.algorithm,
        "framework": run.framework,
        "policy": run.policy,
        "reference": run.reference.name if run.reference else None,
        "reference_digest": run.reference.digest if run.reference else None,
        "started_at": run.started_at.isoformat(),
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
        "planned_steps": run.planned_steps,
        "batch_size": run.batch_size,
        "steps": summary.n_steps,
        "last_step": summary.last_step,
        "last_logged_at": summary.last_logged_at.isoformat() if summary.last_logged_at else None,
        "last_kl": describe_reading(summary.last_kl),
        "last_beta": summary.last_beta,
        "last_score": summary.last_score,
        "findings": {str(severity): count for severity, count in summary.n_findings.items()},
    }


def describe_reading(reading: KLReading | None) -> dict[str, Any] | None:
    """A KL with everything that makes it one, as JSON."""
    if reading is None:
        return None
    series = reading.series
    return {
        "value": reading.value,
        "standard_error": reading.standard_error,
        "kind": series.kind,
        "estimator": series.estimator,
        "unit": series.unit,
        "not_measured": reading.not_measured,
    }


def _to_row(summary: RunSummary) -> tuple[str, ...]:
    run = summary.run
    steps = f"{summary.n_steps}/{run.planned_steps}" if run.planned_steps else str(summary.n_steps)
    return (
        run.name,
        run.id,
        run.status,
        steps,
        format_kl(summary.last_kl),
        _format(summary.last_beta),
        _format(summary.last_score),
        format_findings(summary),
    )


def format_findings(summary: RunSummary) -> str:
    """How many findings of each severity, for people."""
    return ", ".join(f"{count} {severity}" for severity, count in summary.n_findings.items()) or "none"


def format_kl(reading: KLReading | None) -> str:
    """A KL for people: value, standard error, unit and estimator."""
    if reading is None or reading.value is None:
        return "not measured"
    error = "" if reading.standard_error is None else f" ± {reading.standard_error:.2g}"
    return f"{reading.value:.3g}{error} {UNIT_LABELS[reading.series.unit]} ({reading.series.estimator})"


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
