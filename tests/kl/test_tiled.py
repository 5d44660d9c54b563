import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from klaudit.errors import EstimatorError
from klaudit.kl import tiled
from klaudit.kl.output_head import OutputHead
from klaudit.kl.tiled import Divergence, measure_divergence, measure_divergence_of_logits

INF, NAN = math.inf, math.nan


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small problems have several tiles, of unequal size."""
    monkeypatch.setattr(tiled, "TILE_SHAPE", (5, 16))


def make_states(n: int, *, n_vocabulary: int, n_hidden: int, drift: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, and the output matrices of policy and reference."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, change = (torch.randn(*shape, generator=generator) for shape in ((n, n_hidden), *[(n_vocabulary, n_hidden)] * 2))
    weight *= 2 / math.sqrt(n_hidden)
    return hidden, weight + 2 * drift / math.sqrt(n_hidden) * change, weight


def logits_in_float64(head: OutputHead, hidden: Tensor) -> Tensor:
    logits = hidden.double() @ head.weight.double().T
    if head.bias is not None:
        logits = logits + head.bias.double()
    logits = logits * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def textbook(policy_logits: Tensor, reference_logits: Tensor, *, temperature: float = 1.0) -> dict[str, Tensor]:
    """Every quantity in float64, all at once, by the formula that defines it."""
    logs = [(one.double() / temperature).log_softmax(-1) for one in (policy_logits, reference_logits)]
    (p, q), mixture = (one.exp() for one in logs), torch.stack(logs).exp().mean(0).log()
    forward, full = q * (logs[1] - logs[0]), p * (logs[0] - logs[1])
    shannon = (p * (logs[0] - mixture) + q * (logs[1] - mixture)) / 2
    return {
        "full": full.sum(-1),
        "forward": forward.sum(-1),
        "jensen_shannon": shannon.sum(-1),
        "policy_entropy": -(p * logs[0]).sum(-1),
        "reference_entropy": -(q * logs[1]).sum(-1),
        "policy_logprobs": logs[0],
        "reference_logprobs": logs[1],
        "terms": q - p + full,
    }


def assert_is_textbook(found: Divergence, truth: dict[str, Tensor], *, token_ids: Tensor, rtol: float, atol: float) -> None:
    for name in ("full", "forward", "jensen_shannon", "policy_entropy", "reference_entropy"):
        torch.testing.assert_close(getattr(found, name), truth[name], rtol=rtol, atol=atol)
    for name in ("policy_logprobs", "reference_logprobs"):
        torch.testing.assert_close(getattr(found, name), truth[name].gather(1, token_ids[:, None])[:, 0], rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 13),
    n_vocabulary=st.integers(2, 70),
    n_hidden=st.integers(1, 9),
    drift=st.sampled_from([0.03, 0.3, 3.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    temperature=st.sampled_from([0.7, 1.0, 1.5]),
    shape=st.sampled_from([(5, 16), (3, 9), (64, 128)]),
    seed=st.integers(0, 1000),
)
def test_every_quantity_is_what_float64_says(
    n: int, n_vocabulary: int, n_hidden: int, drift: float, dtype: torch.dtype, temperature: float, shape: tuple[int, int], seed: int
) -> None:
    hidden, weight, reference_weight = make_states(n, n_vocabulary=n_vocabulary, n_hidden=n_hidden, drift=drift, seed=seed)
    heads = [OutputHead(one.to(dtype), bias) for one, bias in ((weight, weight[:, 0].to(dtype)), (reference_weight, None))]
    states = [hidden.to(dtype), (hidden + 0.1 * drift).to(dtype)]
    token_ids = torch.arange(n) % n_vocabulary
    n_top = min(3, n_vocabulary)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled, "TILE_SHAPE", shape)
        found = measure_divergence(
            states[0],
            heads[0],
            reference_hidden=states[1],
            reference_head=heads[1],
            token_ids=token_ids,
            temperature=temperature,
            n_top=n_top,
            with_all=True,
        )
    truth = textbook(*(logits_in_float64(head, one) for head, one in zip(heads, states, strict=True)), temperature=temperature)
    assert_is_textbook(found, truth, token_ids=token_ids, rtol=2e-4, atol=1e-6)
    assert found.top_contributions is not None
    assert found.top_token_ids is not None
    torch.testing.assert_close(found.top_contributions, truth["terms"].topk(n_top).values, rtol=2e-3, atol=1e-6)
    torch.testing.assert_close(truth["terms"].gather(1, found.top_token_ids), found.top_contributions, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("scale", [1.0, 0.0625])
def test_scaled_and_softcapped_heads_are_what_their_models_compute(softcap: float | None, scale: float) -> None:
    hidden, weight, reference_weight = make_states(12, n_vocabulary=50, n_hidden=6, drift=0.5)
    heads = [OutputHead(one, weight[:, 0], softcap, scale) for one in (weight, reference_weight)]
    found = measure_divergence(hidden, heads[0], reference_hidden=hidden, reference_head=heads[1], temperature=0.7, with_all=True)
    truth = textbook(*(logits_in_float64(head, hidden) for head in heads), temperature=0.7)
    torch.testing.assert_close(found.full, truth["full"], rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(found.forward, truth["forward"], rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(heads[0].project(hidden), logits_in_float64(heads[0], hidden).float(), rtol=1e-5, atol=1e-5)


def test_models_of_different_width_are_compared() -> None:
    hidden, weight, _ = make_states(9, n_vocabulary=40, n_hidden=6, drift=0.0)
    wide, reference_weight, _ = make_states(9, n_vocabulary=40, n_hidden=11, drift=0.0, seed=1)
    heads = OutputHead(weight), OutputHead(reference_weight)
    found = measure_divergence(hidden, heads[0], reference_hidden=wide, reference_head=heads[1])
    truth = textbook(logits_in_float64(heads[0], hidden), logits_in_float64(heads[1], wide))
    torch.testing.assert_close(found.full, truth["full"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("drift", [1e-4, 3e-4, 1e-3, 1e-2, 0.1, 1.0, 3.0])
def test_the_mean_is_within_a_thousandth_of_float64(drift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "TILE_SHAPE", (256, 1024))
    hidden, weight, reference_weight = make_states(256, n_vocabulary=5000, n_hidden=64, drift=drift)
    heads = OutputHead(weight), OutputHead(reference_weight)
    found = measure_divergence(hidden, heads[0], reference_hidden=hidden, reference_head=heads[1]).full
    truth = textbook(*(logits_in_float64(head, hidden) for head in heads))["full"].mean().item()
    assert 1e-8 < truth < 20
    assert (found >= 0).all()
    assert found.mean().item() == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize("drift", [1e-5, 1e-6, 1e-7, 1e-9])
def test_a_drift_that_float32_hardly_holds_is_small_and_never_negative(drift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "TILE_SHAPE", (100, 128))
    hidden, weight, reference_weight = make_states(300, n_vocabulary=700, n_hidden=16, drift=drift)
    found = measure_divergence(
        hidden, OutputHead(weight), reference_hidden=hidden, reference_head=OutputHead(reference_weight), with_all=True, n_top=2
    )
    for values in (found.full, found.forward, found.jensen_shannon, found.top_contributions):
        assert values is not None
        assert (values >= 0).all()
        assert values.max() < max(100 * drift**2, 1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_copied", [False, True])
def test_a_model_against_itself_is_exactly_0(dtype: torch.dtype, is_copied: bool) -> None:
    hidden, weight, _ = make_states(30, n_vocabulary=300, n_hidden=48, drift=0.0)
    head = OutputHead(weight.to(dtype), weight[:, 0].to(dtype), 30.0, 2.0)
    other = OutputHead(head.weight.clone(), weight[:, 0].to(dtype), 30.0, 2.0) if is_copied else head
    found = measure_divergence(
        hidden.to(dtype), head, reference_hidden=hidden.to(dtype).clone(), reference_head=other, with_all=True, n_top=2
    )
    for values in (found.full, found.forward, found.jensen_shannon, found.top_contributions):
        assert values is not None
        assert (values == 0).all()
    assert torch.equal(found.policy_entropy, found.reference_entropy)


ZERO_MASS = [
    pytest.param([0.0, -INF], [0.0, 0.0], math.log(2), id="an entry without policy mass adds nothing"),
    pytest.param([0.0, -INF], [0.0, -INF], 0.0, id="nor does one without mass on either side"),
    pytest.param([0.0, 0.0], [0.0, -INF], INF, id="policy mass that the reference rules out is infinite"),
    pytest.param([0.0, -2000.0], [0.0, -INF], INF, id="however little mass"),
    pytest.param([0.0, -2000.0], [0.0, 0.0], math.log(2), id="mass that underflows adds nothing"),
    pytest.param([0.0, -90.0], [0.0, 0.0], math.log(2), id="nor does mass that underflows in float32 only"),
    pytest.param([-2000.0, 0.0], [0.0, 0.0], math.log(2), id="on either side"),
    pytest.param([0.0, -2000.0], [-2000.0, 0.0], 2000.0, id="disjoint but for underflow"),
    pytest.param([NAN, 0.0], [0.0, 0.0], NAN, id="NaN stays NaN"),
    pytest.param([0.0, 0.0], [NAN, 0.0], NAN, id="on either side too"),
    pytest.param([-INF, -INF], [0.0, 0.0], NAN, id="no distribution at all"),
    pytest.param([0.0, 0.0], [-INF, -INF], NAN, id="nor on the other side"),
    pytest.param([0.0, INF], [0.0, 0.0], NAN, id="an infinite logit"),
]


@pytest.mark.parametrize("shape", [(5, 16), (1, 1)], ids=["one tile", "a tile for each entry"])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("policy", "reference", "expected"), ZERO_MASS)
def test_zero_mass_and_non_finite_logits(
    policy: list[float], reference: list[float], expected: float, order: int, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled, "TILE_SHAPE", shape)
    logits = [torch.tensor([one[::order], [1.0, 2.0]]) for one in (policy, reference)]
    found = measure_divergence_of_logits(*logits, n_top=1, with_all=True)
    assert found.full[0].item() == pytest.approx(expected, nan_ok=True, rel=1e-6, abs=1e-12)
    assert found.top_contributions is not None
    assert bool(found.top_contributions[0].isnan()) == math.isnan(expected)
    assert found.full[1] == 0


def test_entries_that_a_bias_rules_out_on_both_sides_are_as_if_cut_off() -> None:
    hidden, weight, reference_weight = make_states(11, n_vocabulary=40, n_hidden=6, drift=0.4)
    ruled_out = torch.zeros(40)
    ruled_out[33:] = -INF
    token_ids = torch.arange(11)
    whole, cut = (
        measure_divergence(hidden, heads[0], reference_hidden=hidden, reference_head=heads[1], token_ids=token_ids, n_top=3, with_all=True)
        for heads in (
            [OutputHead(weight, ruled_out), OutputHead(reference_weight, ruled_out)],
            [OutputHead(weight).cut(33), OutputHead(reference_weight).cut(33)],
        )
    )
    for name in ("full", "forward", "jensen_shannon", "policy_entropy", "reference_entropy", "policy_logprobs", "top_contributions"):
        torch.testing.assert_close(getattr(whole, name), getattr(cut, name), rtol=1e-5, atol=1e-7)
    assert torch.equal(whole.top_token_ids, cut.top_token_ids)  # type: ignore[arg-type]


def test_the_largest_logits_may_come_in_any_part_of_the_vocabulary() -> None:
    policy, reference = (torch.randn(6, 64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    for row, at in enumerate((0, 15, 16, 40, 63)):
        policy[row, at] += 200.0
        reference[row, 63 - at] += 150.0
    found = measure_divergence_of_logits(policy, reference)
    truth = textbook(policy, reference)
    torch.testing.assert_close(found.full, truth["full"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.policy_entropy, truth["policy_entropy"], rtol=1e-5, atol=1e-7)


def test_a_nan_stays_at_its_own_token() -> None:
    hidden, weight, reference_weight = make_states(12, n_vocabulary=40, n_hidden=6, drift=0.4)
    broken = hidden.clone()
    broken[7, 2] = NAN
    found, clean = (
        measure_divergence(states, OutputHead(weight), reference_hidden=hidden, reference_head=OutputHead(reference_weight), n_top=2)
        for states in (broken, hidden)
    )
    assert found.full.isnan().nonzero().tolist() == [[7]]
    assert found.policy_entropy[7].isnan()
    others = torch.arange(12) != 7
    assert torch.equal(found.full[others], clean.full[others])
    assert found.top_contributions is not None
    assert clean.top_contributions is not None
    torch.testing.assert_close(found.top_contributions[others], clean.top_contributions[others])


def test_given_logits_and_hidden_states_say_the_same() -> None:
    hidden, weight, reference_weight = make_states(12, n_vocabulary=40, n_hidden=6, drift=0.4)
    heads: list[OutputHead] = [OutputHead(weight), OutputHead(reference_weight)]
    asked: dict[str, Any] = {"token_ids": torch.arange(12), "temperature": 0.7, "n_top": 3, "with_all": True}
    of_states = measure_divergence(hidden, heads[0], reference_hidden=hidden, reference_head=heads[1], **asked)
    logits = [head.project(hidden) for head in heads]
    of_logits = measure_divergence_of_logits(logits[0], logits[1], **asked)
    for name in ("full", "forward", "jensen_shannon", "policy_entropy", "policy_logprobs", "top_contributions"):
        torch.testing.assert_close(getattr(of_states, name), getattr(of_logits, name), rtol=1e-5, atol=1e-7)


def test_neither_autocast_nor_a_lower_precision_of_products_reaches_it() -> None:
    hidden, weight, reference_weight = make_states(40, n_vocabulary=600, n_hidden=256, drift=1e-3)
    heads = OutputHead(weight), OutputHead(reference_weight)
    plain = measure_divergence(hidden, heads[0], reference_hidden=hidden, reference_head=heads[1]).full
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = measure_divergence(hidden, heads[0], reference_hidden=hidden, reference_head=heads[1]).full
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found, plain)


def test_tensors_are_left_alone_and_no_gradient_is_kept() -> None:
    hidden, weight, reference_weight = (one.requires_grad_() for one in make_states(12, n_vocabulary=40, n_hidden=6, drift=0.4))
    logits = [torch.randn(3, 40, requires_grad=True) for _ in range(2)]
    before = [one.detach().clone() for one in (hidden, weight, reference_weight, *logits)]
    found = measure_divergence(hidden, OutputHead(weight), reference_hidden=hidden, reference_head=OutputHead(reference_weight), n_top=1)
    assert not found.full.requires_grad
    assert not measure_divergence_of_logits(logits[0], logits[1], temperature=2.0).full.requires_grad
    assert all(torch.equal(one, was) for one, was in zip((hidden, weight, reference_weight, *logits), before, strict=True))


def test_no_tokens_give_an_empty_result() -> None:
    head = OutputHead(torch.zeros(8, 3))
    found = measure_divergence(
        torch.zeros(0, 3),
        head,
        reference_hidden=torch.zeros(0, 3),
        reference_head=OutputHead(torch.ones(8, 3)),
        token_ids=torch.zeros(0, dtype=torch.int64),
        n_top=2,
        with_all=True,
    )
    assert found.full.shape == (0,)
    assert found.top_token_ids is not None
    assert found.top_token_ids.shape == (0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy_hidden": torch.zeros(4, 5)}, r"policy must be floating, \[n, 3\].*got torch.float32, \(4, 5\)"),
        ({"policy_hidden": torch.zeros(1, 4, 3)}, r"got torch.float32, \(1, 4, 3\)"),
        ({"reference_hidden": torch.zeros(5, 3)}, "the same tokens; got 4 and 5"),
        ({"reference_head": OutputHead(torch.zeros(10, 3))}, "one vocabulary; got 8 and 10 entries.*OutputHead.cut"),
        ({"temperature": 0.0}, "temperature must be a positive finite number; got 0.0"),
        ({"n_top": 9}, "n_top must be 0 to 8"),
        ({"token_ids": torch.tensor([0, 1, 2, 8])}, "token_ids must be 0 to 7; got 0 to 8"),
        ({"token_ids": torch.zeros(3, dtype=torch.int64)}, r"token_ids must be int64, \[4\]"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    head = OutputHead(torch.zeros(8, 3))
    given = {"policy_hidden": torch.zeros(4, 3), "policy_head": head, "reference_hidden": torch.zeros(4, 3), "reference_head": head}
    with pytest.raises(EstimatorError, match=message):
        measure_divergence(**{**given, **change})


MEMORY = """
import resource, sys, torch
from klaudit.kl.output_head import OutputHead
from klaudit.kl.tiled import measure_divergence
hidden = torch.randn(512, 8)
heads = [OutputHead(torch.randn(40000, 8, dtype=torch.bfloat16)) for _ in range(2)]
for n_tokens, n_vocabulary in ((300, 3000), (512, 40000)):
    policy, reference = (head.cut(n_vocabulary) for head in heads)
    measure_divergence(hidden[:n_tokens], policy, reference_hidden=hidden[:n_tokens], reference_head=reference, n_top=3)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def test_memory_is_that_of_tiles_and_not_of_tokens_times_vocabulary() -> None:
    """One [tokens, vocabulary] of float32 would be 78 MiB here."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, env=environment)
    small, large = (int(line) for line in done.stdout.split())
    assert large - small < 20 << 20
