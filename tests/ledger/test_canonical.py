import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaudit.errors import InvalidRecord
from klaudit.ledger import canonicalize
from klaudit.ledger.canonical import digest_canonical


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, '"NaN"'),
        (math.inf, '"Infinity"'),
        ([-math.inf, 1.5], '["-Infinity",1.5]'),
        (-0.0, "0"),
        (1.0, "1"),
        (1e-7, "1e-7"),
        (1e21, "1e+21"),
        (2**53 - 1, "9007199254740991"),
        (2**53, '"9007199254740992"'),
        (-(2**63), '"-9223372036854775808"'),
        ({"b": 1, "a": None, "ä": True}, '{"a":null,"b":1,"ä":true}'),
        ({"\U0001f600": 1, "\ufb33": 2}, '{"\U0001f600":1,"\ufb33":2}'),  # by UTF-16 code units, RFC 8785 3.2.3
        ("a\tb\u20ac", '"a\\tb€"'),
        ("half \ud800", '"half \\\\ud800"'),
        ("nul \0", '"nul \N{SYMBOL FOR NULL}"'),
        (r"no nul \u0000", r'"no nul \\u0000"'),
        ((1, {"x": math.nan}), '[1,{"x":"NaN"}]'),
        (np.float32(0.5), "0.5"),
        (np.int64(7), "7"),
        ({2: 1, 10: 2, None: 3, True: 4}, '{"10":2,"2":1,"null":3,"true":4}'),
    ],
)
def test_a_value_has_one_text(value: Any, text: str) -> None:
    assert canonicalize(value).decode() == text


@pytest.mark.parametrize("value", [object(), {(1, 2): 3}, {"a": {3}}, b"bytes"])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRecord, match="expected what JSON can hold"):
        canonicalize(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_the_text_is_json_and_does_not_change_when_read_and_written_again(value: Any) -> None:
    text = canonicalize(value)
    # An integer that is written as one and beyond 2^53 was a float.
    assert canonicalize(json.loads(text, parse_int=lambda digits: int(digits) if abs(int(digits)) < 2**53 else float(digits))) == text


@given(st.dictionaries(st.text(), st.floats(), min_size=2, max_size=5))
def test_the_order_of_keys_does_not_matter(value: dict[str, float]) -> None:
    assert canonicalize(dict(reversed(value.items()))) == canonicalize(value)


def test_a_digest_depends_on_the_domain() -> None:
    assert digest_canonical("a/1", {}) != digest_canonical("b/1", {})
    assert digest_canonical("a/1", {}).startswith("sha256:")
