from typing import Any

import pytest

from klaudit.errors import InvalidConfig
from klaudit.ppo.config import PPOConfig


def test_an_unknown_key_is_named_beside_the_known_ones() -> None:
    with pytest.raises(InvalidConfig, match=r"unknown PPO setting 'learning_rte'; known are: max_steps, .*learning_rate"):
        PPOConfig.from_mapping({"learning_rte": 1e-5})


def test_what_a_toml_file_says_becomes_a_config() -> None:
    config = PPOConfig.from_mapping({"max_steps": 3, "beta": 1, "target_kl": 6.0, "learning_rate_spikes": [[2, 3, 20]]})
    assert (config.max_steps, config.beta, config.target_kl) == (3, 1, 6.0)
    assert config.learning_rate_spikes == ((2, 3, 20.0),)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": 0}, "max_steps must be 1 or more; got 0"),
        ({"max_steps": 2.5}, "max_steps must be int, and finite; got 2.5"),
        ({"batch_size": True}, "batch_size must be int"),
        ({"learning_rate": "1e-5"}, "learning_rate must be float"),
        ({"learning_rate": float("nan")}, "learning_rate must be float, and finite; got nan"),
        ({"beta": -0.1}, "beta must be 0 or more"),
        ({"beta": 0.0, "target_kl": 1.0}, "beta must be above 0 to be adaptive"),
        ({"target_kl": 0.0}, "target_kl must be above 0"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"lam": 1.5}, "lam must be between 0 and 1"),
        ({"minibatches": 17}, r"minibatches must be 16 \(batch_size\) or less; got 17"),
        ({"schedule": "cosine"}, "schedule must be .*'constant', 'linear'.*; got 'cosine'"),
        ({"whiten_rewards": 1}, "whiten_rewards must be bool"),
        ({"learning_rate_spikes": [[0, 3, 20]]}, "a learning rate spike must be"),
        ({"learning_rate_spikes": [[5, 20]]}, "a learning rate spike must be"),
        ({"learning_rate_spikes": 5}, "learning_rate_spikes must be"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_was_expected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        PPOConfig.from_mapping(settings)


def test_the_learning_rate_warms_up_then_falls_linearly() -> None:
    config = PPOConfig(max_steps=6, warmup_steps=2, schedule="linear", learning_rate=12.0)
    assert [config.learning_rate_at(step) for step in range(1, 7)] == pytest.approx([4.0, 8.0, 12.0, 9.0, 6.0, 3.0])


def test_a_spike_multiplies_the_learning_rate_of_its_steps_only() -> None:
    config = PPOConfig(learning_rate=1.0, learning_rate_spikes=((3, 2, 20.0),))
    assert [config.learning_rate_at(step) for step in range(1, 7)] == [1.0, 1.0, 20.0, 20.0, 1.0, 1.0]
