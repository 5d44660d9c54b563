from typing import Any

import pytest

from klaudit.drift.vocabulary import find_common_vocabulary, require_same_encoding, require_same_vocabulary
from klaudit.errors import InvalidConfig
from klaudit.models.language_model import LanguageModel
from tests.drift.tiny_models import WORDS, add_first_token, build_model, build_tokenizer


def pad(language_model: LanguageModel, n_logits: int) -> LanguageModel:
    padded = language_model.freeze_copy()
    resize: Any = padded.model.resize_token_embeddings
    resize(n_logits, mean_resizing=False)
    return padded


def test_other_vocabulary_and_other_tokenizer_are_refused(reference: LanguageModel) -> None:
    with pytest.raises(InvalidConfig, match="must share a vocabulary; they have 9 and 8 tokens"):
        find_common_vocabulary(build_model(words=(*WORDS, "h")), reference=reference)
    with pytest.raises(InvalidConfig, match="must share a tokenizer; 'a' with id 1 is in only one"):
        find_common_vocabulary(build_model(words=("</s>", "b", "a", *WORDS[3:])), reference=reference)


def test_equal_padding_is_compared_and_unequal_padding_is_left_out(reference: LanguageModel) -> None:
    assert find_common_vocabulary(pad(reference, 16), reference=pad(reference, 16)) == 16
    assert find_common_vocabulary(pad(reference, 16), reference=reference) == 8
    assert find_common_vocabulary(reference, reference=pad(reference, 16)) == 8


def test_unequal_padding_is_refused_where_logits_must_be_as_many(reference: LanguageModel) -> None:
    require_same_vocabulary(reference, reference=reference)
    with pytest.raises(InvalidConfig, match="they have 16 and 8 logits, padding included"):
        require_same_vocabulary(pad(reference, 16), reference=reference)


def test_tokenizers_of_one_vocabulary_are_refused_where_they_make_other_tokens_of_a_text(reference: LanguageModel) -> None:
    again = LanguageModel(model=reference.model, tokenizer=build_tokenizer(WORDS), name="again")
    require_same_encoding(again, reference=reference, texts=("a b", "c"))
    with pytest.raises(
        InvalidConfig, match=r"tiny-0-bos and tiny-0 .* of 'b c' they make 3 and 2, from token 1 on .* \[0, 2, 3\] and \[2, 3\]"
    ):
        require_same_encoding(add_first_token(reference), reference=reference, texts=("b c",))
