"""Floats that a database cannot hold: NaN and the infinities, as value and kind in columns and as strings inside JSON."""

import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal

from pydantic_core import from_json

from klaudit.errors import InvalidRecord
from klaudit.records.non_finite import NON_FINITE, encode_float

FloatKind = Literal["finite", "nan", "inf", "-inf"]


def classify_float(value: float) -> FloatKind:
    """Which kind of float `value` is."""
    if math.isfinite(value):
        return "finite"
    if math.isnan(value):
        return "nan"
    return "inf" if value > 0 else "-inf"


def split_float(name: str, value: float | None) -> dict[str, Any]:
    """The two columns of a float: `name` (NULL unless finite) and `name_kind` (NULL where there is no value)."""
    if value is None:
        return {name: None, f"{name}_kind": None}
    kind = classify_float(value)
    return {name: float(value) if kind == "finite" else None, f"{name}_kind": kind}


def join_float(value: float | None, kind: FloatKind | None) -> float | None:
    """The float that was split into `value` and `kind`."""
    if kind is None or kind == "finite":
        return value
    return float(kind)


def encode_json(value: object) -> str:
    """JSON text of `value`; a non-finite float becomes one of `NON_FINITE`, any mapping an object, any number a number.

    A string that reads like one of `NON_FINITE` gets a backslash in front, so that it does not come back as a float.

    Raises:
        InvalidRecord: something that JSON cannot hold.
    """
    try:
        text = _try_dump(value)
        return _dump(_spell(value)) if text is None or _looks_spelled(text) else text
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidRecord(f"expected what JSON can hold: numbers, strings, lists and mappings with string keys; {exc}") from exc


def decode_json(text: str) -> Any:
    """What `encode_json` was given, tuples as lists."""
    try:
        # A third of the time that Python's own decoder takes, and an audit waits for two of each step.
        value = from_json(text)
    except (ValueError, TypeError):  # what this decoder does not know: half of a surrogate pair, more than 200 levels; or no JSON
        value = json.loads(text)
    return _unspell(value) if _looks_spelled(text) else value


def _looks_spelled(text: str) -> bool:
    return 'NaN"' in text or 'Infinity"' in text


def _dump(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_to_plain)


def _try_dump(value: object) -> str | None:
    try:
        return _dump(value)
    except ValueError:  # a float out of JSON's range
        return None


def _to_plain(value: object) -> object:
    match value:
        case Mapping():
            return dict(value)
        case Integral():
            return int(value)
        case Real():
            return float(value)
    raise TypeError(f"got {value!r} of type {type(value).__name__}")


def _spell(value: object) -> object:
    match value:
        case str():
            return f"\\{value}" if value.lstrip("\\") in NON_FINITE else value
        case Mapping():
            return {key: _spell(one) for key, one in value.items()}
        case list() | tuple():
            return [_spell(one) for one in value]
        case float() if not math.isfinite(value):
            return encode_float(value)
        case Real() if not isinstance(value, int | float):
            return _spell(_to_plain(value))
    return value


def _unspell(value: object) -> object:
    match value:
        case str() if value.startswith("\\") and value.lstrip("\\") in NON_FINITE:
            return value[1:]
        case str():
            return NON_FINITE.get(value, value)
        case dict():
            return {key: _unspell(one) for key, one in value.items()}
        case list():
            return [_unspell(one) for one in value]
    return value
