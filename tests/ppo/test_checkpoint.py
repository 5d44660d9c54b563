import json
import math
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback, TrainerState

from klaudit.errors import ModelNotFound
from klaudit.models.language_model import LanguageModel, load_language_model
from klaudit.ppo.config import PPOConfig
from klaudit.ppo.trainer import PPOTrainer
from tests.models.tiny import make_tiny_model

SETTINGS: dict[str, Any] = {
    "max_steps": 6, "batch_size": 4, "response_length": 5, "learning_rate": 1e-3, "save_steps": 2, "minibatches": 2, "warmup_steps": 3,
    "target_kl": 0.1, "horizon": 40,
}  # fmt: skip


def make_trainer(policy: LanguageModel, output_dir: Path, **settings: Any) -> PPOTrainer:
    def score(_prompts: list[str], completions: list[str]) -> list[float]:
        return [float(len(set(text.split()))) for text in completions]

    config = PPOConfig(**SETTINGS | settings)
    return PPOTrainer(policy, score=score, prompts=("w1", "w2 w3", "w4 w5 w6"), config=config, output_dir=output_dir)


def drop_seconds(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: number for name, number in logs.items() if not name.startswith("seconds_")} for logs in history]


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    policy = make_tiny_model()
    whole = make_trainer(policy, tmp_path / "whole").train()
    resumed_policy = make_tiny_model()
    resumed = make_trainer(resumed_policy, tmp_path / "resumed").train(resume_from=tmp_path / "whole" / "checkpoint-2")
    assert drop_seconds(resumed.log_history) == drop_seconds(whole.log_history)
    assert len(resumed.log_history) == 6
    for name, weights in policy.model.state_dict().items():
        assert torch.equal(resumed_policy.model.state_dict()[name], weights)


def test_a_resumed_run_still_measures_against_the_first_policy(tmp_path: Path) -> None:
    make_trainer(make_tiny_model(), tmp_path).train()
    trainer = make_trainer(make_tiny_model(), tmp_path, max_steps=7)
    trainer.train(resume_from=tmp_path / "checkpoint-6")
    original = make_tiny_model().model.state_dict()
    for name, weights in trainer.reference.model.state_dict().items():
        assert torch.equal(weights, original[name])


def test_a_checkpoint_is_a_model_with_its_tokenizer_and_its_log(tiny: LanguageModel, tmp_path: Path) -> None:
    make_trainer(tiny, tmp_path).train()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    loaded = load_language_model(tmp_path / "checkpoint-6")
    for name, weights in tiny.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weights)
    assert loaded.tokenizer.encode("w5") == [5]
    saved = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())
    assert saved["global_step"] == 4
    assert [entry["step"] for entry in saved["log_history"]] == [1, 2, 3, 4]
    assert isinstance(saved["log_history"][0]["kl_full"], float)


def test_a_checkpoint_that_fails_half_way_leaves_no_directory_of_that_name(
    tiny: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> NoReturn:
        raise OSError("disk full")

    monkeypatch.setattr(TrainerState, "save_to_json", fail)
    with pytest.raises(OSError, match="disk full"):
        make_trainer(tiny, tmp_path).train()
    assert list(tmp_path.glob("checkpoint-*")) == []


def test_a_checkpoint_of_the_same_step_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    for seed in (1, 2):
        policy = make_tiny_model()
        make_trainer(policy, tmp_path, max_steps=2, seed=seed).train()
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-2")
    assert torch.equal(saved.state_dict()["model.norm.weight"], policy.model.state_dict()["model.norm.weight"])


def test_without_the_optimizer_a_checkpoint_is_small_and_cannot_be_resumed(tiny: LanguageModel, tmp_path: Path) -> None:
    make_trainer(tiny, tmp_path, save_optimizer=False).train()
    assert not (tmp_path / "checkpoint-2" / "training_state.pt").exists()
    with pytest.raises(ModelNotFound, match="saved with save_optimizer=False"):
        make_trainer(tiny, tmp_path).train(resume_from=tmp_path / "checkpoint-2")


def test_nothing_to_resume_from_is_said_before_anything_is_called(tiny: LanguageModel, tmp_path: Path) -> None:
    class Refuse(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> NoReturn:
            raise AssertionError("training began")

    trainer = make_trainer(tiny, tmp_path)
    trainer.add_callback(Refuse())
    with pytest.raises(ModelNotFound, match=r"trainer_state\.json is not there"):
        trainer.train(resume_from=tmp_path / "checkpoint-9")


def test_a_log_that_is_not_finite_survives_the_checkpoint(tiny: LanguageModel, tmp_path: Path) -> None:
    config = PPOConfig(**SETTINGS | {"max_steps": 1})
    PPOTrainer(tiny, score=lambda prompts, _: [math.nan] * len(prompts), prompts=["w1"], config=config, output_dir=tmp_path).train()
    state = TrainerState.load_from_json(str(tmp_path / "checkpoint-1" / "trainer_state.json"))
    assert math.isnan(state.log_history[0]["score"])
