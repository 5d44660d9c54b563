import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from klaudit.errors import EstimatorError
from klaudit.kl.estimators import estimate_k1, estimate_k2, estimate_k3

INF, NAN = math.inf, math.nan

ESTIMATORS = {"k1": estimate_k1, "k2": estimate_k2, "k3": estimate_k3}

SCHULMAN = [
    # mu, estimator, bias / KL, std / KL: the table of joschu.net/blog/kl-approx.html, with the digits of its closed forms
    (0.1, "k1", 0.0, 2 / 0.1),
    (0.1, "k2", 0.1**2 / 4, math.sqrt(2 + 0.1**2)),
    (0.1, "k3", 0.0, math.sqrt(math.exp(0.1**2) - 1 - 0.1**2) / 0.005),
    (1.0, "k1", 0.0, 2.0),
    (1.0, "k2", 0.25, math.sqrt(3)),
    (1.0, "k3", 0.0, math.sqrt(math.e - 2) / 0.5),
]
PRINTED = {(0.1, "k1"): 20.0, (0.1, "k2"): 1.418, (0.1, "k3"): 1.417, (1.0, "k1"): 2.0, (1.0, "k2"): 1.732, (1.0, "k3"): 1.695}


def score_gaussians(y: Tensor, mu: float) -> tuple[Tensor, Tensor]:
    """Log-densities of y, but for their common constant, under q = N(0, 1), which y comes from, and p = N(mu, 1)."""
    return -(y**2) / 2, -((y - mu) ** 2) / 2


@pytest.mark.parametrize(("mu", "name", "bias", "deviation"), SCHULMAN)
def test_the_schulman_table_comes_out_by_quadrature(mu: float, name: str, bias: float, deviation: float) -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    y, weight = torch.tensor(nodes)[None], torch.tensor(weights / weights.sum())[None]
    q, p = score_gaussians(y, mu)
    k = ESTIMATORS[name](q, reference_logprobs=p)
    kl = mu**2 / 2
    mean = (weight * k).sum().item()
    std = math.sqrt((weight * (k - mean) ** 2).sum().item())
    assert mean / kl - 1 == pytest.approx(bias, abs=1e-9)
    assert std / kl == pytest.approx(deviation, rel=1e-6)
    assert std / kl == pytest.approx(PRINTED[mu, name], rel=5e-4)


@pytest.mark.parametrize(("mu", "name", "bias", "deviation"), SCHULMAN)
def test_the_schulman_table_comes_out_by_sampling(mu: float, name: str, bias: float, deviation: float) -> None:
    """A million samples, seed 0: means within four standard errors, standard deviations within 2% (k3 at mu = 1 has a heavy tail)."""
    n = 1_000_000
    y = torch.randn(1, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q, p = score_gaussians(y, mu)
    k = ESTIMATORS[name](q, reference_logprobs=p) / (mu**2 / 2)
    assert k.mean().item() == pytest.approx(1 + bias, abs=4 * deviation / math.sqrt(n))
    assert k.std().item() == pytest.approx(deviation, rel=0.02)


def test_mean_k3_minus_mean_k1_is_the_mean_ratio_minus_one() -> None:
    generator = torch.Generator().manual_seed(1)
    policy = -3 * torch.rand(64, 24, generator=generator, dtype=torch.float64)
    reference = policy + 0.5 * torch.randn(64, 24, generator=generator, dtype=torch.float64)
    k1 = estimate_k1(policy, reference_logprobs=reference)
    k3 = estimate_k3(policy, reference_logprobs=reference)
    mean_ratio = (reference - policy).exp().mean().item()
    assert (k3.mean() - k1.mean()).item() == pytest.approx(mean_ratio - 1, abs=1e-12)


@pytest.mark.parametrize("log_ratio", [1e-8, -1e-8, 1e-5, -1e-5, 0.01, -0.01, 2.0, -2.0])
def test_k3_keeps_its_digits_near_zero(log_ratio: float) -> None:
    """Outside reference: the Taylor series l^2/2 - l^3/6 + ..., summed until it stands still."""
    series = math.fsum((-log_ratio) ** n / math.factorial(n) for n in range(2, 40))
    k3 = estimate_k3(torch.tensor([[log_ratio]], dtype=torch.float64), reference_logprobs=torch.zeros(1, 1, dtype=torch.float64)).item()
    assert k3 == pytest.approx(series, rel=1e-7, abs=1e-16)


@given(
    st.lists(
        st.tuples(st.floats(-200, 0, width=32), st.floats(-200, 0, width=32)),
        min_size=1,
        max_size=50,
    )
)
def test_k2_and_k3_are_never_negative_in_float32(pairs: list[tuple[float, float]]) -> None:
    policy, reference = torch.tensor(pairs, dtype=torch.float32).unbind(-1)
    for estimate in (estimate_k2, estimate_k3):
        assert (estimate(policy[None], reference_logprobs=reference[None]) >= 0).all()


@given(st.floats(-(2**-10), 2**-10, width=32), st.floats(-20, 0, width=32))
def test_k3_of_a_tiny_drift_is_never_negative_in_float32(drift: float, logprob: float) -> None:
    policy = torch.tensor([[logprob]], dtype=torch.float32)
    assert estimate_k3(policy, reference_logprobs=policy + drift).item() >= 0


def test_k3_is_not_negative_where_a_device_rounds_expm1_down(monkeypatch: pytest.MonkeyPatch) -> None:
    expm1 = torch.expm1
    monkeypatch.setattr(torch, "expm1", lambda x: torch.nextafter(expm1(x), torch.tensor(-INF)))
    log_ratio = torch.tensor([[1e-6, 1e-8, 1e-12, 0.0]])
    assert (estimate_k3(log_ratio, reference_logprobs=torch.zeros(1, 4)) >= 0).all()


@pytest.mark.parametrize(
    ("policy", "reference", "k1", "k2", "k3"),
    [
        (-1.0, -INF, INF, INF, INF),
        (-INF, -1.0, -INF, INF, INF),
        (-INF, -INF, NAN, NAN, NAN),
        (NAN, -1.0, NAN, NAN, NAN),
        (-1.0, NAN, NAN, NAN, NAN),
        (-1000.0, -1.0, -999.0, 499000.5, INF),
    ],
)
def test_non_finite_logprobs_are_told_and_not_hidden(policy: float, reference: float, k1: float, k2: float, k3: float) -> None:
    for estimate, expected in ((estimate_k1, k1), (estimate_k2, k2), (estimate_k3, k3)):
        value = estimate(torch.tensor([[policy]]), reference_logprobs=torch.tensor([[reference]])).item()
        assert value == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_half_precision_is_widened_before_the_difference_is_taken(name: str) -> None:
    policy = torch.tensor([[-7.03125]], dtype=torch.bfloat16)
    reference = torch.tensor([[-7.0]], dtype=torch.float32)
    value = ESTIMATORS[name](policy, reference_logprobs=reference)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx({"k1": -0.03125, "k2": 0.03125**2 / 2, "k3": math.expm1(0.03125) - 0.03125}[name], rel=1e-4)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_shapes_that_would_broadcast_are_refused(name: str) -> None:
    with pytest.raises(EstimatorError, match=r"one shape.*got \(4, 6\) and \(4, 1\)"):
        ESTIMATORS[name](torch.zeros(4, 6), reference_logprobs=torch.zeros(4, 1))


# Gradients, exact over five categories: which use of which estimator regularises towards the reference (arXiv 2510.01555, 2506.09477).

Objective = Callable[[Tensor, Tensor], Tensor]


def differentiate(objective: Objective, logits: Tensor, reference: Tensor) -> Tensor:
    """Gradient with respect to the policy's logits; the objective is given log-probabilities, [1, 5]."""
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(leaf.log_softmax(-1), reference), leaf)
    return gradient


