import math

import pytest
import torch

from klaudit.models import perplexity
from klaudit.models.language_model import LanguageModel
from klaudit.models.perplexity import cut_windows, measure_nats

PASSAGES = ("w1 w2 w3 w4 w5 w6 w7", "w9 w8", "w5", "w3 w1 w4 w1 w5 w9 w2 w6 w5 w3 w5")


def sum_nats(tiny: LanguageModel, token_ids: list[int], *, n_given: int) -> float:
    """Of the tokens after the first `n_given`, by one plain forward in float64."""
    with torch.no_grad():
        logprobs = tiny.model(torch.tensor([token_ids])).logits[0].double().log_softmax(-1)
    return -sum(float(logprobs[place - 1, token_ids[place]]) for place in range(n_given, len(token_ids)))


def test_nats_equal_a_plain_forward_over_each_passage_alone(tiny: LanguageModel) -> None:
    measured = measure_nats(tiny, PASSAGES, batch_size=2)
    for passage, (nats, n_tokens) in zip(PASSAGES, measured, strict=True):
        ids = tiny.tokenizer.encode(passage)
        assert n_tokens == len(ids) - 1
        assert nats == pytest.approx(sum_nats(tiny, ids, n_given=1), rel=1e-5)


def test_a_model_whose_head_is_not_supported_is_measured_by_its_logits(tiny: LanguageModel) -> None:
    expected = measure_nats(tiny, PASSAGES)
    head = tiny.model.get_submodule("lm_head")
    # a constant on all logits changes no probability, and is nothing that an OutputHead does
    head.register_forward_hook(lambda _module, _inputs, output: output + 3.0)
    for (nats, n_tokens), (expected_nats, n_expected) in zip(measure_nats(tiny, PASSAGES), expected, strict=True):
        assert n_tokens == n_expected
        assert nats == pytest.approx(expected_nats, rel=1e-4)


def test_a_long_passage_is_read_in_windows_that_overlap_by_half(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perplexity, "LONGEST_WINDOW", 8)
    ids = [1 + (7 * i) % 99 for i in range(15)]
    ((nats, n_tokens),) = measure_nats(tiny, [" ".join(f"w{i}" for i in ids)])
    assert n_tokens == 14
    expected = sum_nats(tiny, ids[:8], n_given=1) + sum_nats(tiny, ids[4:12], n_given=4) + sum_nats(tiny, ids[7:15], n_given=5)
    assert nats == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("n", range(40))
def test_every_token_but_the_first_is_counted_once(n: int) -> None:
    windows = cut_windows(range(n), passage=0, size=8)
    counted = [token for window in windows for token in window.token_ids[-window.n_counted :]]
    assert counted == list(range(1, n))
    assert all(len(window.token_ids) <= 8 for window in windows)
    assert all(len(window.token_ids) - window.n_counted >= 4 for window in windows[1:])


def test_a_uniform_model_costs_the_logarithm_of_its_vocabulary(tiny: LanguageModel) -> None:
    with torch.no_grad():
        tiny.model.get_parameter("model.norm.weight").zero_()
    ((nats, n_tokens),) = measure_nats(tiny, ["w1 w2 w3"])
    assert nats / n_tokens == pytest.approx(math.log(100), rel=1e-6)
