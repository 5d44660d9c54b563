import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from klaudit.errors import EstimatorError
from klaudit.kl import exact
from klaudit.kl.exact import estimate_full, measure_entropy

INF, NAN = math.inf, math.nan


def brute_force(policy_logits: Tensor, reference_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Textbook sum of p (log p - log q), in float64, all at once."""
    p = (policy_logits.double() / temperature).log_softmax(-1)
    q = (reference_logits.double() / temperature).log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def textbook_entropy(logits: Tensor) -> Tensor:
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def random_logits(drift: float, *, shape: tuple[int, ...] = (3, 7, 101), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    reference = 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    return reference + drift * torch.randn(*shape, generator=generator, dtype=torch.float64), reference


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("drift", [0.05, 1.0, 20.0])
def test_full_equals_the_textbook_sum(drift: float, temperature: float) -> None:
    policy, reference = random_logits(drift)
    full = estimate_full(policy, reference_logits=reference, temperature=temperature)
    torch.testing.assert_close(full, brute_force(policy, reference, temperature), rtol=1e-10, atol=1e-13)


def test_full_equals_what_torch_distributions_says() -> None:
    policy, reference = random_logits(1.0)
    truth = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=policy), torch.distributions.Categorical(logits=reference)
    )
    torch.testing.assert_close(estimate_full(policy, reference_logits=reference), truth)


@given(st.integers(0, 10_000), st.floats(0, 50), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_full_is_never_negative_and_equals_float64(seed: int, drift: float, dtype: torch.dtype) -> None:
    policy, reference = (logits.to(dtype) for logits in random_logits(drift, shape=(2, 3, 17), seed=seed))
    full = estimate_full(policy, reference_logits=reference)
    assert (full >= 0).all()
    torch.testing.assert_close(full.double(), brute_force(policy, reference), rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize("drift", [1e-3, 1e-5, 1e-7])
def test_a_tiny_drift_keeps_its_digits(drift: float) -> None:
    """Outside reference: for p = softmax(z + drift e), KL = drift^2 / 2 Var_p(e) (1 + O(drift)); rounding would show as noise or a sign."""
    generator = torch.Generator().manual_seed(3)
    reference, direction = torch.randn(2, 1, 50, 2000, generator=generator, dtype=torch.float64)
    p = reference.softmax(-1)
    variance = (p * direction**2).sum(-1) - (p * direction).sum(-1) ** 2
    full = estimate_full(reference + drift * direction, reference_logits=reference)
    assert (full > 0).all()
    torch.testing.assert_close(full, drift**2 / 2 * variance, rtol=max(drift, 1e-7), atol=0)


def test_one_distribution_against_itself_is_zero() -> None:
    policy, _ = random_logits(1.0)
    assert (estimate_full(policy.float(), reference_logits=policy.float()) == 0).all()


def test_a_constant_added_to_all_logits_changes_nothing() -> None:
    policy, reference = random_logits(1.0)
    shifted = estimate_full(policy + 700, reference_logits=reference - 700)
    torch.testing.assert_close(shifted, estimate_full(policy, reference_logits=reference), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("policy", "reference", "expected"),
    [
        pytest.param([0.0, -INF], [0.0, 0.0], math.log(2), id="a token without policy mass adds nothing"),
        pytest.param([0.0, -INF], [0.0, -INF], 0.0, id="nor does one without mass on either side"),
        pytest.param([0.0, 0.0], [0.0, -INF], INF, id="policy mass that the reference rules out is infinite"),
        pytest.param([0.0, -2000.0], [0.0, -INF], INF, id="however little mass"),
        pytest.param([0.0, -2000.0], [0.0, 0.0], math.log(2), id="mass that underflows adds nothing"),
        pytest.param([-2000.0, 0.0], [0.0, 0.0], math.log(2), id="on either side"),
        pytest.param([0.0, -2000.0], [-2000.0, 0.0], 2000.0, id="disjoint but for underflow"),
        pytest.param([NAN, 0.0], [0.0, 0.0], NAN, id="NaN stays NaN"),
        pytest.param([0.0, 0.0], [NAN, 0.0], NAN, id="on either side too"),
        pytest.param([-INF, -INF], [0.0, 0.0], NAN, id="no distribution at all"),
        pytest.param([0.0, INF], [0.0, 0.0], NAN, id="an infinite logit"),
    ],
)
def test_zero_mass_and_non_finite_logits(policy: list[float], reference: list[float], expected: float) -> None:
    value = estimate_full(torch.tensor([[policy]]), reference_logits=torch.tensor([[reference]])).item()
    assert value == pytest.approx(expected, nan_ok=True)


def test_a_nan_stays_at_its_own_position() -> None:
    policy, reference = random_logits(1.0)
    clean = estimate_full(policy, reference_logits=reference)
    policy[1, 2, 0] = NAN
    full = estimate_full(policy, reference_logits=reference)
    assert full[1, 2].isnan()
    full[1, 2] = clean[1, 2]
    assert torch.equal(full, clean)


@pytest.mark.parametrize("slice_elements", [1, 400, 800, 1500, 1 << 20])
def test_the_size_of_a_slice_changes_nothing(slice_elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, reference = random_logits(1.0)
    monkeypatch.setattr(exact, "SLICE_ELEMENTS", slice_elements)
    full = estimate_full(policy, reference_logits=reference)
    torch.testing.assert_close(full, brute_force(policy, reference), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(measure_entropy(policy), textbook_entropy(policy))


@pytest.mark.parametrize("n_positions", [1, 2, 5, 7, 15, 100])
def test_no_slice_is_larger_than_stated(n_positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    log_softmax = Tensor.log_softmax

    def record_size(logits: Tensor, dim: int) -> Tensor:
        sizes.append(logits.numel())
        return log_softmax(logits, dim)

    monkeypatch.setattr(exact, "SLICE_ELEMENTS", n_positions * 101)
    monkeypatch.setattr(Tensor, "log_softmax", record_size)
    policy, reference = random_logits(1.0)
    estimate_full(policy, reference_logits=reference)
    assert max(sizes) <= n_positions * 101
    assert sum(sizes) == 2 * policy.numel()


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 0, 5)])
def test_an_empty_batch_gives_an_empty_result(shape: tuple[int, int, int]) -> None:
    assert estimate_full(torch.zeros(shape), reference_logits=torch.zeros(shape)).shape == shape[:2]
    assert measure_entropy(torch.zeros(shape)).shape == shape[:2]


def test_logits_are_left_alone_and_no_gradient_is_kept() -> None:
    policy, reference = (logits.requires_grad_() for logits in random_logits(1.0))
    before = policy.detach().clone()
    assert not estimate_full(policy, reference_logits=reference).requires_grad
    assert not measure_entropy(policy).requires_grad
    assert torch.equal(policy, before)


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)]
)
def test_results_are_float32_or_wider(dtype: torch.dtype, expected: torch.dtype) -> None:
    policy, reference = (logits.to(dtype) for logits in random_logits(1.0))
    assert estimate_full(policy, reference_logits=reference).dtype == expected
    assert measure_entropy(policy).dtype == expected


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_entropy_equals_the_textbook_sum(temperature: float) -> None:
    policy, _ = random_logits(1.0)
    torch.testing.assert_close(measure_entropy(policy, temperature=temperature), textbook_entropy(policy / temperature))


@pytest.mark.parametrize(
    ("logits", "expected"),
    [([0.0] * 8, math.log(8)), ([0.0, 0.0, -INF], math.log(2)), ([0.0, -INF, -INF], 0.0), ([0.0, NAN, 0.0], NAN)],
)
def test_entropy_of_a_known_distribution(logits: list[float], expected: float) -> None:
    assert measure_entropy(torch.tensor([[logits]])).item() == pytest.approx(expected, rel=1e-6, abs=1e-12, nan_ok=True)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(EstimatorError, match=r"one shape.*got \(2, 3, 5\) and \(2, 3, 1\)"):
        estimate_full(torch.zeros(2, 3, 5), reference_logits=torch.zeros(2, 3, 1))
    with pytest.raises(EstimatorError, match=r"n_vocabulary\]; got \(3, 5\)"):
        estimate_full(torch.zeros(3, 5), reference_logits=torch.zeros(3, 5))


@pytest.mark.parametrize("temperature", [0.0, -1.0, INF, NAN])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(EstimatorError, match="temperature must be a positive finite number; got"):
        estimate_full(torch.zeros(1, 1, 2), reference_logits=torch.zeros(1, 1, 2), temperature=temperature)
    with pytest.raises(EstimatorError, match="temperature"):
        measure_entropy(torch.zeros(1, 1, 2), temperature=temperature)


def test_along_sampled_text_it_is_what_the_chain_rule_says() -> None:
    """Two tokens, three words: the sum over both positions, weighed by the first token's probability, is the KL of the pairs."""
    policy, reference = random_logits(1.0, shape=(1, 4, 3))
    p, q = policy[0].log_softmax(-1).numpy(), reference[0].log_softmax(-1).numpy()
    pairs_p, pairs_q = p[0][:, None] + p[1:], q[0][:, None] + q[1:]
    truth = (np.exp(pairs_p) * (pairs_p - pairs_q)).sum()
    full = estimate_full(policy, reference_logits=reference)[0].numpy()
    assert full[0] + (np.exp(p[0]) * full[1:]).sum() == pytest.approx(truth, rel=1e-12)
