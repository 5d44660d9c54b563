import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from klaudit.errors import InvalidConfig, KLBudgetExceeded, TrainingFailed
from klaudit.models.language_model import LanguageModel
from klaudit.models.sampling import Rollout
from klaudit.ppo.config import PPOConfig
from klaudit.ppo.experience import Experience, reward_rollout
from klaudit.ppo.trainer import PPOTrainer
from klaudit.records import TextSample
from tests.models.tiny import make_tiny_model

PROMPTS = ("w1", "w2 w3", "w4 w5 w6")

STEP_KEYS = {
    "kl_full", "kl_full_se", "kl_k1", "kl_k1_se", "kl_k3", "kl_k3_se", "beta", "score", "score_std", "kl_penalty", "rlhf_reward",
    "entropy", "kl_update", "kl_update_se", "clip_fraction", "ratio", "ratio_max", "policy_loss", "value_loss", "explained_variance",
    "reference_ratio", "reference_ratio_se", "surprisal_gap", "surprisal_gap_se",
    "response_length", "eos_fraction", "distinct_2", "learning_rate", "grad_norm", "skipped_minibatches",
    "seconds_sample", "seconds_score", "seconds_reward", "seconds_update", "seconds_step",
}  # fmt: skip


def share_of_w7(_prompts: list[str], completions: list[str]) -> list[float]:
    return [text.split().count("w7") / max(1, len(text.split())) for text in completions]


def average_word(_prompts: list[str], completions: list[str]) -> list[float]:
    """w1 is worth 0.01 and w99 0.99."""
    words = [[int(word[1:]) / 100 for word in text.split()] for text in completions]
    return [sum(numbers) / max(1, len(numbers)) for numbers in words]


def count_words(_prompts: list[str], completions: list[str]) -> list[float]:
    return [float(len(text.split())) for text in completions]