def reverse_kl(policy: Tensor, reference: Tensor) -> Tensor:
    return (policy.exp() * (policy - reference)).sum()


def forward_kl(policy: Tensor, reference: Tensor) -> Tensor:
    return (reference.exp() * (reference - policy)).sum()


def in_loss(name: str) -> Objective:
    """What backpropagating through the estimate does, in expectation over on-policy samples: the sampling itself has no gradient."""
    return lambda policy, reference: (policy.exp().detach() * ESTIMATORS[name](policy, reference_logprobs=reference)).sum()


def in_loss_with_ratio(name: str) -> Objective:
    """The same times policy / old policy, which is 1 and has a gradient."""

    def objective(policy: Tensor, reference: Tensor) -> Tensor:
        ratio = (policy - policy.detach()).exp()
        return (policy.exp().detach() * ratio * ESTIMATORS[name](policy, reference_logprobs=reference)).sum()

    return objective


def in_reward(name: str) -> Objective:
    """What REINFORCE and PPO do with a penalty: the estimate is a number that weighs the log-probability's gradient."""
    return lambda policy, reference: (
        policy.exp().detach() * ESTIMATORS[name](policy, reference_logprobs=reference).detach() * policy
    ).sum()


def random_pair(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits, reference = torch.randn(2, 1, 5, generator=generator, dtype=torch.float64)
    return logits, reference.log_softmax(-1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("objective", "truth"),
    [
        pytest.param(in_loss("k2"), reverse_kl, id="k2 in the loss is KL(policy || reference)"),
        pytest.param(in_loss("k3"), forward_kl, id="k3 in the loss is KL(reference || policy)"),
        pytest.param(in_loss_with_ratio("k3"), reverse_kl, id="k3 in the loss times the ratio is KL(policy || reference)"),
        pytest.param(in_reward("k1"), reverse_kl, id="k1 in the reward is KL(policy || reference)"),
    ],
)
def test_gradient_is_that_of(objective: Objective, truth: Objective, seed: int) -> None:
    logits, reference = random_pair(seed)
    torch.testing.assert_close(differentiate(objective, logits, reference), differentiate(truth, logits, reference), rtol=0, atol=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_k1_in_the_loss_has_no_gradient_at_all(seed: int) -> None:
    logits, reference = random_pair(seed)
    assert differentiate(in_loss("k1"), logits, reference).abs().max().item() < 1e-15


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("truth", [reverse_kl, forward_kl])
@pytest.mark.parametrize("name", ["k2", "k3"])
def test_k2_and_k3_in_the_reward_have_the_gradient_of_neither_kl(name: str, truth: Objective, seed: int) -> None:
    logits, reference = random_pair(seed)
    gap = differentiate(in_reward(name), logits, reference) - differentiate(truth, logits, reference)
    assert gap.abs().max().item() > 0.03


@pytest.mark.parametrize("seed", range(5))
def test_k3_in_the_loss_is_not_the_reverse_kl(seed: int) -> None:
    logits, reference = random_pair(seed)
    gap = differentiate(in_loss("k3"), logits, reference) - differentiate(reverse_kl, logits, reference)
    assert gap.abs().max().item() > 0.03
