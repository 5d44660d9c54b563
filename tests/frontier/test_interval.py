import pytest

from klaudit.frontier.interval import find_t_quantile


@pytest.mark.parametrize(
    ("degrees_of_freedom", "expected"), [(1, 12.706205), (2, 4.302653), (3, 3.182446), (5, 2.570582), (10, 2.228139), (30, 2.042272)]
)
def test_the_quantiles_are_those_of_the_tables(degrees_of_freedom: int, expected: float) -> None:
    assert find_t_quantile(degrees_of_freedom) == pytest.approx(expected, rel=4e-3)


@pytest.mark.parametrize(("degrees_of_freedom", "expected"), [(2, 31.599055), (6, 5.958816), (10, 4.586894), (60, 3.460200)])
def test_far_quantiles_are_close_too(degrees_of_freedom: int, expected: float) -> None:
    assert find_t_quantile(degrees_of_freedom, confidence=0.999) == pytest.approx(expected, rel=1e-2)