class Recorder(TrainerCallback):
    """Writes down every event, its logs and its samples; does what it is told after a step."""

    def __init__(self, act: Callable[[Any, Any, Any], None] | None = None) -> None:
        self.events: list[str] = []
        self.logs: list[dict[str, float]] = []
        self.samples: list[tuple[TextSample, ...]] = []
        self.kwargs: dict[str, Any] = {}
        self._act = act

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events.append("train_begin")
        self.kwargs = kwargs

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events.append(f"step_begin {state.global_step}")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        self.events.append(f"log {state.global_step}")
        self.logs.append(dict(logs or {}))
        self.samples.append(kwargs["samples"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events.append(f"step_end {state.global_step}")
        if self._act is not None:
            self._act(args, state, control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events.append(f"save {state.global_step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events.append("train_end")


def make_trainer(
    policy: LanguageModel,
    output_dir: Path,
    *callbacks: TrainerCallback,
    score: Callable[[list[str], list[str]], Sequence[float]] = average_word,
    heldout_score: Callable[[list[str], list[str]], Sequence[float]] | None = None,
    **settings: Any,
) -> PPOTrainer:
    config = PPOConfig(**{"max_steps": 3, "batch_size": 4, "response_length": 5, "learning_rate": 1e-3, "save_steps": 0} | settings)
    return PPOTrainer(
        policy, score=score, heldout_score=heldout_score, prompts=PROMPTS, config=config, callbacks=callbacks, output_dir=output_dir
    )


def read_weights(policy: LanguageModel) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in policy.model.parameters()]


def drop_seconds(logs: dict[str, float]) -> dict[str, float]:
    return {name: number for name, number in logs.items() if not name.startswith("seconds_")}


def test_callbacks_are_called_in_the_order_of_the_hugging_face_trainer(tiny: LanguageModel, tmp_path: Path) -> None:
    recorder = Recorder()
    make_trainer(tiny, tmp_path, recorder, max_steps=3, save_steps=2).train()
    assert recorder.events == [
        "train_begin",
        *("step_begin 0", "log 1", "step_end 1"),
        *("step_begin 1", "log 2", "step_end 2", "save 2"),
        *("step_begin 2", "log 3", "step_end 3", "save 3"),
        "train_end",
    ]
    assert recorder.kwargs["model"] is tiny.model
    assert recorder.kwargs["processing_class"] is tiny.tokenizer


def test_every_step_logs_every_number_as_a_float(tiny: LanguageModel, tmp_path: Path) -> None:
    recorder = Recorder()
    state = make_trainer(tiny, tmp_path, recorder, heldout_score=count_words).train()
    for logs in recorder.logs:
        assert set(logs) == STEP_KEYS | {"heldout_score"}
        assert all(type(number) is float for number in logs.values())
    assert [entry["step"] for entry in state.log_history] == [1, 2, 3]


def test_the_first_step_stands_at_the_reference(tiny: LanguageModel, tmp_path: Path) -> None:
    state = make_trainer(tiny, tmp_path, max_steps=2).train()
    first, second = state.log_history
    assert first["kl_full"] == first["kl_k1"] == first["kl_k3"] == first["kl_penalty"] == 0
    assert first["explained_variance"] == pytest.approx(0, abs=1e-6)
    assert second["kl_full"] > 0


def test_one_pass_over_one_minibatch_meets_the_old_policy_exactly(tiny: LanguageModel, tmp_path: Path) -> None:
    (logs,) = make_trainer(tiny, tmp_path, max_steps=1, epochs=1, minibatches=1).train().log_history
    assert logs["ratio"] == logs["ratio_max"] == 1
    assert logs["clip_fraction"] == 0
    assert logs["kl_update"] > 0


def test_the_logged_reward_is_the_score_minus_beta_times_k1(tiny: LanguageModel, tmp_path: Path) -> None:
    for logs in make_trainer(tiny, tmp_path, beta=0.3).train().log_history:
        assert logs["kl_penalty"] == pytest.approx(0.3 * logs["kl_k1"])
        assert logs["rlhf_reward"] == pytest.approx(logs["score"] - logs["kl_penalty"])


def test_what_the_rewards_paid_is_logged_and_not_what_the_kl_says(tiny: LanguageModel, tmp_path: Path) -> None:
    def pay_double(rollout: Rollout, *, beta: float, **kwargs: Any) -> Experience:
        return replace(reward_rollout(rollout, beta=2 * beta, **kwargs), beta=beta)

    trainer = make_trainer(tiny, tmp_path, beta=0.3)
    trainer.reward_rollout = pay_double
    for logs in trainer.train().log_history:
        assert logs["kl_penalty"] == pytest.approx(2 * 0.3 * logs["kl_k1"])
        assert logs["rlhf_reward"] == pytest.approx(logs["score"] - logs["kl_penalty"])


def test_texts_of_the_policy_that_scores_them_are_as_likely_as_it_says(tiny: LanguageModel, tmp_path: Path) -> None:
    first, *others = make_trainer(tiny, tmp_path, batch_size=64, response_length=8).train().log_history
    assert (first["reference_ratio"], first["reference_ratio_se"]) == (1.0, 0.0)
    for logs in others:
        assert abs(logs["reference_ratio"] - 1) < 4 * logs["reference_ratio_se"]
    for logs in (first, *others):
        assert abs(logs["surprisal_gap"]) < 4 * logs["surprisal_gap_se"] < 1


def test_texts_of_a_colder_policy_are_likelier_than_the_scoring_one_says(tiny: LanguageModel, tmp_path: Path) -> None:
    def cool(_model: Any, _args: Any, kwargs: Any, output: Any) -> Any:
        if kwargs["use_cache"]:
            output.logits = output.logits / 0.5
        return output

    tiny.model.register_forward_hook(cool, with_kwargs=True)
    (logs,) = make_trainer(tiny, tmp_path, batch_size=64, response_length=8, max_steps=1).train().log_history
    assert logs["surprisal_gap"] < -4 * logs["surprisal_gap_se"] < 0


def test_reward_rises_on_a_task_that_one_token_solves(tmp_path: Path) -> None:
    policy = make_tiny_model(scale=0.05)
    history = make_trainer(
        policy, tmp_path, score=share_of_w7, max_steps=25, batch_size=32, learning_rate=1e-2, beta=0.0, max_grad_norm=10.0, response_length=4
    ).train().log_history  # fmt: skip
    scores = [logs["score"] for logs in history]
    assert sum(scores[:3]) / 3 < 0.05
    assert sum(scores[-3:]) / 3 > 0.5


def test_a_price_on_kl_keeps_the_policy_nearer_to_the_reference(tmp_path: Path) -> None:
    def reach(beta: float) -> float:
        history = make_trainer(
            make_tiny_model(scale=0.05), tmp_path, score=share_of_w7, max_steps=15, batch_size=32, learning_rate=1e-2, beta=beta, response_length=4
        ).train().log_history  # fmt: skip
        return float(history[-1]["kl_full"])

    assert reach(1.0) < reach(0.0) / 2


def test_the_same_seed_trains_the_same_policy_and_another_does_not(tmp_path: Path) -> None:
    def train(seed: int) -> tuple[list[dict[str, float]], list[torch.Tensor]]:
        policy = make_tiny_model()
        history = make_trainer(policy, tmp_path, seed=seed).train().log_history
        return [drop_seconds(logs) for logs in history], read_weights(policy)

    (first, weights), (again, weights_again), (other, _) = train(1), train(1), train(2)
    assert first == again
    assert all(torch.equal(a, b) for a, b in zip(weights, weights_again, strict=True))
    assert first != other


def test_the_heldout_score_is_logged_and_trains_nothing(tmp_path: Path) -> None:
    def train(heldout: Callable[[list[str], list[str]], Sequence[float]] | None) -> tuple[list[torch.Tensor], dict[str, float]]:
        policy = make_tiny_model()
        logs = make_trainer(policy, tmp_path, heldout_score=heldout).train().log_history[-1]
        return read_weights(policy), logs

    without, with_heldout = train(None), train(count_words)
    assert all(torch.equal(a, b) for a, b in zip(without[0], with_heldout[0], strict=True))
    assert "heldout_score" not in without[1]
    # Every sampled token but end-of-sequence is a word.
    last = with_heldout[1]
    assert last["heldout_score"] == pytest.approx(last["response_length"] - last["eos_fraction"])


def test_a_callback_can_stop_the_run_and_its_last_policy_is_saved(tiny: LanguageModel, tmp_path: Path) -> None:
    def stop(_args: Any, state: Any, control: Any) -> None:
        control.should_training_stop = state.global_step == 2

    recorder = Recorder(stop)
    state = make_trainer(tiny, tmp_path, recorder, max_steps=9).train()
    assert state.global_step == 2
    assert recorder.events[-2:] == ["save 2", "train_end"]
    assert (tmp_path / "checkpoint-2" / "model.safetensors").is_file()


def test_a_callback_can_ask_for_a_checkpoint(tiny: LanguageModel, tmp_path: Path) -> None:
    def save(_args: Any, state: Any, control: Any) -> None:
        control.should_save = state.global_step == 1

    make_trainer(tiny, tmp_path, Recorder(save)).train()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-3"]


def test_an_exception_of_a_callback_ends_the_run_with_its_log_kept(tiny: LanguageModel, tmp_path: Path) -> None:
    def break_budget(_args: Any, _state: Any, _control: Any) -> None:
        raise KLBudgetExceeded("enough")

    trainer = make_trainer(tiny, tmp_path, Recorder(break_budget))
    with pytest.raises(KLBudgetExceeded, match="enough"):
        trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history] == [1]


def test_a_callback_can_change_beta_from_the_next_step_on(tiny: LanguageModel, tmp_path: Path) -> None:
    def raise_beta(args: Any, state: Any, _control: Any) -> None:
        if state.global_step == 1:
            args.beta *= 3

    trainer = make_trainer(tiny, tmp_path, beta=0.1)
    trainer.add_callback(Recorder(raise_beta))
    assert [logs["beta"] for logs in trainer.train().log_history] == pytest.approx([0.1, 0.3, 0.3])
    assert trainer.args.to_dict()["beta"] == pytest.approx(0.3)


def test_an_adaptive_beta_follows_the_measured_kl(tiny: LanguageModel, tmp_path: Path) -> None:
    history = make_trainer(tiny, tmp_path, beta=0.1, target_kl=1e-6, horizon=40, max_steps=3).train().log_history
    # KL is 0 at the first step and far above the target after it: a factor of 1 -/+ 0.2 * 4 / 40.
    assert [logs["beta"] for logs in history] == pytest.approx([0.1, 0.1 * 0.98, 0.1 * 0.98 * 1.02])


def test_a_planted_spike_multiplies_the_learning_rate_that_the_optimizer_uses(tiny: LanguageModel, tmp_path: Path) -> None:
    used: list[float] = []

    def look(_args: Any, _state: Any, _control: Any) -> None:
        used.append(trainer.training.optimizer.param_groups[0]["lr"])

    trainer = make_trainer(tiny, tmp_path, Recorder(look), learning_rate=1e-3, learning_rate_spikes=((2, 1, 20.0),))
    history = trainer.train().log_history
    assert used == [logs["learning_rate"] for logs in history] == pytest.approx([1e-3, 2e-2, 1e-3])
    assert history[1]["kl_update"] > 10 * history[0]["kl_update"]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_score_that_is_not_finite_shows_in_the_log_and_leaves_the_weights_alone(
    tiny: LanguageModel, tmp_path: Path, broken: float
) -> None:
    before = read_weights(tiny)
    (logs,) = make_trainer(tiny, tmp_path, score=lambda prompts, _: [broken] * len(prompts), max_steps=1).train().log_history
    assert logs["score"] == broken or math.isnan(logs["score"])
    assert math.isnan(logs["policy_loss"])
    assert logs["skipped_minibatches"] == 2
    assert all(torch.equal(a, b) for a, b in zip(before, read_weights(tiny), strict=True))


def test_weights_that_are_not_finite_do_not_end_the_run(tiny: LanguageModel, tmp_path: Path) -> None:
    def poison(_args: Any, state: Any, _control: Any) -> None:
        if state.global_step == 1:
            next(tiny.model.parameters()).data.fill_(math.nan)

    history = make_trainer(tiny, tmp_path, Recorder(poison), max_steps=2).train().log_history
    assert math.isnan(history[1]["kl_full"])
    assert "kl_full_se" not in history[1]


def test_a_missing_end_of_sequence_costs_its_penalty(tmp_path: Path) -> None:
    def score(penalty: float | None) -> dict[str, float]:
        trainer = make_trainer(make_tiny_model(), tmp_path, max_steps=1, response_length=2, batch_size=16, missing_eos_penalty=penalty)
        logs: dict[str, float] = trainer.train().log_history[0]
        return logs

    free, charged = score(None), score(2.0)
    assert charged["score"] == pytest.approx(free["score"] - 2.0 * (1 - free["eos_fraction"]))


def test_samples_come_on_their_steps_with_every_token_scored(tiny: LanguageModel, tmp_path: Path) -> None:
    recorder = Recorder()
    make_trainer(tiny, tmp_path, recorder, max_steps=4, sample_every=2, n_samples=2).train()
    assert [len(samples) for samples in recorder.samples] == [2, 0, 2, 0]
    sample = recorder.samples[2][1]
    assert (sample.step, sample.index) == (3, 1)
    assert sample.prompt in PROMPTS
    words = [token.text for token in sample.tokens if token.text != "<eos>"]
    assert " ".join(words) == sample.completion
    assert all(token.policy_logprob < 0 and token.kl is not None and token.kl >= 0 for token in sample.tokens)


def test_every_prompt_comes_up_before_any_comes_twice(tiny: LanguageModel, tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def remember(prompts: list[str], completions: list[str]) -> list[float]:
        seen.append(prompts)
        return [0.0] * len(completions)

    make_trainer(tiny, tmp_path, score=remember, batch_size=6, max_steps=2).train()
    assert [sorted(prompts) for prompts in seen] == [sorted(PROMPTS * 2)] * 2


def test_a_score_function_that_returns_too_few_numbers_is_named(tiny: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="got 1 for 4 completions"):
        make_trainer(tiny, tmp_path, score=lambda *_: [0.0]).train()


@pytest.mark.parametrize("prompts", [(), "a single string"])
def test_prompts_that_are_no_sequence_are_refused(tiny: LanguageModel, tmp_path: Path, prompts: Any) -> None:
    with pytest.raises(InvalidConfig, match="sequence of prompts"):
        PPOTrainer(tiny, score=share_of_w7, prompts=prompts, config=PPOConfig(), output_dir=tmp_path)


@pytest.mark.model
def test_the_real_model_takes_a_step(tmp_path: Path) -> None:
    from klaudit.models import DEFAULT_MODEL
    from klaudit.models.language_model import load_language_model

    policy = load_language_model(DEFAULT_MODEL)
    trainer = PPOTrainer(
        policy,
        score=count_words,
        prompts=["This film was", "I watched the movie and"],
        config=PPOConfig(max_steps=1, batch_size=2, response_length=4, save_steps=0, save_optimizer=False),
        output_dir=tmp_path,
    )
    (logs,) = trainer.train().log_history
    assert logs["kl_full"] == 0
    assert logs["kl_update"] > 0
    assert 1 < logs["entropy"] < math.log(49_152)
