import json
import math
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaudit.errors import InvalidRecord
from klaudit.records.non_finite import NON_FINITE
from klaudit.store.floats import decode_json, encode_json, join_float, split_float

TRICKY_TEXT = st.text() | st.sampled_from(sorted(NON_FINITE)).flatmap(
    lambda word: st.sampled_from([word, f"\\{word}", f"\\\\{word}", f'"{word}'])
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TRICKY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TRICKY_TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("value", "columns"),
    [
        (0.5, {"kl": 0.5, "kl_kind": "finite"}),
        (math.nan, {"kl": None, "kl_kind": "nan"}),
        (math.inf, {"kl": None, "kl_kind": "inf"}),
        (-math.inf, {"kl": None, "kl_kind": "-inf"}),
        (None, {"kl": None, "kl_kind": None}),
    ],
)
def test_a_float_becomes_a_value_and_its_kind(value: float | None, columns: dict[str, object]) -> None:
    assert split_float("kl", value) == columns


@given(st.none() | st.floats())
def test_any_float_comes_back_from_its_two_columns(value: float | None) -> None:
    columns = split_float("kl", value)
    assert repr(join_float(columns["kl"], columns["kl_kind"])) == repr(value)


@given(JSON_VALUES)
def test_any_value_comes_back_from_json_and_words_stay_words(value: object) -> None:
    assert repr(decode_json(encode_json(value))) == repr(value)


@pytest.mark.parametrize("value", ["half of a pair: \ud800", [[["deep"]]] * 2, json.loads("[" * 300 + "]" * 300), 10**400, 1e-320])
def test_what_the_fast_decoder_does_not_know_comes_back_too(value: object) -> None:
    assert repr(decode_json(encode_json(value))) == repr(value)


@pytest.mark.parametrize("text", ["", "{", "[1,]", "01", '{"kl":1} and more', "'kl'"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="line 1 column"):
        decode_json(text)


@given(JSON_VALUES)
def test_what_is_written_is_json_to_any_strict_reader(value: object) -> None:
    json.loads(encode_json(value), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_non_finite_numbers_are_spelled_as_the_steps_format_spells_them() -> None:
    assert encode_json([math.nan, math.inf, -math.inf]) == '["NaN","Infinity","-Infinity"]'


def test_numbers_and_mappings_of_other_libraries_are_numbers_and_objects() -> None:
    value = MappingProxyType({"loss": np.float32(0.5), "count": np.int64(3), "bad": np.float32("nan")})
    assert encode_json(value) == '{"loss":0.5,"count":3,"bad":"NaN"}'


def test_what_json_cannot_hold_is_refused_with_what_came() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(InvalidRecord, match="type set"):
        encode_json({"words": {"a"}})
    with pytest.raises(InvalidRecord, match="expected what JSON can hold"):
        encode_json(circle)
    with pytest.raises(InvalidRecord, match="expected what JSON can hold"):
        encode_json({math.nan: 1})
