"""Rows as they lie in the database: somebody may have written into them what no record holds, and reading must show that and not stop at it."""

from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, Select, Table, Text, select, type_coerce
from sqlalchemy.types import TypeEngine

from klaudit.store.column_types import JSONText, Timestamp
from klaudit.store.floats import decode_json

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)
"""What decoding a spoiled row raises; `InvalidRecord` is a ValueError."""


def select_as_it_lies(table: Table) -> Select[Any]:
    """A query of every column of a table, times and JSON as the text that they are."""
    return select(
        *(type_coerce(one, Text()).label(one.name) if isinstance(one.type, Timestamp | JSONText) else one for one in table.columns)
    )


def decode_as_it_lies(table: Table, row: RowMapping) -> dict[str, Any]:
    """The columns of a row of `select_as_it_lies`, as a common query gives them.

    Raises:
        ValueError: a column that cannot be decoded; or another of `UNREADABLE`.
    """
    return {one.name: _decode(one.type, row[one.name]) for one in table.columns}


def _decode(kind: TypeEngine[Any], value: Any) -> Any:
    match kind:
        case Timestamp() if value is not None:
            return datetime.fromisoformat(value)
        case JSONText() if value is not None:
            return decode_json(value)
    return value
