"""Options that many commands share."""

import importlib.util
from typing import Annotated

import typer

from klaudit.config import read_settings
from klaudit.errors import MissingExtra
from klaudit.store import Store, open_store

StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="SQLAlchemy URL of the store. Default: $KLAUDIT_STORE, else sqlite:///klaudit.db."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or its name.")]


def find_store_url(option: str | None) -> str:
    """The option, else the setting."""
    return option or read_settings().store


def open_given_store(option: str | None, *, create: bool = False) -> Store:
    """The store that the option or the settings name, to be written to.

    Raises:
        StoreError: it cannot be used.
    """
    return open_store(find_store_url(option), create=create)


def read_given_store(option: str | None) -> Store:
    """The store that the option or the settings name, for a command that changes nothing.

    Raises:
        StoreError: it cannot be used.
    """
    return open_store(find_store_url(option), read_only=True)


def require_installed(*modules: str, what: str, extra: str) -> None:
    """Refuse a command whose optional part is not installed.

    Raises:
        MissingExtra: one of the modules is not there.
    """
    if any(importlib.util.find_spec(module) is None for module in modules):
        raise MissingExtra(what, extra)
