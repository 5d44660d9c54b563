import math

import pytest
import torch

from klaudit.drift.loaded_model import LoadedModel
from klaudit.drift.passages import Passages
from klaudit.drift.retention import measure_retention
from klaudit.errors import InvalidConfig
from klaudit.models.language_model import LanguageModel
from tests.drift.tiny_models import WORDS, add_first_token, build_model

PASSAGES = Passages("tiny", ("a b c d", "e f g", "c c c a b", "g d"))


@torch.no_grad()
def sum_nats(language_model: LanguageModel, text: str) -> float:
    ids = torch.tensor([language_model.tokenizer.encode(text)])
    logprobs = language_model.model(ids).logits[0, :-1].double().log_softmax(-1)
    return float(-logprobs.gather(1, ids[0, 1:, None]).sum())


def test_values_are_nats_per_predicted_token_and_the_rise_is_their_difference(policy: LanguageModel, reference: LanguageModel) -> None:
    retention = measure_retention(LoadedModel(policy), LoadedModel(reference), passages=PASSAGES, batch_size=2)
    expected = [sum(sum_nats(model, text) for text in PASSAGES.texts) / 10 for model in (policy, reference)]
    assert (retention.policy_nats.value, retention.reference_nats.value) == pytest.approx(expected, abs=1e-5)
    assert retention.rise.value == pytest.approx(expected[0] - expected[1], abs=1e-5)
    assert (retention.n_tokens, retention.n_passages, retention.text, retention.text_digest) == (10, 4, "tiny", PASSAGES.digest)


def test_rise_of_a_model_over_itself_is_zero_however_much_passages_differ(reference: LanguageModel) -> None:
    retention = measure_retention(LoadedModel(reference), LoadedModel(reference.freeze_copy()), passages=PASSAGES, batch_size=4)
    assert (retention.rise.low, retention.rise.high) == pytest.approx((0, 0), abs=1e-5)
    assert retention.policy_nats.high - retention.policy_nats.low > 0.1


def test_passages_of_one_token_say_nothing(policy: LanguageModel, reference: LanguageModel) -> None:
    some = Passages("short", ("a", *PASSAGES.texts))
    assert measure_retention(LoadedModel(policy), LoadedModel(reference), passages=some, batch_size=2).n_passages == 4
    with pytest.raises(InvalidConfig, match="at least 2 passages of 2 tokens or more; it has 1"):
        measure_retention(LoadedModel(policy), LoadedModel(reference), passages=Passages("x", ("a", "b", "a b")), batch_size=2)


def test_other_tokenizers_are_refused(reference: LanguageModel) -> None:
    with pytest.raises(InvalidConfig, match="must share a vocabulary"):
        measure_retention(LoadedModel(build_model(words=(*WORDS, "h"))), LoadedModel(reference), passages=PASSAGES, batch_size=2)


def test_a_tokenizer_that_makes_other_tokens_of_a_passage_is_refused(policy: LanguageModel, reference: LanguageModel) -> None:
    with pytest.raises(InvalidConfig, match=r"'a b c d' they make 4 and 5, .* Copy the reference's tokenizer files"):
        measure_retention(LoadedModel(policy), LoadedModel(add_first_token(reference)), passages=PASSAGES, batch_size=2)


def test_broken_weights_show_as_a_number_that_is_not_finite(policy: LanguageModel, reference: LanguageModel) -> None:
    with torch.no_grad():
        policy.model.get_parameter("lm_head.weight")[:] = math.nan
    assert math.isnan(measure_retention(LoadedModel(policy), LoadedModel(reference), passages=PASSAGES, batch_size=2).rise.value)
