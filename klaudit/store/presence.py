"""Whether the run that a row belongs to is there."""

import difflib

from sqlalchemy import Connection, select

from klaudit.errors import RunNotFound
from klaudit.store.tables import runs


def require_run(connection: Connection, run_id: str) -> None:
    """Raise RunNotFound unless a run has this id."""
    if connection.execute(select(runs.c.id).where(runs.c.id == run_id)).first() is None:
        raise RunNotFound(describe_missing_run(connection, run_id))


def describe_missing_run(connection: Connection, wanted: str) -> str:
    """What came instead of a run, and the nearest names."""
    names = list(connection.scalars(select(runs.c.name).order_by(runs.c.name)))
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    if near:
        return f"expected the id or name of a run; got {wanted!r}. Nearest names: {', '.join(near)}"
    return f"expected the id or name of a run; got {wanted!r}. The store holds {len(names)} runs; `klaudit runs list` shows them"
