import math
from pathlib import Path
from typing import Any

import pytest
import torch

from klaudit.demo.faults import FAULT_KINDS, Fault
from klaudit.demo.planting import BREAKERS, plant_fault
from klaudit.models.language_model import LanguageModel
from klaudit.ppo.config import PPOConfig
from klaudit.ppo.trainer import PPOTrainer
from tests.models.tiny import make_tiny_model

STEP = 3
SETTINGS: dict[str, Any] = {
    "max_steps": 4, "batch_size": 8, "response_length": 8, "epochs": 1, "minibatches": 2, "learning_rate": 1e-3, "beta": 0.05,
    "save_steps": 0, "save_optimizer": False, "sample_every": 0,
}  # fmt: skip


def score_length(_prompts: list[str], completions: list[str]) -> list[float]:
    return [len(text.split()) / 8 for text in completions]


def make_policy() -> LanguageModel:
    """A tiny model whose texts end early, half the words being stops."""
    policy = make_tiny_model()
    generation: Any = policy.model.generation_config
    generation.eos_token_id = [*range(50)]
    return policy


def train(directory: Path, fault: str | None = None, **settings: Any) -> list[dict[str, float]]:
    config = PPOConfig(**SETTINGS | settings)
    trainer = PPOTrainer(make_policy(), score=score_length, prompts=("w1", "w2 w3"), config=config, output_dir=directory)
    if fault is not None:
        plant_fault(trainer, Fault(fault, STEP))
    history: list[dict[str, float]] = trainer.train().log_history
    return [{name: number for name, number in logs.items() if not name.startswith("seconds_")} for logs in history]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    return train(tmp_path_factory.mktemp("healthy"))


def test_every_kind_can_be_planted() -> None:
    assert BREAKERS.keys() == FAULT_KINDS.keys()


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_a_fault_leaves_the_steps_before_it_as_they_are_and_shows_at_its_step(
    kind: str, healthy: list[dict[str, float]], tmp_path: Path
) -> None:
    history = train(tmp_path, kind)
    assert history[: STEP - 1] == healthy[: STEP - 1]
    assert history[STEP - 1] != healthy[STEP - 1]


def test_a_learning_rate_is_multiplied_to_the_end(tmp_path: Path) -> None:
    assert [logs["learning_rate"] for logs in train(tmp_path, "learning_rate")] == pytest.approx([1e-3, 1e-3, 2e-2, 2e-2])


@pytest.mark.parametrize(("kind", "factor"), [("beta_zero", 0.0), ("beta_sign", -1.0)])
def test_another_beta_is_logged_and_taken(kind: str, factor: float, tmp_path: Path) -> None:
    broken = train(tmp_path, kind)[STEP - 1 :]
    for logs in broken:
        assert logs["beta"] == 0.05 * factor
        assert logs["kl_penalty"] == pytest.approx(0.05 * factor * logs["kl_k1"])
    assert broken[-1]["kl_k1"] != 0


def test_a_penalty_on_padding_is_not_beta_times_the_logged_kl(healthy: list[dict[str, float]], tmp_path: Path) -> None:
    history = train(tmp_path, "padding_in_penalty")
    for logs in history[: STEP - 1]:
        assert logs["kl_penalty"] == pytest.approx(logs["beta"] * logs["kl_k1"])
    for logs in history[STEP - 1 :]:
        assert logs["response_length"] < 8
        assert abs(logs["kl_penalty"] - logs["beta"] * logs["kl_k1"]) > 0.05 * abs(logs["kl_penalty"])
        assert logs["rlhf_reward"] == pytest.approx(logs["score"] - logs["kl_penalty"])
    # The texts of that step were sampled before its update: what is logged of them is what a healthy run logs.
    for name in ("kl_full", "kl_k1", "score", "entropy", "response_length"):
        assert history[STEP - 1][name] == healthy[STEP - 1][name]


def test_texts_that_were_cut_are_likelier_than_the_policy_says(tmp_path: Path) -> None:
    for logs in train(tmp_path, "sampling_top_k", batch_size=64)[STEP - 1 :]:
        assert logs["surprisal_gap"] < -3 * logs["surprisal_gap_se"] < 0


def test_another_reference_takes_the_kl_back_to_zero(tmp_path: Path) -> None:
    history = train(tmp_path, "reference_swap")
    assert history[STEP - 2]["kl_full"] > 0.01
    assert history[STEP - 1]["kl_full"] == history[STEP - 1]["kl_k1"] == 0
    assert history[STEP]["kl_full"] > 0


def test_a_gradient_that_is_nan_stops_the_policy(tmp_path: Path) -> None:
    for logs in train(tmp_path, "nan_gradient")[STEP - 1 :]:
        assert math.isnan(logs["grad_norm"])
        assert logs["skipped_minibatches"] == 2
        assert logs["kl_update"] == 0
        assert math.isfinite(logs["kl_full"])


def test_a_cut_leaves_scoring_whole(tmp_path: Path) -> None:
    policy = make_policy()
    trainer = PPOTrainer(policy, score=score_length, prompts=("w1",), config=PPOConfig(**SETTINGS), output_dir=tmp_path)
    BREAKERS["sampling_top_k"](trainer)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        scored, sampled = policy.model(ids, use_cache=False).logits, policy.model(ids, use_cache=True).logits
    assert scored.isfinite().all()
    assert (sampled.isfinite().sum(-1) == 20).all()
