"""Stores for the hooks, and what verl 0.9.1 and OpenRLHF 0.11.2 log: keys of their sources, numbers made up."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from klaudit.store import Store, open_store


@pytest.fixture
def store_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the hooks record to: they have no arguments of their own."""
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path / 'klaudit.db'}"
    monkeypatch.setenv("KLAUDIT_STORE", url)
    monkeypatch.delenv("KLAUDIT_WEBHOOK", raising=False)
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """To set budgets before a run, and to look at what was recorded."""
    with open_store(store_url, create=True) as opened:
        yield opened


@pytest.fixture
def verl_config() -> dict[str, Any]:
    """verl's own defaults for PPO, with the KL in the reward, as `OmegaConf.to_container` gives them to Tracking."""
    omegaconf = importlib.import_module("omegaconf")
    folder = Path(str(importlib.import_module("verl").__file__)).parent / "trainer" / "config"
    config = omegaconf.OmegaConf.load(folder / "_generated_ppo_trainer.yaml")
    config.merge_with_dotlist(
        [
            "algorithm.use_kl_in_reward=true",
            "algorithm.kl_penalty=kl",
            "actor_rollout_ref.rollout.temperature=0.8",
            "actor_rollout_ref.rollout.n=2",
            "actor_rollout_ref.model.path=owner/model",
            "data.train_batch_size=16",
            "trainer.total_training_steps=4",
        ]
    )
    config.trainer.wandb_token = "hunter2"
    container: dict[str, Any] = omegaconf.OmegaConf.to_container(config, resolve=False)
    return container


def log_of_verl(kl: float = 0.01, beta: float = 0.001, **more: float) -> dict[str, float]:
    return {
        "actor/reward_kl_penalty": kl,
        "actor/reward_kl_penalty_coeff": beta,
        "actor/ppo_kl": 0.0004,
        "actor/entropy": 1.7,
        "critic/score/mean": 0.4,
        "critic/rewards/mean": 0.39,
        "response_length/mean": 120.0,
        **more,
    }


def log_of_openrlhf(kl: float = 0.02, **more: Any) -> dict[str, Any]:
    return {
        "kl": kl,
        "ppo_kl": 0.0005,
        "ppo_clip_ratio": 0.1,
        "reward": 0.6,
        "return": 0.58,
        "response_length": 100.0,
        "policy_loss": None,
        "generated_samples": ["a text", 0.5],
        **more,
    }
