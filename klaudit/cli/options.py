"""Options that many commands share."""

import importlib.util
from collections.abc import Iterable
from typing import Annotated

import typer

from klaudit.cli.output import messages
from klaudit.config import read_settings
from klaudit.errors import MissingExtra
from klaudit.report.views import format_count
from klaudit.store import Store, open_store
from klaudit.workflows.replays import keep_replayed_findings

StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="SQLAlchemy URL of the store. Default: $KLAUDIT_STORE, else sqlite:///klaudit.db."),
]
ByOption = Annotated[str | None, typer.Option("--by", metavar="WHO", help="Your name, for the ledger. Default: $KLAUDIT_ACTOR.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="FILE|PRESET",
        help="Policy file (TOML), or the name of a preset. Default: the policy that the run was trained under.",
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or its name.")]


def find_store_url(option: str | None) -> str:
    """The option, else the setting."""
    return option or read_settings().store


def open_given_store(option: str | None, *, create: bool = False, by: str | None = None) -> Store:
    """The store that the option or the settings name, to be written to.

    Args:
        option: the URL.
        create: make it where there is none.
        by: name of the person who writes.

    Raises:
        StoreError: it cannot be used.
    """
    store = open_store(find_store_url(option), create=create, journals=read_settings().journals, actor=by or read_settings().actor)
    tell(f"{format_count(one.n_steps, 'step')} of run {one.run.name!r} came from a journal into the store" for one in store.replayed)
    tell(store.warnings)
    keep_replayed_findings(store)
    return store


def read_given_store(option: str | None) -> Store:
    """The store that the option or the settings name, for a command that changes nothing.

    Raises:
        StoreError: it cannot be used.
    """
    store = open_store(find_store_url(option), read_only=True, journals=read_settings().journals)
    for one in store.list_waiting():
        who = (
            "its trainer carries them over"
            if one.is_live
            else "the next command that writes to the store, such as klaudit audit, carries them over"
        )
        tell([f"{format_count(one.n_steps, 'step')} of run {one.run_name!r} in its journal, not shown yet; {who}"])
    return store


def tell(lines: Iterable[str]) -> None:
    """Messages on standard error, where they are in nobody's way."""
    for line in lines:
        messages.print(line, markup=False, soft_wrap=True)


def require_installed(*modules: str, what: str, extra: str) -> None:
    """Refuse a command whose optional part is not installed.

    Raises:
        MissingExtra: one of the modules is not there.
    """
    if any(importlib.util.find_spec(module) is None for module in modules):
        raise MissingExtra(what, extra)
