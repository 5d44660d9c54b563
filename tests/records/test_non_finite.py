import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaudit.records.non_finite import decode_float, encode_float, encode_json


def to_bits(value: float) -> bytes:
    """Equal for equal floats, -0.0 apart from 0.0; every NaN is the same one."""
    return b"NaN" if math.isnan(value) else struct.pack("<d", value)


@given(st.floats())
def test_every_float_comes_back_from_json(value: float) -> None:
    text = json.dumps(encode_float(value), allow_nan=False)
    assert to_bits(decode_float(json.loads(text))) == to_bits(value)


@pytest.mark.parametrize(("value", "spelled"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity"), (None, None)])
def test_non_finite_floats_are_spelled_as_the_format_says(value: float | None, spelled: str | None) -> None:
    assert encode_float(value) == spelled


@pytest.mark.parametrize("value", ["nan", "inf", "0.5", "", True, None, [1.0]])
def test_what_is_no_number_is_refused_and_named(value: object) -> None:
    with pytest.raises(TypeError, match="expected a number"):
        decode_float(value)


def test_whole_numbers_are_floats() -> None:
    assert decode_float(3) == 3.0
    assert isinstance(decode_float(3), float)


def test_every_non_finite_float_inside_a_value_is_spelled() -> None:
    given_value = {"a": [1, math.nan], "b": {"c": (math.inf, "text", None, True)}}
    assert encode_json(given_value) == {"a": [1, "NaN"], "b": {"c": ["Infinity", "text", None, True]}}
