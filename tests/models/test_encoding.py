from dataclasses import replace
from typing import Any

import pytest

from klaudit.errors import InvalidConfig
from klaudit.models.encoding import encode_text
from klaudit.models.language_model import LanguageModel
from klaudit.models.perplexity import measure_nats
from klaudit.models.sampling import encode_prompts


@pytest.fixture
def outgrown(tiny: LanguageModel) -> LanguageModel:
    """A model with a row less than its tokenizer has tokens."""
    resize: Any = tiny.model.resize_token_embeddings
    resize(99)
    return replace(tiny, name="outgrown")


def test_a_text_is_what_the_tokenizer_makes_of_it(tiny: LanguageModel) -> None:
    assert encode_text(tiny, "w1 w99") == tiny.tokenizer.encode("w1 w99") == [1, 99]


def test_a_token_beyond_the_rows_of_the_embeddings_is_refused_by_name(outgrown: LanguageModel) -> None:
    assert encode_text(outgrown, "w98") == [98]
    with pytest.raises(InvalidConfig, match=r"outgrown must have .* text 'w1 w99'; 'w99' has id 99 and the model 99 rows"):
        encode_text(outgrown, "w1 w99")


def test_prompts_and_passages_with_such_a_token_are_refused(outgrown: LanguageModel) -> None:
    with pytest.raises(InvalidConfig, match="'w99' has id 99"):
        encode_prompts(outgrown, prompts=["w1", "w99"])
    with pytest.raises(InvalidConfig, match="'w99' has id 99"):
        measure_nats(outgrown, ["w1 w2", "w3 w99"])
