"""`klaudit ledger`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from klaudit.cli.options import JsonOption, StoreOption, read_given_store
from klaudit.cli.output import console, print_json, print_table
from klaudit.cli.progress import track_verification
from klaudit.records.ledger import LedgerBreak, LedgerEntry, LedgerHead
from klaudit.records.moment import format_moment
from klaudit.report.views import format_count
from klaudit.workflows.ledger import Verification, read_anchor, verify_ledger

app = typer.Typer(no_args_is_help=True, help="The hash chain over everything that was recorded.")

BROKEN = 4
"""Exit code of a store that is not as its ledger says."""

MOST_LINES = 50
"""Breaks that people are shown; `--json` has more."""

AnchorOption = Annotated[
    Path | None,
    typer.Option("--anchor", metavar="FILE", help="What `klaudit ledger head --json` printed earlier and was kept outside the store."),
]


@app.command("head")
def show_head(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """The last entry of the store and of each run. Keep the JSON outside the store: it is what verify holds the store to."""
    with read_given_store(store) as opened:
        head, url = opened.ledger.head(), opened.url
        names = {} if as_json else {one.run.id: one.run.name for one in opened.runs.list()}
    if as_json:
        runs = [{"run_id": one.run_id, "run_seq": one.run_seq, "seq": one.seq, "hash": one.hash} for one in head.runs]
        print_json({"store": url, "head": describe_head(head), "runs": runs})
        return
    for name, value in describe_head(head).items():
        console.print(f"{name:>9}  {value}", markup=False, soft_wrap=True)
    rows = [(names.get(one.run_id, "deleted"), one.run_id, str(one.run_seq), str(one.seq), one.hash) for one in head.runs]
    print_table(("run", "id", "entries>", "last entry>", "hash"), rows, empty="no entries of runs yet")


@app.command("list")
def list_entries(
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only entries of this run; of a deleted one, its id.")] = None,
    after: Annotated[int, typer.Option("--after", metavar="SEQ", help="Only entries behind this one.", min=0)] = 0,
    limit: Annotated[int | None, typer.Option("--limit", help="At most so many.", min=1)] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Entries in order: what was done, when and by whom."""
    with read_given_store(store) as opened:
        is_deleted = run is not None and run in opened.ledger.heads_by_run()
        run_id = run if run is None or is_deleted else opened.runs.get(run).id
        entries = opened.ledger.list(run_id=run_id, after_seq=after, limit=limit)
        names = {one.run.id: one.run.name for one in opened.runs.list()}
    if as_json:
        print_json({"entries": [describe_entry(one) for one in entries]})
        return
    rows = [
        (
            str(one.seq),
            f"{one.at:%Y-%m-%d %H:%M:%S}",
            names.get(one.run_id or "", one.run_id or "-"),
            one.kind,
            one.actor.label,
            summarize_entry(one),
        )
        for one in entries
    ]
    print_table(("seq>", "time (UTC)", "run", "kind", "actor", "what"), rows, empty="no entries")


@app.command("verify")
def verify(anchor: AnchorOption = None, store: StoreOption = None, as_json: JsonOption = False) -> int:
    """Hold the store to its ledger. Exits with 4 when it is not as the ledger says."""
    anchored = None if anchor is None else read_anchor(anchor)
    with read_given_store(store) as opened, track_verification() as show:
        found = verify_ledger(opened, anchor=anchored.head if anchored else None, on_progress=show)
    if as_json:
        print_json({"ledger": describe_verification(found)})
    else:
        print_verification(found, anchor_store=anchored.store if anchored else None)
    return 0 if found.is_intact else BROKEN


def describe_head(head: LedgerHead) -> dict[str, Any]:
    """A head as JSON."""
    return {"seq": head.seq, "hash": head.hash, "at": None if head.at is None else format_moment(head.at), "entries": head.n_entries}


def describe_entry(entry: LedgerEntry) -> dict[str, Any]:
    """An entry as JSON: what its hash is over, and the hash."""
    actor = entry.actor
    return {
        "seq": entry.seq,
        "run_id": entry.run_id,
        "run_seq": entry.run_seq,
        "kind": entry.kind,
        "at": format_moment(entry.at),
        "actor": {"user": actor.user, "host": actor.host, "pid": actor.pid, "name": actor.name},
        "body": dict(entry.body),
        "prev_hash": entry.prev_hash,
        "run_prev_hash": entry.run_prev_hash,
        "hash": entry.hash,
    }


