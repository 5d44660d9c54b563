"""`klaudit backtest`."""

from typing import Annotated

import typer

from klaudit.audit import find_policy
from klaudit.audit.backtest import WITHIN_STEPS, Backtest, Firing, Moment, RunBacktest, Side, Total, Trial
from klaudit.cli.options import JsonOption, StoreOption, read_given_store
from klaudit.cli.output import console, print_json, print_table
from klaudit.cli.progress import track_steps
from klaudit.records import Severity
from klaudit.report.views import format_count
from klaudit.workflows.backtest import backtest_runs

MOST_LINES = 40
"""Moments that people are shown; `--json` has all."""

COLLAPSE_LABELS = {"over_budget": "over its budget", "non_finite": "not finite", "failed": "failed", "end": "ended"}


def run_backtest(
    policy: Annotated[str, typer.Option("--policy", metavar="FILE|PRESET", help="The policy to try: a file (TOML), or a preset's name.")],
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN", help="Ids or names of runs. Default: every run.")] = None,
    against: Annotated[str, typer.Option("--against", metavar="FILE|PRESET", help="The policy to compare it with.")] = "default",
    within: Annotated[
        int, typer.Option("--within", min=0, help="Alarms of the two so many steps apart are about the same.")
    ] = WITHIN_STEPS,
    fail_on: Annotated[
        Severity | None, typer.Option("--fail-on", help="Exit with 1 when --policy would have told of something at or above this.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Say what a policy would have told of past runs, when, and how long before their end or collapse; writes nothing."""
    tried, other = find_policy(policy), find_policy(against)
    at_least = min((Severity.WARNING, fail_on or Severity.WARNING), key=lambda severity: severity.rank)
    with read_given_store(store) as opened, track_steps("back-testing") as on_progress:
        found = backtest_runs(
            opened, runs or (), policy=tried, against=other, at_least=at_least, within_steps=within, on_progress=on_progress
        )
    if as_json:
        print_json(found.to_dict())
    else:
        print_backtest(found)
    return 1 if fail_on is not None and found.has_firings_at(fail_on) else 0


def print_backtest(found: Backtest) -> None:
    """A back-test for people."""
    names = name_policies(found)
    columns, rows = tabulate_runs(found)
    print_table(columns, rows, empty="no runs yet: klaudit demo, or klaudit import PATH")
    if not found.runs:
        return
    print_moments(found, names)
    console.print(f"Alarms at {found.at_least} or above, over {format_count(len(found.runs), 'run')}:", markup=False)
    for name, total in zip(names, (found.total("policy"), found.total("against")), strict=True):
        console.print(f"  {name}: {show_total(total)}", markup=False, soft_wrap=True)
    both, only, other = (found.count(side) for side in ("both", "only_policy", "only_against"))
    console.print(
        f"  told by both within {found.within_steps} steps: {both}; by {names[0]} alone: {only}; by {names[1]} alone: {other}",
        markup=False,
        soft_wrap=True,
    )


def tabulate_runs(found: Backtest) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns, those of numbers ending in `>`, and one row a run."""
    first, second = name_policies(found)
    sides: tuple[Side, ...] = ("both", "only_policy", "only_against")
    rows = [
        (
            one.run.name,
            str(one.policy.n_steps),
            show_collapse(one),
            str(len(one.policy.firings)),
            show_first(one.policy),
            str(len(one.against.firings)),
            show_first(one.against),
            *(str(one.count(side)) for side in sides),
        )
        for one in found.runs
    ]
    return (
        "run",
        "steps>",
        "came to",
        f"{first}>",
        "first alarm",
        f"{second}>",
        "first alarm",
        "both>",
        "only first>",
        "only second>",
    ), rows


def name_policies(found: Backtest) -> tuple[str, str]:
    """The two by their names, or by their digests as well where the names are the same."""
    first, second = found.policy, found.against
    if first.name != second.name:
        return first.name, second.name
    return f"{first.name} ({first.digest[7:15]})", f"{second.name} ({second.digest[7:15]})"


def print_moments(found: Backtest, names: tuple[str, str]) -> None:
    """When something would have been told, by which of the two."""
    rows = [(one.run.name, moment) for one in found.runs for moment in one.moments]
    shown = [(name, show_place(moment), show_codes(moment.policy), show_codes(moment.against)) for name, moment in rows[:MOST_LINES]]
    if shown:
        console.print("")
        print_table(("run", "step>", names[0], names[1]), shown, empty="")
    if len(rows) > MOST_LINES:
        console.print(f"and {len(rows) - MOST_LINES} more; --json has all", markup=False)
    console.print("")


def show_place(moment: Moment) -> str:
    """`412`, or `412 of segment 1`."""
    place = moment.place
    return f"{place.step} of segment {place.segment}" if place.segment else str(place.step)


def show_codes(firings: tuple[Firing, ...]) -> str:
    """`warning KLA201 kl_jump at 412`, for each."""
    return ", ".join(f"{one.finding.severity} {one.finding.code} {one.finding.rule} at {one.place.step}" for one in firings) or "-"


def show_collapse(one: RunBacktest) -> str:
    """`over its budget at step 36`."""
    if one.collapse is None:
        return "no steps"
    is_going_on = one.run.status == "running" and one.collapse.kind == "end"
    label = "still trained" if is_going_on else COLLAPSE_LABELS[one.collapse.kind]
    return f"{label} at step {one.collapse.place.step}"


def show_first(trial: Trial) -> str:
    """`step 30, 6 steps (1.5 min) before`."""
    if not trial.firings:
        return "-"
    first = trial.firings[0]
    if first.steps_before == 0:
        return f"step {first.place.step}, at it"
    when = "before" if first.steps_before > 0 else "after"
    return f"step {first.place.step}, {format_count(abs(first.steps_before), 'step')} ({abs(first.minutes_before):.3g} min) {when}"


def show_total(total: Total) -> str:
    """`12 alarms in 4,000 steps, 3 per 1,000 steps (95% interval 1.55 to 5.24)`, and how the collapses were told of."""
    rate = total.rate
    text = f"{format_count(rate.n_alarms, 'alarm')} in {format_count(rate.n_steps, 'step')}"
    if rate.n_steps:
        low, high = rate.interval
        text += f", {rate.value:.3g} per 1,000 steps (95% interval {low:.3g} to {high:.3g})"
    if total.n_collapsed:
        text += f"; {total.n_told_before} of {format_count(total.n_collapsed, 'collapse')} told of before"
    if total.median_steps_before is not None:
        text += f", by {total.median_steps_before:g} steps at the median"
    return text
