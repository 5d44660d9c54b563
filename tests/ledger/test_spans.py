import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaudit.errors import InvalidRecord
from klaudit.ledger.spans import decode_spans, describe_spans, encode_spans, extend_spans, find_outside, span_steps

STEPS = st.sets(st.integers(0, 2**40) | st.integers(0, 60), min_size=1, max_size=40).map(sorted)


@given(STEPS)
def test_ranges_hold_exactly_the_steps(steps: list[int]) -> None:
    spans = decode_spans(encode_spans(span_steps(steps)))
    assert [step for span in spans for step in span] == steps


@given(STEPS, STEPS)
def test_steps_outside_are_found(covered: list[int], steps: list[int]) -> None:
    assert list(find_outside(steps, span_steps(covered))) == sorted(set(steps) - set(covered))


def test_even_steps_take_one_range_however_they_come() -> None:
    spans: list[range] = []
    for step in range(10, 10_000, 10):
        extend_spans(spans, [step])
    assert spans == [range(10, 9_991, 10)]


@pytest.mark.parametrize(
    ("steps", "text"),
    [([3], "step 3"), ([1, 2, 3], "steps 1 to 3"), ([10, 20, 30], "3 steps between 10 and 30"), ([1, 2, 9], "3 steps between 1 and 9")],
)
def test_ranges_in_words(steps: list[int], text: str) -> None:
    assert describe_spans(span_steps(steps)) == text


@pytest.mark.parametrize("encoded", [[[1, 2]], [["a", 2, 1]], [[1, 2, 0]], 7, [None]])
def test_what_is_no_range_is_refused(encoded: list[list[int]]) -> None:
    with pytest.raises(InvalidRecord, match=r"expected .*first step, last step"):
        decode_spans(encoded)