def summarize_entry(entry: LedgerEntry) -> str:
    """What an entry says, in a few words."""
    body = entry.body
    match entry.kind:
        case "steps":
            first, last = body.get("first_step"), body.get("last_step")
            said = f"segment {body.get('segment')}, {f'step {first}' if first == last else f'steps {first} to {last}'}"
        case "series_declared":
            said = ", ".join(body.get("series", {}))
        case "ledger_began":
            runs, budgets = (len(body.get(name, ())) for name in ("runs", "budgets"))
            said = f"there before it: {format_count(runs, 'run')}, {format_count(budgets, 'budget')}"
        case "drift_measured":
            n_measurements, n_distances = (len(body.get(name, ())) for name in ("measurements", "distances"))
            what = format_count(n_distances, "distance") if n_distances else format_count(n_measurements, "measurement")
            said = f"{what} of {body.get('checkpoint')}{', with its profile' if 'profile' in body else ''}"
        case "budget_set":
            said = f"{body.get('limit')} {body.get('unit')}, {body.get('scope')}, {body.get('action')}; budget {body.get('budget')}"
        case "policy_set":
            said = f"segment {body.get('segment')}, policy {body.get('name')} {body.get('version')}, {body.get('digest')}"
        case "stopped":
            said = f"segment {body.get('segment')}, step {body.get('step')}: {body.get('why')}"
        case "audited":
            policy = body.get("policy", {})
            steps = format_count(body.get("n_steps", 0), "step")
            said = f"{body.get('verdict')} after {steps}, policy {policy.get('name')} {policy.get('version')}, {policy.get('digest')}"
        case _:
            said = ", ".join(f"{name} {value}" for name, value in body.items() if isinstance(value, str | int | float))
    return said


def describe_verification(found: Verification) -> dict[str, Any]:
    """A verification as JSON."""
    return {
        "intact": found.is_intact,
        "head": describe_head(found.head),
        "anchor": None if found.anchor is None else {"seq": found.anchor.seq, "hash": found.anchor.hash},
        "entries": found.n_entries,
        "batches": found.n_batches,
        "steps": found.n_steps,
        "older_runs": found.n_older_runs,
        "older_steps": found.n_older_steps,
        "deleted_runs": found.n_deleted_runs,
        "n_breaks": found.n_breaks,
        "breaks": [describe_break(one) for one in found.breaks],
    }


def describe_break(one: LedgerBreak) -> dict[str, Any]:
    """A break as JSON."""
    return {"seq": one.seq, "run_id": one.run_id, "what": one.what, "expected": one.expected, "came": one.came}


def print_verification(found: Verification, *, anchor_store: str | None) -> None:
    """A verification for people; `anchor_store` is what the anchor says that it is of."""
    origin = "" if anchor_store is None else f" of {anchor_store}"
    lines = {
        "entries": f"{found.n_entries}, the last with hash {found.head.hash}",
        "steps": f"{found.n_steps} recomputed, in {found.n_batches} {'batch' if found.n_batches == 1 else 'batches'}",
        "anchor": "none given" if found.anchor is None else f"entry {found.anchor.seq}{origin}",
    }
    if found.n_older_steps:
        lines["older"] = (
            f"{format_count(found.n_older_steps, 'step')} of {format_count(found.n_older_runs, 'run')} from before the ledger; "
            "nothing can be said of them"
        )
    if found.n_deleted_runs:
        lines["deleted"] = f"{format_count(found.n_deleted_runs, 'run')}, with an entry each; deleted steps cannot be recomputed"
    for name, value in lines.items():
        console.print(f"{name:>9}  {value}", markup=False, soft_wrap=True)
    for one in found.breaks[:MOST_LINES]:
        console.print("  broken", style="bold red", end="  ")
        console.print(f"run {one.run_id or '-'}:", end=" ", markup=False, soft_wrap=True)
        said = (one.what, f"          expected {one.expected}", f"          came     {one.came}")
        console.print(*said, sep="\n", markup=False, soft_wrap=True)
    if found.n_breaks > MOST_LINES:
        console.print(f"  and {found.n_breaks - MOST_LINES} more; --json has the first {len(found.breaks)}", markup=False)
    if not found.is_intact:
        things = "1 thing is" if found.n_breaks == 1 else f"{found.n_breaks} things are"
        console.print(f"BROKEN: {things} not as the ledger says", style="bold red", soft_wrap=True)
    elif found.anchor is None:
        console.print(
            "intact, as far as it shows by itself: a cut tail and a ledger made anew show only with --anchor FILE", soft_wrap=True
        )
    else:
        console.print(f"intact, and holds the anchored entry {found.anchor.seq}", soft_wrap=True)
