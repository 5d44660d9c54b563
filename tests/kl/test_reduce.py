import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from klaudit.errors import EstimatorError
from klaudit.kl.reduce import KnownUnit, reduce_to_batch, reduce_to_sequence

UNITS: tuple[KnownUnit, ...] = ("nats_per_sequence", "nats_per_token")

# three sequences of 2, 4 and 3 tokens, worked by hand: sums 3, 4, 5; K per sequence = 4, K per token = 12 / 9
PER_TOKEN = torch.tensor([[1.0, 2.0, 9.0, 9.0], [1.0, 1.0, 1.0, 1.0], [0.0, 2.0, 3.0, 9.0]])
MASK = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]]).bool()


def test_tokens_sum_to_sequences() -> None:
    assert reduce_to_sequence(PER_TOKEN, mask=MASK).tolist() == [3.0, 4.0, 5.0]


def test_nats_per_sequence_is_the_mean_with_its_standard_error() -> None:
    batch = reduce_to_batch(PER_TOKEN, mask=MASK)
    assert (batch.value, batch.unit, batch.n_sequences, batch.mean_length) == (4.0, "nats_per_sequence", 3, 3.0)
    assert batch.standard_error == pytest.approx(math.sqrt(2 / 6))


def test_nats_per_token_is_total_nats_over_total_tokens_with_the_delta_method() -> None:
    """Residuals s - K t with K = 4/3: 3 - 8/3, 4 - 16/3, 5 - 4; their squares sum to 26/9."""
    batch = reduce_to_batch(PER_TOKEN, mask=MASK, unit="nats_per_token")
    assert batch.value == pytest.approx(12 / 9)
    assert batch.standard_error == pytest.approx(math.sqrt(3 / 2 * 26 / 9) / 9)


@pytest.mark.parametrize("unit", UNITS)
def test_the_standard_error_is_how_much_the_value_varies_between_batches(unit: KnownUnit) -> None:
    """Outside reference: the spread over 2,000 batches of 64 sequences of random length; seed 5, within 5%."""
    rng = np.random.default_rng(5)
    lengths = rng.integers(4, 25, size=(2000, 64))
    mask = torch.tensor(np.arange(24) < lengths[..., None])
    level = rng.gamma(2.0, 0.1, size=(2000, 64, 1))  # tokens of a sequence share it, so they are not independent
    tokens = torch.tensor(level + 0.2 * rng.standard_normal((2000, 64, 24)))
    batches = [reduce_to_batch(x, mask=m, unit=unit) for x, m in zip(tokens, mask, strict=True)]
    errors = [batch.standard_error for batch in batches if batch.standard_error is not None]
    assert len(errors) == 2000
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std([batch.value for batch in batches]), rel=0.05)


@given(
    st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9), st.integers(0, 7), st.sampled_from([math.nan, math.inf, -math.inf, 1e30])
)
def test_padding_changes_nothing_whatever_it_holds(seed: int, n_sequences: int, n_tokens: int, n_padding: int, garbage: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    per_token = torch.randn(n_sequences, n_tokens, generator=generator)
    mask = torch.rand(n_sequences, n_tokens, generator=generator) < 0.7
    mask[0, 0] = True
    padding = torch.full((n_sequences, n_padding), garbage)
    padded = torch.cat([padding, per_token.masked_fill(~mask, garbage), padding], dim=1)
    padded_mask = torch.nn.functional.pad(mask, (n_padding, n_padding), value=False)
    for unit in UNITS:
        bare = reduce_to_batch(per_token, mask=mask, unit=unit)
        full = reduce_to_batch(padded, mask=padded_mask, unit=unit)
        assert full.value == pytest.approx(bare.value, rel=1e-5, abs=1e-6)
        assert (full.standard_error or 0) == pytest.approx(bare.standard_error or 0, rel=1e-4, abs=1e-6)
        assert (full.n_sequences, full.mean_length) == (bare.n_sequences, bare.mean_length)
        assert (full.standard_error is None) == (n_sequences == 1)


@given(st.integers(0, 10_000))
def test_per_token_times_mean_length_is_per_sequence(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    per_token = torch.rand(5, 9, generator=generator, dtype=torch.float64)
    mask = torch.rand(5, 9, generator=generator) < 0.6
    mask[0, 0] = True
    token, sequence = (reduce_to_batch(per_token, mask=mask, unit=unit) for unit in ("nats_per_token", "nats_per_sequence"))
    assert token.value * token.mean_length == pytest.approx(sequence.value, rel=1e-12)


def test_with_equal_lengths_the_standard_errors_bridge_too() -> None:
    per_token = torch.rand(8, 5, generator=torch.Generator().manual_seed(0))
    token, sequence = (
        reduce_to_batch(per_token, mask=torch.ones(8, 5).bool(), unit=unit) for unit in ("nats_per_token", "nats_per_sequence")
    )
    assert token.standard_error is not None
    assert token.standard_error * 5 == pytest.approx(sequence.standard_error)


@pytest.mark.parametrize("unit", UNITS)
def test_one_sequence_has_no_standard_error(unit: KnownUnit) -> None:
    batch = reduce_to_batch(PER_TOKEN[:1], mask=MASK[:1], unit=unit)
    assert batch.standard_error is None
    assert batch.value == {"nats_per_sequence": 3.0, "nats_per_token": 1.5}[unit]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_counted_token_that_is_not_finite_shows(value: float, unit: KnownUnit) -> None:
    per_token = PER_TOKEN.clone()
    per_token[1, 0] = value
    batch = reduce_to_batch(per_token, mask=MASK, unit=unit)
    assert batch.value == pytest.approx(value, nan_ok=True)
    assert batch.standard_error is None


def test_a_sequence_without_tokens_counts_as_zero_nats() -> None:
    mask = MASK.clone()
    mask[1] = False
    batch = reduce_to_batch(PER_TOKEN, mask=mask)
    assert batch.n_sequences == 3
    assert (batch.value, batch.mean_length) == pytest.approx((8 / 3, 5 / 3))


@pytest.mark.parametrize(
    ("per_token", "mask", "message"),
    [
        pytest.param(torch.zeros(2, 3), torch.ones(2, 1).bool(), r"one shape.*got \(2, 3\) and \(2, 1\)", id="broadcast"),
        pytest.param(torch.zeros(3), torch.ones(3).bool(), r"n_tokens\]; got \(3,\)", id="one dimension"),
        pytest.param(torch.zeros(2, 3), torch.ones(2, 3), r"mask must be bool.*float32.*mask\.bool\(\)", id="mask of floats"),
        pytest.param(torch.zeros(2, 3), torch.zeros(2, 3).bool(), "at least one token", id="nothing counts"),
        pytest.param(torch.zeros(0, 3), torch.zeros(0, 3).bool(), "at least one token", id="no sequence"),
    ],
)
def test_what_cannot_be_reduced_is_refused(per_token: Tensor, mask: Tensor, message: str) -> None:
    with pytest.raises(EstimatorError, match=message):
        reduce_to_batch(per_token, mask=mask)


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(EstimatorError, match="unit must be nats_per_sequence or nats_per_token; got 'bits'"):
        reduce_to_batch(PER_TOKEN, mask=MASK, unit="bits")  # type: ignore[arg-type]
