"""`klaudit runs`."""

from typing import Annotated, Any

import typer

from klaudit.audit.audit import describe_series
from klaudit.cli.options import ByOption, JsonOption, RunArgument, StoreOption, open_given_store, read_given_store
from klaudit.cli.output import console, messages, print_json, print_table
from klaudit.records import UNIT_LABELS, KLReading, RunSummary
from klaudit.report.views import format_count
from klaudit.workflows.pages import Pages
from klaudit.workflows.stops import list_stops

app = typer.Typer(no_args_is_help=True, help="List, show and delete runs.")


@app.command("list")
def list_runs(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """All runs, the newest first."""
    with read_given_store(store) as opened:
        summaries, pages = opened.runs.list(), Pages(opened)
        silences = {one.run.id: pages.find_silence(one) for one in summaries}
    if as_json:
        print_json({"runs": [describe_summary(one, silence=silences[one.run.id]) for one in summaries]})
        return
    print_table(
        ("run", "id", "status", "steps>", "last KL>", "beta>", "score>", "findings"),
        [_to_row(one, silence=silences[one.run.id]) for one in summaries],
        empty="no runs yet: klaudit demo, or klaudit demo --replay for recorded ones",
    )


@app.command("show")
def show_run(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """One run: what it is, what its KLs are, where it stands."""
    with read_given_store(store) as opened:
        found = opened.runs.get(run)
        summary = opened.runs.summarize(found.id)
        silence = Pages(opened).find_silence(summary)
        segments, stops = opened.runs.segments(found.id), list_stops(opened, found.id)
    if as_json:
        series = {key: describe_series(one) for key, one in found.series.items()}
        described = describe_summary(summary, silence=silence)
        ends = [one.to_dict() for one in stops]
        print_json({"run": {**described, "segments": len(segments), "stops": ends, "series": series, "config": dict(found.config)}})
        return
    described = describe_summary(summary, silence=silence) | {
        "status": format_status(summary, silence=silence),
        "last_kl": format_kl(summary.last_kl),
        "last_beta": None if summary.last_beta is None else _format(summary.last_beta),
        "last_score": None if summary.last_score is None else _format(summary.last_score),
        "findings": format_findings(summary),
    }
    # The status says it already.
    del described["is_live"]
    for name, value in described.items():
        if value is not None:
            console.print(f"{name:>16}  {value}", markup=False, soft_wrap=True)
    for stop in stops:
        console.print(f"{'stopped':>16}  {stop.label}", markup=False, soft_wrap=True)
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
                f"Delete run {found.name!r} and its {format_count(opened.steps.count(found.id), 'step')}? This cannot be undone",
                abort=True,
                err=True,
            )
        opened.runs.delete(found.id)
    messages.print(f"deleted run {found.name!r}", markup=False)


def describe_summary(summary: RunSummary, *, silence: str | None) -> dict[str, Any]:
    """A line of the list as JSON; `silence` where a running run shows no sign of life."""
    run = summary.run
    return {
        "id": run.id,
        "name": run.name,
        "status": run.status,
        "is_live": silence is None if run.status == "running" else None,
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


def _to_row(summary: RunSummary, *, silence: str | None) -> tuple[str, ...]:
    run = summary.run
    steps = f"{summary.last_step or 0}/{run.planned_steps}" if run.planned_steps else str(summary.n_steps)
    return (
        run.name,
        run.id,
        format_status(summary, silence=silence),
        steps,
        format_kl(summary.last_kl),
        _format(summary.last_beta),
        _format(summary.last_score),
        format_findings(summary),
    )


def format_status(summary: RunSummary, *, silence: str | None) -> str:
    """The status for people, with the silence of a run that says that it is running."""
    return summary.run.status if silence is None else f"{summary.run.status} ({silence})"


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
