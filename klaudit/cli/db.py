"""`klaudit db`."""

from dataclasses import asdict

import typer

from klaudit.cli.options import JsonOption, StoreOption, find_store_url
from klaudit.cli.output import console, print_json
from klaudit.store import check_store, upgrade_store

app = typer.Typer(no_args_is_help=True, help="The store's schema.")


@app.command("upgrade")
def upgrade(store: StoreOption = None) -> None:
    """Make the store, or bring it to this version's schema."""
    before, after = upgrade_store(find_store_url(store))
    if before == after:
        console.print(f"the store is at revision {after} already", markup=False)
    else:
        console.print(
            f"the store was {'empty' if before is None else f'at revision {before}'} and is at revision {after} now", markup=False
        )


@app.command("check")
def check(store: StoreOption = None, as_json: JsonOption = False) -> int:
    """Which version made the store, whether its schema is current, and whether it is whole."""
    status = check_store(find_store_url(store))
    if as_json:
        print_json({"store": asdict(status)})
    else:
        for name, value in asdict(status).items():
            console.print(f"{name:>12}  {value}", markup=False)
    return 0 if status.is_current and status.integrity in ("ok", "not checked") else 3
