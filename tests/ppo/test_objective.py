"""Expected values are worked out by hand or from the definition, never by the functions under test."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from klaudit.ppo.objective import (
    compute_policy_loss,
    compute_value_loss,
    estimate_advantages,
    find_last_token,
    penalize_rewards,
    whiten,
)

MASK = torch.tensor([[True, True, True], [True, True, False]])


def random_tensors(n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(n)]


def pad_with(tensor: Tensor, filler: float) -> Tensor:
    return torch.cat([tensor, torch.full_like(tensor[:, :2], filler)], dim=1)


def pad_mask(mask: Tensor) -> Tensor:
    return torch.cat([mask, torch.zeros_like(mask[:, :2])], dim=1)


def test_each_token_pays_for_its_kl_and_the_last_one_earns_the_score() -> None:
    kl = torch.tensor([[0.5, -1.0, 2.0], [1.0, 3.0, 99.0]])
    rewards = penalize_rewards(torch.tensor([10.0, -4.0]), kl_tokens=kl, beta=0.1, mask=MASK)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 0.1, 9.8], [-0.1, -4.3, 0.0]]))


def test_the_last_token_is_the_last_that_counts() -> None:
    assert find_last_token(torch.tensor([[True, False, False], [True, True, True]])).tolist() == [0, 2]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 0.0), (1.0, 1.0)])
def test_advantages_are_the_discounted_sum_of_temporal_differences(gamma: float, lam: float) -> None:
    rewards, values = random_tensors(2)
    advantages, returns = estimate_advantages(rewards, values=values, mask=MASK, gamma=gamma, lam=lam)
    for row, length in enumerate((3, 2)):
        r, v = rewards[row, :length].tolist(), [*values[row, :length].tolist(), 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length))
            assert float(advantages[row, t]) == pytest.approx(expected, abs=1e-12)
            assert float(returns[row, t]) == pytest.approx(expected + v[t], abs=1e-12)
    assert advantages[1, 2] == returns[1, 2] == 0


def test_whitened_values_have_zero_mean_and_unit_unbiased_variance() -> None:
    (values,) = random_tensors(1)
    counted = whiten(values, mask=MASK)[MASK]
    assert float(counted.mean()) == pytest.approx(0, abs=1e-12)
    assert float(counted.var()) == pytest.approx(1, abs=1e-6)


def test_whitening_may_keep_the_mean() -> None:
    (values,) = random_tensors(1)
    counted = whiten(values, mask=MASK, shift_mean=False)[MASK]
    assert float(counted.mean()) == pytest.approx(float(values[MASK].mean()), abs=1e-12)
    assert float(counted.var()) == pytest.approx(1, abs=1e-6)


def test_a_single_token_whitens_to_zero() -> None:
    assert whiten(torch.tensor([[7.0, 1.0]]), mask=torch.tensor([[True, False]])).tolist() == [[0.0, 0.0]]


def test_the_policy_loss_is_that_of_four_tokens_worked_out_by_hand() -> None:
    ratios = [1.5, 0.5, 1.5, 0.5]
    advantages = [1.0, 1.0, -1.0, -1.0]
    # max(-A r, -A clip(r, .8, 1.2)): the clip binds where moving further would pay, and only there.
    losses = [-1.2, -0.5, 1.5, 0.8]
    mask = torch.ones(1, 4, dtype=torch.bool)
    loss = compute_policy_loss(
        torch.tensor([ratios]).log(), old_logprobs=torch.zeros(1, 4), advantages=torch.tensor([advantages]), mask=mask, clip_range=0.2
    )
    assert float(loss.loss) == pytest.approx(sum(losses) / 4)
    assert float(loss.clip_fraction) == 0.5
    assert float(loss.ratio_mean) == pytest.approx(1.0)
    assert float(loss.ratio_max) == pytest.approx(1.5)
    assert float(loss.kl_update) == pytest.approx((math.log(1.5) ** 2 + math.log(0.5) ** 2) / 4)


def test_no_gradient_flows_where_the_clip_binds() -> None:
    logprobs = torch.tensor([[1.5, 1.1]]).log().requires_grad_()
    ones = torch.ones(1, 2)
    loss = compute_policy_loss(logprobs, old_logprobs=torch.zeros(1, 2), advantages=ones, mask=ones.bool(), clip_range=0.2)
    loss.loss.backward()  # type: ignore[no-untyped-call]
    assert logprobs.grad is not None
    # d(-A r)/d log p = -r, averaged over two tokens.
    assert logprobs.grad.flatten().tolist() == pytest.approx([0.0, -0.55])


def test_at_the_old_policy_the_gradient_is_the_policy_gradient() -> None:
    old, advantages = random_tensors(2)
    logprobs = old.clone().requires_grad_()
    compute_policy_loss(logprobs, old_logprobs=old, advantages=advantages, mask=MASK, clip_range=0.2).loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(logprobs.grad, torch.where(MASK, -advantages / 5, 0.0))


def test_the_value_loss_is_that_of_three_tokens_worked_out_by_hand() -> None:
    values, old, returns = torch.tensor([[1.0, 0.1, -1.0]]), torch.zeros(1, 3), torch.tensor([[2.0, 1.0, -0.1]])
    # Clipped predictions .2, .1, -.2; squared errors 1, .81, .81 against 3.24, .81, .01.
    mask = torch.ones(1, 3, dtype=torch.bool)
    loss = compute_value_loss(values, old_values=old, returns=returns, mask=mask, clip_range=0.2)
    assert float(loss.loss) == pytest.approx((3.24 + 0.81 + 0.81) / 3 / 2)
    assert float(loss.clip_fraction) == pytest.approx(1 / 3)


def penalize(filler: float, *, padded: bool) -> Tensor:
    (kl,) = random_tensors(1)
    kl, mask = (pad_with(kl, filler), pad_mask(MASK)) if padded else (kl, MASK)
    return penalize_rewards(torch.tensor([1.0, 2.0], dtype=torch.float64), kl_tokens=kl, beta=0.3, mask=mask)


def advance(filler: float, *, padded: bool) -> Tensor:
    rewards, values = random_tensors(2)
    if padded:
        rewards, values = pad_with(rewards, filler), pad_with(values, filler)
    return estimate_advantages(rewards, values=values, mask=pad_mask(MASK) if padded else MASK, gamma=0.99, lam=0.9)[0]


def scale(filler: float, *, padded: bool) -> Tensor:
    (values,) = random_tensors(1)
    return whiten(pad_with(values, filler) if padded else values, mask=pad_mask(MASK) if padded else MASK)


@pytest.mark.parametrize("filler", [0.0, 1e30, float("nan"), float("inf")])
@pytest.mark.parametrize("compute", [penalize, advance, scale])
def test_padding_changes_nothing_and_stays_zero(compute: Callable[..., Tensor], filler: float) -> None:
    plain, padded = compute(filler, padded=False), compute(filler, padded=True)
    torch.testing.assert_close(padded[:, :3], plain)
    assert torch.equal(padded[:, 3:], torch.zeros(2, 2, dtype=torch.float64))


@pytest.mark.parametrize("filler", [0.0, 1e30, float("nan"), float("inf")])
def test_padding_changes_no_loss_and_gets_no_gradient(filler: float) -> None:
    logprobs, old, advantages, values, returns = random_tensors(5)
    plain = compute_policy_loss(logprobs, old_logprobs=old, advantages=advantages, mask=MASK, clip_range=0.2)
    plain_value = compute_value_loss(values, old_values=old, returns=returns, mask=MASK, clip_range=0.2)
    policy_input, value_input = (pad_with(tensor, filler).requires_grad_() for tensor in (logprobs, values))
    padded_old, padded_advantages, padded_returns = (pad_with(tensor, filler) for tensor in (old, advantages, returns))
    mask = pad_mask(MASK)
    policy = compute_policy_loss(
        policy_input, old_logprobs=padded_old, advantages=whitened_like(padded_advantages), mask=mask, clip_range=0.2
    )
    value = compute_value_loss(value_input, old_values=padded_old, returns=padded_returns, mask=mask, clip_range=0.2)
    for name in ("loss", "clip_fraction", "kl_update", "ratio_mean", "ratio_max"):
        torch.testing.assert_close(getattr(policy, name), getattr(plain, name))
    for name in ("loss", "clip_fraction"):
        torch.testing.assert_close(getattr(value, name), getattr(plain_value, name))
    policy.loss.backward()  # type: ignore[no-untyped-call]
    assert policy_input.grad is not None
    assert torch.equal(policy_input.grad[:, 3:], torch.zeros(2, 2, dtype=torch.float64))


def whitened_like(advantages: Tensor) -> Tensor:
    """What `whiten` hands on: zeros in the padding."""
    return torch.where(pad_mask(MASK), advantages, 0.0)
