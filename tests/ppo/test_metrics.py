import math

import pytest
import torch

from klaudit.ppo.metrics import average_present, deviate, explain_variance, list_tokens, measure_distinct_2


def test_distinct_2_is_the_share_of_bigrams_that_differ() -> None:
    # 1-2, 2-1, 1-2 and 3-4: three of four differ, and no bigram spans two texts.
    assert measure_distinct_2([[1, 2, 1, 2], [3, 4]]) == 0.75
    assert measure_distinct_2([[1], []]) is None


def test_explained_variance_is_one_for_a_perfect_critic_and_zero_for_a_constant_one() -> None:
    returns, mask = torch.tensor([[1.0, 2.0, 4.0, 99.0]]), torch.tensor([[True, True, True, False]])
    assert explain_variance(returns, values=returns.clone(), mask=mask) == pytest.approx(1.0)
    assert explain_variance(returns, values=torch.full_like(returns, 3.0), mask=mask) == pytest.approx(0.0)
    assert explain_variance(returns, values=-returns, mask=mask) == pytest.approx(-3.0)
    assert explain_variance(torch.ones(1, 4), values=returns, mask=mask) is None
    assert math.isnan(explain_variance(returns * math.nan, values=returns, mask=mask) or 0.0)


def test_the_deviation_of_one_score_is_not_a_number() -> None:
    assert deviate(torch.tensor([1.0, 3.0])) == pytest.approx(math.sqrt(2))
    assert deviate(torch.tensor([1.0])) is None


def test_a_nan_shows_in_a_mean() -> None:
    assert average_present([1.0, 2.0]) == 1.5
    assert math.isnan(average_present([1.0, math.nan]))


def test_padding_is_no_token() -> None:
    assert list_tokens(torch.tensor([[1, 2, 0], [3, 0, 0]]), mask=torch.tensor([[True, True, False], [True, True, False]])) == [
        [1, 2],
        [3, 0],
    ]
