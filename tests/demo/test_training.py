import pytest

from klaudit.demo.training import add_stops
from klaudit.errors import InvalidConfig
from klaudit.models.sampling import sample_completions
from tests.models.tiny import make_tiny_model


def test_a_text_ends_at_a_stop_and_keeps_it() -> None:
    policy = make_tiny_model()
    add_stops(policy, [f"w{i}" for i in range(1, 60)])
    rollout = sample_completions(policy, prompts=["w70"] * 32, max_new_tokens=8)
    ended = [text.split() for text, has_ended in zip(rollout.completions, rollout.ended_with_eos, strict=True) if has_ended]
    assert len(ended) > 8
    for words in ended:
        assert all(int(word[1:]) >= 60 for word in words[:-1])


def test_without_stops_nothing_changes() -> None:
    policy = make_tiny_model()
    add_stops(policy, ())
    assert policy.eos_token_ids == make_tiny_model().eos_token_ids


def test_a_stop_of_several_tokens_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="a stop must be one token of tiny; got 'w1 w2', which is 2"):
        add_stops(make_tiny_model(), ["w1 w2"])
