"""`klaudit budget`."""

from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from klaudit.callbacks.enforcement import require_known_action
from klaudit.cli.options import ByOption, JsonOption, StoreOption, open_given_store, read_given_store
from klaudit.cli.output import console, messages, print_json, print_table
from klaudit.errors import InvalidConfig
from klaudit.records import KLBudget

app = typer.Typer(no_args_is_help=True, help="KL budgets: limits that a person sets.")


@app.command("set")
def set_budget(
    limit: Annotated[float, typer.Option("--limit", help="In nats.")],
    unit: Annotated[str, typer.Option("--unit", help="nats_per_sequence or nats_per_token.")],
    scope: Annotated[str, typer.Option("--scope", help="per_step, window, path or checkpoint.")] = "per_step",
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="The run that it is for.")] = None,
    match: Annotated[str | None, typer.Option("--match", metavar="PATTERN", help="Runs that it is for, such as 'prod-*'.")] = None,
    window_steps: Annotated[int | None, typer.Option("--window-steps", help="Span of the EWMA, for scope window.")] = None,
    on: Annotated[str, typer.Option("--on", help="bound: act once noise cannot explain the breach; value: at once.")] = "bound",
    action: Annotated[str, typer.Option("--action", help="alert, save_checkpoint or stop.")] = "alert",
    owner: Annotated[str | None, typer.Option("--owner", help="Who answers for it.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why this limit.")] = None,
    by: ByOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set a budget for a run, or for runs whose names match. A run that is being trained heeds it from its next start."""
    if (run is None) == (match is None):
        raise InvalidConfig("expected either --run RUN or --match PATTERN; got " + ("neither" if run is None else "both"))
    choices: dict[str, Any] = {"unit": unit, "scope": scope, "on": on, "action": action}
    budget = KLBudget(limit, window_steps=window_steps, owner=owner, reason=reason, match=match, created_at=datetime.now(UTC), **choices)
    require_known_action(budget)
    with open_given_store(store, create=run is None, by=by) as opened:
        run_id = None if run is None else opened.runs.get(run).id
        added = opened.budgets.add(replace(budget, run_id=run_id))
    if as_json:
        print_json({"budget": describe_budget(added)})
    else:
        messages.print(f"budget {added.id}: {added.label}, for {run or match}", markup=False)


@app.command("list")
def list_budgets(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """All budgets that stand."""
    with read_given_store(store) as opened:
        budgets = opened.budgets.list()
        names = {one.run.id: one.run.name for one in opened.runs.list()}
    if as_json:
        print_json({"budgets": [describe_budget(one) for one in budgets]})
        return
    rows = [
        (one.id, one.label, names.get(one.run_id or "", one.match or "every run"), one.on, one.action, one.owner or "-") for one in budgets
    ]
    print_table(("id", "budget", "for", "on", "action", "owner"), rows, empty="no budgets: klaudit budget set --help")


@app.command("show")
def show_budget(
    budget: Annotated[str, typer.Argument(metavar="BUDGET", help="Its id.")], store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """One budget."""
    with read_given_store(store) as opened:
        found = _find(opened.budgets.list(), budget)
    described = describe_budget(found)
    if as_json:
        print_json({"budget": described})
        return
    for name, value in described.items():
        console.print(f"{name:>14}  {value}", markup=False)


@app.command("remove")
def remove_budget(
    budget: Annotated[str, typer.Argument(metavar="BUDGET", help="Its id.")], by: ByOption = None, store: StoreOption = None
) -> None:
    """Take a budget back; that it stood is kept."""
    with open_given_store(store, by=by) as opened:
        found = _find(opened.budgets.list(), budget)
        opened.budgets.remove(found.id)
    messages.print(f"removed budget {found.id}: {found.label}", markup=False)


def describe_budget(budget: KLBudget) -> dict[str, Any]:
    """A budget as JSON."""
    return {**asdict(budget), "created_at": budget.created_at.isoformat() if budget.created_at else None}


def _find(budgets: list[KLBudget], wanted: str) -> KLBudget:
    found = next((one for one in budgets if one.id == wanted), None)
    if found is None:
        raise InvalidConfig(f"no budget {wanted!r} stands; see: klaudit budget list")
    return found
