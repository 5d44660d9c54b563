"""How a moment is written: ISO 8601 text in UTC."""

from datetime import UTC, datetime


def format_moment(moment: datetime) -> str:
    """An aware moment as `2026-11-22T10:00:00.000000Z`: always 27 characters, so that text order is time order."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
