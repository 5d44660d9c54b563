"""Options that many commands share."""

from typing import Annotated

import typer

from klaudit.config import read_settings
from klaudit.store import Store, open_store

StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="SQLAlchemy URL of the store. [default: $KLAUDIT_STORE, else sqlite:///klaudit.db]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or its name.")]


def find_store_url(option: str | None) -> str:
    """The option, else the setting."""
    return option or read_settings().store


def open_given_store(option: str | None, *, create: bool = False) -> Store:
    """The store that the option or the settings name.

    Raises:
        StoreError: it cannot be used.
    """
    return open_store(find_store_url(option), create=create)
