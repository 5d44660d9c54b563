import pytest

from klaudit.frontier.student import find_p_value, find_t_quantile


@pytest.mark.parametrize(
    ("degrees_of_freedom", "expected"),
    [(1, 12.706205), (2, 4.302653), (3, 3.182446), (5, 2.570582), (10, 2.228139), (30, 2.042272), (120, 1.979930)],
)
def test_the_quantiles_are_those_of_the_tables(degrees_of_freedom: int, expected: float) -> None:
    assert find_t_quantile(degrees_of_freedom) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("degrees_of_freedom", "expected"), [(2, 31.599055), (6, 5.958816), (10, 4.586894), (60, 3.460200)])
def test_far_quantiles_are_those_of_the_tables_too(degrees_of_freedom: int, expected: float) -> None:
    assert find_t_quantile(degrees_of_freedom, confidence=0.999) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("degrees_of_freedom", [1, 4, 99, 100, 101, 150, 5_000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_a_quantile_has_the_probability_that_it_was_asked_for(degrees_of_freedom: int, confidence: float) -> None:
    t = find_t_quantile(degrees_of_freedom, confidence=confidence)
    assert find_p_value(t, degrees_of_freedom=degrees_of_freedom) == pytest.approx(1 - confidence, rel=1e-7)
