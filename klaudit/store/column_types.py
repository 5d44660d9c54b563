"""Column types that read the same on every database: text, and times and JSON as text."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Dialect, String, Text
from sqlalchemy.types import TypeDecorator

from klaudit.errors import InvalidRecord
from klaudit.records.moment import format_moment
from klaudit.store.floats import decode_json, encode_json


class Timestamp(TypeDecorator[datetime]):
    """A moment as ISO 8601 text in UTC, `2026-11-22T10:00:00.000000Z`, so that text order is time order."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Text of an aware datetime.

        Raises:
            InvalidRecord: a time without zone.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise InvalidRecord(f"expected a time with a time zone; got {value.isoformat()}")
        return format_moment(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        """The moment, in UTC."""
        return None if value is None else datetime.fromisoformat(value)


class PlainText(TypeDecorator[str]):
    """Text of any length. A NUL, which PostgreSQL cannot hold and SQLite's own functions end at, is kept as its sign U+2400, on every database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Text without NULs."""
        return value if value is None or "\0" not in value else value.replace("\0", "\N{SYMBOL FOR NULL}")


class JSONText(TypeDecorator[Any]):
    """A mapping or list as JSON text; non-finite floats as `klaudit.store.floats` writes them."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, Any] | list[Any] | None, dialect: Dialect) -> str | None:
        """JSON text.

        Raises:
            InvalidRecord: something that JSON cannot hold.
        """
        return None if value is None else encode_json(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """What was stored."""
        return None if value is None else decode_json(value)
