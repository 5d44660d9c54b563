"""How JSON, which has no NaN and no infinities, holds them: as the strings "NaN", "Infinity" and "-Infinity"."""

import math
from typing import Any

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode_float(value: float | None) -> float | str | None:
    """A number as JSON can hold it; None stays None."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def decode_float(value: Any) -> float:
    """The other way.

    Raises:
        TypeError: neither a number nor one of the three strings.
    """
    if isinstance(value, str) and value in NON_FINITE:
        return NON_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f'expected a number, "NaN", "Infinity" or "-Infinity"; got {value!r}')
    return float(value)


def encode_json(value: Any) -> Any:
    """A JSON-like value with every non-finite float in it encoded."""
    if isinstance(value, float):
        return encode_float(value)
    if isinstance(value, dict):
        return {key: encode_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode_json(item) for item in value]
    return value
