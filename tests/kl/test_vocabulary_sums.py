"""The algebra alone: what parts say together is what the whole says."""

from dataclasses import astuple
from functools import reduce
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from klaudit.kl.exact import estimate_full
from klaudit.kl.vocabulary_sums import VocabularySums, join_tokens, sum_part


def make_logits(drift: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    reference, change = torch.randn(2, 9, 60, generator=generator)
    return 3 * reference + drift * change, 3 * reference


def sum_up(policy: Tensor, reference: Tensor) -> VocabularySums:
    return sum_part(policy.clone(), reference.clone(), spare=(torch.empty_like(policy), torch.empty_like(policy)))


@pytest.mark.parametrize("drift", [1e-3, 0.1, 5.0])
@pytest.mark.parametrize("bounds", [(0, 60), (0, 1, 2, 60), (0, 20, 40, 60), (0, 59, 60)])
def test_parts_merged_in_any_order_say_what_the_whole_says(drift: float, bounds: tuple[int, ...]) -> None:
    policy, reference = make_logits(drift)
    parts = [sum_up(policy[:, start:stop], reference[:, start:stop]) for start, stop in pairwise(bounds)]
    truth = estimate_full(policy.double()[None], reference_logits=reference.double()[None])[0]
    for ordered in (parts, parts[::-1]):
        found = reduce(VocabularySums.merge, ordered)
        torch.testing.assert_close(found.measure_full(), truth, rtol=2e-3, atol=1e-9)
        torch.testing.assert_close(found.find_normalisers()[0], policy.double().logsumexp(1), rtol=1e-6, atol=1e-6)


def test_both_forms_say_the_same_where_both_hold() -> None:
    sums = sum_up(*make_logits(0.3))
    excess = sums.reference_mass / sums.policy_mass - 1
    first = sums.log_ratio / sums.policy_mass + (sums.reference_mass / sums.policy_mass).log()
    torch.testing.assert_close(sums.gap / sums.policy_mass - (excess - excess.log1p()), first, rtol=1e-4, atol=1e-6)


def test_sums_moved_and_moved_back_are_what_they_were() -> None:
    sums = sum_up(*make_logits(0.3))
    back = sums.move(sums.policy_offset + 3, sums.reference_offset - 2).move(sums.policy_offset, sums.reference_offset)
    for mine, theirs in zip(astuple(sums), astuple(back), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_tokens_joined_are_the_tokens_together() -> None:
    policy, reference = make_logits(0.3)
    joined = join_tokens([sum_up(policy[:4], reference[:4]), sum_up(policy[4:], reference[4:])])
    torch.testing.assert_close(joined.measure_full(), sum_up(policy, reference).measure_full(), rtol=1e-6, atol=1e-9)
