"""The report as JSON: what every other format is a rendering of."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum

from klaudit.records.non_finite import encode_float
from klaudit.report.document import Report


def render_json(report: Report) -> str:
    """Sorted keys, ASCII, NaN and infinities as strings: equal reports give equal bytes."""
    return json.dumps(to_plain(report), sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"


def to_plain(value: object) -> object:
    """Records and views as what JSON knows; times in UTC, non-finite numbers as "NaN", "Infinity" or "-Infinity"."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: to_plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(one) for one in value]
    return to_scalar(value)


def to_scalar(value: object) -> object:
    """One number, time or string."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, float):
        return encode_float(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)
