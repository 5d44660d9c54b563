import json
from typing import Any

import pytest

from klaudit.digests import digest_chat_template, digest_tokenizer
from klaudit.digests.tokenizer import strip_state
from tests.models.tiny import make_tiny_model


@pytest.fixture
def tokenizer() -> Any:
    return make_tiny_model().tokenizer


class Slow:
    """A tokenizer of no Rust library."""

    def __init__(self, vocabulary: dict[str, int], **special: str) -> None:
        self.vocabulary = vocabulary
        self.special_tokens_map = special

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary


def test_how_a_tokenizer_was_last_used_does_not_count(tokenizer: Any) -> None:
    before = digest_tokenizer(tokenizer)
    tokenizer(["w1 w2", "w3"], padding=True, truncation=True, max_length=2)
    assert digest_tokenizer(tokenizer) == before == digest_tokenizer(make_tiny_model().tokenizer)


@pytest.mark.parametrize("pad", ["<pad>", '"padding":', '"added_tokens":[', '"truncation":null'])
def test_only_the_state_is_left_out_of_the_serialised_form(tokenizer: Any, pad: str) -> None:
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    form = json.loads(backend.to_str())
    backend.enable_padding(pad_id=0, pad_token=pad)
    backend.enable_truncation(max_length=4)
    stripped = strip_state(backend.to_str())
    assert json.loads(stripped.replace(",,,", ",")) == {name: part for name, part in form.items() if name not in ("truncation", "padding")}


def test_a_new_token_and_a_new_special_token_count(tokenizer: Any) -> None:
    digests = {digest_tokenizer(tokenizer)}
    tokenizer.add_tokens(["brand-new"])
    digests.add(digest_tokenizer(tokenizer))
    tokenizer.eos_token = "brand-new"
    digests.add(digest_tokenizer(tokenizer))
    assert len(digests) == 3


def test_a_tokenizer_without_a_serialised_form_is_its_vocabulary() -> None:
    digest = digest_tokenizer(Slow({"a": 0, "b": 1}, eos_token="b"))
    assert digest == digest_tokenizer(Slow({"b": 1, "a": 0}, eos_token="b"))
    assert len({digest, digest_tokenizer(Slow({"a": 1, "b": 0}, eos_token="b")), digest_tokenizer(Slow({"a": 0, "b": 1}))}) == 3


def test_chat_templates_by_name_are_compared_whatever_their_order() -> None:
    assert digest_chat_template("{{ a }}") != digest_chat_template("{{ b }}")
    assert digest_chat_template({"default": "x", "tool": "y"}) == digest_chat_template({"tool": "y", "default": "x"})
