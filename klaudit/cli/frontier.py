"""`klaudit frontier`."""

from typing import Annotated, Any

import typer

from klaudit.cli.options import JsonOption, StoreOption, read_given_store
from klaudit.cli.output import console, print_json, print_table
from klaudit.frontier import FrontierStudy, Interval
from klaudit.frontier.study import ScoreStudy
from klaudit.report.views import format_number
from klaudit.report.views.frontier import FrontierView, view_frontier
from klaudit.workflows.frontier import study_stored_runs


def show_frontier(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids or names; several are taken as a sweep of beta.")],
    heldout_offset: Annotated[
        float | None,
        typer.Option("--heldout-offset", metavar="R0", help="Held-out score of the reference, in reward. Default: estimated."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score and held-out score against d = sqrt(KL per sequence): fits, peak, KL* as a budget, advice on beta."""
    with read_given_store(store) as opened:
        study = study_stored_runs(opened, runs, heldout_offset=heldout_offset)
    view = view_frontier(study)
    if as_json:
        print_json(describe_study(study, view))
    else:
        print_frontier(view)


def print_frontier(view: FrontierView) -> None:
    """A study for people."""
    console.print("Reward against drift of", style="bold", end=" ")
    console.print(", ".join(view.names) or "no point: no step has a KL per sequence and a score", markup=False, soft_wrap=True)
    for sentence in view.sentences:
        console.print(f"  {sentence}", markup=False, soft_wrap=True)
    for curve in view.curves:
        console.print(f"  {curve.label}{' (better)' if curve.is_better else ''}", markup=False, soft_wrap=True)
        console.print(f"    {curve.formula}", markup=False, style="dim", soft_wrap=True)
    if view.swept:
        rows = [(one.run, format_number(one.beta), format_number(one.final_d), format_number(one.final_d**2)) for one in view.swept]
        print_table(("run", "beta, reward/nat>", "final d, sqrt(nats)>", "final KL, nats/sequence>"), rows, empty="")
    console.print("Advice on beta", style="bold")
    for sentence in view.advice or ("none: it needs a peak that was seen.",):
        console.print(f"  {sentence}", markup=False, soft_wrap=True)
    if view.command:
        console.print("Budget that the data propose", style="bold")
        console.print(f"  {view.command}", markup=False, soft_wrap=True)


def describe_study(study: FrontierStudy, view: FrontierView) -> dict[str, Any]:
    """A study as JSON: d in sqrt(nats), KL in nats per sequence, scores in reward, beta in reward per nat, intervals of 95%."""
    kl = study.proposed_kl
    return {
        "runs": [{"name": one.run, "points": one.n_points} for one in view.series],
        "score": _describe_score(study.score),
        "heldout_score": _describe_score(study.heldout),
        "marginal": None if study.marginal is None else {**_describe_interval(study.marginal), "at_d": study.marginal_at},
        "proposed_budget": None if kl is None else {**_describe_interval(kl), "unit": "nats_per_sequence", "command": view.command},
        "advice": [
            {"basis": one.basis, "beta": None if one.beta is None else _describe_interval(one.beta), "reason": one.reason}
            for one in study.advice
        ],
        "swept": [{"name": one.name, "beta": one.beta, "final_d": one.final_d} for one in study.swept],
        "statements": list(view.sentences),
        "caveats": list(view.caveats),
    }


def _describe_score(study: ScoreStudy) -> dict[str, Any]:
    peak = study.peak
    fits = [
        {
            "form": fit.form,
            "offset": fit.offset,
            "alpha": fit.alpha,
            "bend": fit.bend,
            "covariance": [list(row) for row in fit.covariance],
            "points": fit.n,
            "degrees_of_freedom": fit.degrees_of_freedom,
            "residual_sd": fit.residual_sd,
            "memory": fit.memory,
            "least_d": fit.least_d,
            "largest_d": fit.largest_d,
            "peak": {"kind": study.peaks[fit.form].kind, "d": _describe_optional(study.peaks[fit.form].d)},
        }
        for fit in study.fits
    ]
    described = None if peak is None else {"kind": peak.kind, "d": _describe_optional(peak.d), "fall": _describe_optional(peak.fall)}
    return {"fits": fits, "aicc_advantage": study.advantage, "peak": described, "why_not": study.reason or None}


def _describe_optional(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else _describe_interval(interval)


def _describe_interval(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
