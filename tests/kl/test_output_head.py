import math

import pytest
import torch

from klaudit.errors import EstimatorError
from klaudit.kl.output_head import PRODUCTS, OutputHead, multiply_in_float32

WEIGHT = torch.randn(11, 6, generator=torch.Generator().manual_seed(0))
BIAS = torch.linspace(-1, 1, 11)


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6)])
def test_logits_are_what_the_formula_says_in_any_shape(shape: tuple[int, ...]) -> None:
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    head = OutputHead(WEIGHT, BIAS, softcap=2.0, scale=0.5)
    expected = 2 * torch.tanh(0.5 * (hidden @ WEIGHT.T + BIAS) / 2) / 0.7
    torch.testing.assert_close(head.project(hidden, temperature=0.7), expected)
    torch.testing.assert_close(OutputHead(WEIGHT).project(hidden), hidden @ WEIGHT.T)


def test_a_result_is_written_where_it_is_asked_for() -> None:
    out = torch.full((4, 11), math.nan)
    found = OutputHead(WEIGHT, BIAS).project(torch.ones(4, 6), out=out)
    assert found.data_ptr() == out.data_ptr()
    assert out.isfinite().all()


def test_half_precision_is_brought_to_float32_before_the_product() -> None:
    hidden = torch.randn(4, 6).bfloat16()
    head = OutputHead(WEIGHT.bfloat16())
    torch.testing.assert_close(head.project(hidden), hidden.float() @ head.weight.float().T)
    assert head.to_float32().weight.dtype == torch.float32


def test_a_cut_head_shares_the_memory_and_lacks_the_rest() -> None:
    head = OutputHead(WEIGHT, BIAS, 2.0, 0.5)
    cut = head.cut(7)
    assert (cut.n_vocabulary, cut.n_hidden, cut.softcap, cut.scale) == (7, 6, 2.0, 0.5)
    assert cut.weight.data_ptr() == WEIGHT.data_ptr()
    hidden = torch.ones(2, 6)
    torch.testing.assert_close(cut.project(hidden), head.project(hidden)[:, :7])
    with pytest.raises(EstimatorError, match="11 entries can be cut to 1 to 11; got 12"):
        head.cut(12)


def test_a_head_is_the_same_where_its_memory_and_settings_are() -> None:
    head = OutputHead(WEIGHT, BIAS)
    assert head.is_same(OutputHead(WEIGHT, BIAS))
    for other in (OutputHead(WEIGHT.clone(), BIAS), OutputHead(WEIGHT), OutputHead(WEIGHT, BIAS, 2.0), OutputHead(WEIGHT, BIAS, scale=2.0)):
        assert not head.is_same(other)
        assert not other.is_same(head)
    assert not head.is_same(head.cut(10))


def test_what_products_may_be_rounded_to_is_as_before_afterwards() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    allowed = [backend.fp32_precision for backend in PRODUCTS]
    try:
        with multiply_in_float32(torch.device("cpu")):
            assert {backend.fp32_precision for backend in PRODUCTS} == {"ieee"}
        assert [backend.fp32_precision for backend in PRODUCTS] == allowed != ["ieee", "ieee"]
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight": torch.zeros(3)}, r"floating, \[n_vocabulary, n_hidden\]; got torch.float32, \(3,\)"),
        ({"weight": torch.zeros(3, 2, dtype=torch.int8)}, "got torch.int8"),
        ({"weight": WEIGHT, "bias": torch.zeros(10)}, r"bias of this output head must be \[11\]; got \(10,\)"),
        ({"weight": WEIGHT, "scale": 0.0}, "the scale of an output head must be a positive finite number; got 0.0"),
        ({"weight": WEIGHT, "softcap": math.nan}, "the softcap of an output head"),
    ],
)
def test_what_is_no_head_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(EstimatorError, match=message):
        OutputHead(**given)  # type: ignore[arg-type]
