"""One spelling of every JSON value (RFC 8785), so that equal values have equal hashes."""

import hashlib
import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import rfc8785

from klaudit.errors import InvalidRecord
from klaudit.records.non_finite import encode_float

MOST_EXACT_INTEGER = 2**53 - 1
"""Above it not every integer is a number of JSON (RFC 8785, 3.2.2.3)."""

ESCAPED_NUL = b"\\u0000"


def canonicalize(value: Any) -> bytes:
    """The one UTF-8 text of a JSON value, keys sorted.

    RFC 8785 knows neither NaN and infinities nor integers beyond 2^53: they become strings, "NaN", "Infinity", "-Infinity" and the
    digits. -0.0 is 0, and 1.0 is 1. Half of a surrogate pair, which UTF-8 cannot hold, becomes the six characters of its escape, and a
    NUL its sign U+2400, as stores keep it.

    Raises:
        InvalidRecord: something that JSON cannot hold.
    """
    try:
        text = _try_dump(value)
        return rfc8785.dumps(_spell(value)) if text is None or ESCAPED_NUL in text else text
    except (ValueError, TypeError, RecursionError) as exc:
        raise InvalidRecord(f"expected what JSON can hold: numbers, strings, lists and mappings with string keys; {exc}") from exc


def digest_canonical(domain: str, value: Any) -> str:
    """`sha256:` and 64 hex digits over the canonical text of `value`.

    Args:
        domain: hashed first, so that two kinds of thing with the same text have different digests.
        value: JSON.

    Raises:
        InvalidRecord: something that JSON cannot hold.
    """
    return f"sha256:{hashlib.sha256(frame(domain) + canonicalize(value)).hexdigest()}"


def frame(domain: str) -> bytes:
    """What goes in front of the hashed text of a domain; no JSON value can hold its line break."""
    return f"{domain}\n".encode()


def _try_dump(value: Any) -> bytes | None:
    # Nearly every value needs no spelling, and walking it twice would cost as much again.
    try:
        return rfc8785.dumps(value)
    except (ValueError, TypeError):
        return None


def _spell(value: Any) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return value.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "backslashreplace").decode()
        case Integral():
            return int(value) if abs(int(value)) <= MOST_EXACT_INTEGER else str(int(value))
        case Real():
            number = float(value)
            return number if math.isfinite(number) else encode_float(number)
        case Mapping():
            return {_spell_key(key): _spell(one) for key, one in value.items()}
        case list() | tuple():
            return [_spell(one) for one in value]
    raise TypeError(f"got {value!r} of type {type(value).__name__}")


def _spell_key(key: Any) -> Any:
    if isinstance(key, str):
        return _spell(key)
    # Numbers and constants as keys become what they become in a store.
    (text,) = json.loads(json.dumps({key: None}))
    return text
