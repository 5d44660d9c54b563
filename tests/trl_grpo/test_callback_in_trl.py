"""`klaudit.attach` on real trainings of TRL 1.16.0: what stands in the store is what the trainer logged, by the name of what it is."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import TrainerCallback

import klaudit
from klaudit.digests import digest_weights
from klaudit.records import KLBudget, KLSeries, ReferenceModel, Run, StepRecord
from klaudit.store import Store
from tests.trl_grpo.trainings import load_model, make_dpo, make_grpo, make_kto, make_online_dpo, make_prompts, make_rloo

ANY_DRIFT = 1e-6
"""A limit in nats per token that a tiny model is over after its first update."""


def record(trainer: Any, store: Store, store_url: str, **arguments: Any) -> tuple[Run, list[StepRecord]]:
    """Train with klaudit attached by one line."""
    callback = klaudit.attach(trainer, run="tiny-run", store=store_url, **arguments)
    trainer.train()
    assert callback.failures == 0
    run = store.runs.get("tiny-run")
    assert run.status == "finished"
    return run, store.steps.list(run.id)


def read_history(trainer: Any, key: str) -> list[Any]:
    """What the trainer itself keeps of a key, evaluations and the summary left out."""
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def read_said(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("klaudit:")]
    return line


# --- every trainer


@pytest.mark.parametrize(
    ("make", "algorithm", "key", "series"),
    [
        (make_grpo, "grpo", "kl", KLSeries("reference", "k3", "nats_per_token", "token_mean", "reverse", 0.9, "kl")),
        (make_rloo, "rloo", "kl", KLSeries("reference", "k1", "nats_per_token", "token_mean", "reverse", 0.9, "kl")),
        (
            make_online_dpo,
            "online-dpo",
            "objective/kl",
            KLSeries("reference", "k1", "nats_per_sequence", "unknown", "reverse", None, "objective/kl"),
        ),
    ],
)
def test_every_step_is_one_row_and_its_kl_is_what_the_trainer_logged(
    model: Path, tmp_path: Path, store_url: str, store: Store, make: Callable[..., Any], algorithm: str, key: str, series: KLSeries
) -> None:
    trainer = make(model, tmp_path / "out")
    run, steps = record(trainer, store, store_url)
    assert (run.framework, run.algorithm, run.governing_key) == ("trl", algorithm, "kl")
    assert run.series["kl"] == series
    assert [one.step for one in steps] == [1, 2, 3]
    assert [one.kl.value for one in steps] == read_history(trainer, key)
    assert [one.beta for one in steps] == [trainer.beta] * 3
    assert [one.score for one in steps] == read_history(trainer, "objective/scores" if algorithm == "online-dpo" else "reward")
    assert steps[0].kl.value == pytest.approx(0.0, abs=1e-6)
    assert steps[2].kl.value != 0.0
    assert (run.batch_size, run.planned_steps, run.beta) == (8, 3, trainer.args.beta)


@pytest.mark.parametrize("make", [make_grpo, make_rloo, make_dpo, make_kto])
def test_the_reference_is_known_by_its_weights(model: Path, tmp_path: Path, store_url: str, store: Store, make: Callable[..., Any]) -> None:
    run, _ = record(make(model, tmp_path / "out", max_steps=1), store, store_url)
    assert run.reference == ReferenceModel(str(model), digest_weights(model))
    assert run.policy == str(model)


def test_completions_and_entropy_have_klaudits_names(model: Path, tmp_path: Path, store_url: str, store: Store) -> None:
    trainer = make_grpo(model, tmp_path / "out")
    _, steps = record(trainer, store, store_url)
    assert [one.metrics["response_length"] for one in steps] == read_history(trainer, "completions/mean_length")
    assert [one.metrics["entropy"] for one in steps] == read_history(trainer, "entropy")
    assert [one.kl.mean_length for one in steps] == read_history(trainer, "completions/mean_length")


@pytest.mark.parametrize("make", [make_dpo, make_kto])
def test_implicit_drift_is_rewards_over_beta_and_no_kl_to_the_reference(
    model: Path, tmp_path: Path, store_url: str, store: Store, make: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(model, tmp_path / "out")
    run, steps = record(trainer, store, store_url)
    assert (run.framework, run.algorithm, run.governing_key) == ("trl", "dpo" if make is make_dpo else "kto", None)
    drift = [one.readings["implicit_drift"] for one in steps]
    assert [one.value for one in drift] == pytest.approx([number / 0.1 for number in read_history(trainer, "rewards/chosen")])
    assert {one.series.kind for one in drift} == {"unknown"}
    assert [one.kl.series.kind for one in steps] == ["unknown" if make is make_dpo else "baseline"] * 3
    assert [one.kl.value for one in steps] == (read_history(trainer, "kl") or [None] * 3)
    assert "no KL to the reference among the keys that this trainer logs" in read_said(capsys)


def test_the_callback_alone_knows_grpo_by_its_arguments(model: Path, tmp_path: Path, store_url: str, store: Store) -> None:
    trainer = make_grpo(model, tmp_path / "out", max_steps=1)
    trainer.add_callback(klaudit.KLAuditCallback(run="tiny-run", store=store_url))
    trainer.train()
    run = store.runs.get("tiny-run")
    assert (run.algorithm, run.series["kl"].estimator, run.series["kl"].unit) == ("grpo", "k3", "nats_per_token")


def test_a_trainer_made_from_grpo_is_grpo(model: Path, tmp_path: Path, store_url: str, store: Store) -> None:
    trainer = make_grpo(model, tmp_path / "out", max_steps=1)
    trainer.__class__ = type("MyTrainer", (type(trainer),), {})
    run, _ = record(trainer, store, store_url)
    assert run.algorithm == "grpo"


# --- nothing of the training is changed


def drop_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    timed = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second")
    return [{key: value for key, value in entry.items() if key not in timed} for entry in history]


def test_grpo_is_the_same_to_the_bit_with_klaudit_a_probe_and_a_heldout_score(
    model: Path, tmp_path: Path, store_url: str, store: Store
) -> None:
    alone = make_grpo(model, tmp_path / "alone", max_steps=4)
    alone.train()
    watched = make_grpo(model, tmp_path / "watched", max_steps=4)
    prompts = ["w1 w2", "w3", "w4 w5"]

    def score(policy: Any, _step: int) -> float:
        return float(policy.generate(torch.tensor([[1, 2]]), max_new_tokens=4, do_sample=True).float().mean())

    _, steps = record(
        watched,
        store,
        store_url,
        probe=klaudit.LiveProbe(prompts, every_n_steps=2, max_new_tokens=4, temperature=0.9),
        heldout=klaudit.HeldoutScore(score, every_n_steps=2),
        budget=KLBudget(ANY_DRIFT, "nats_per_token"),
    )
    assert repr(drop_times(watched.state.log_history)) == repr(drop_times(alone.state.log_history))
    assert all((a == b).all() for a, b in zip(alone.model.parameters(), watched.model.parameters(), strict=True))
    assert ["heldout_score" in one.metrics for one in steps] == [True, True, False, True]
    probed = [one.readings["kl_probe"].value for one in steps]
    assert probed[0] == pytest.approx(0.0, abs=1e-6)
    assert probed[1] is not None
    assert probed[1] > 0.0
    assert probed[2] is None


# --- what the metric map notes


def test_a_window_of_steps_is_said_and_kept_with_the_run(
    model: Path, tmp_path: Path, store_url: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    run, steps = record(make_grpo(model, tmp_path / "out", max_steps=4, logging_steps=2), store, store_url)
    assert [one.step for one in steps] == [2, 4]
    assert run.series["kl"].aggregation == "window_mean"
    said = "each line is a mean over 2 steps (logging_steps), so single steps cannot be seen"
    assert said in read_said(capsys)
    assert run.identity is not None
    assert said in run.identity["notes"]


@pytest.mark.parametrize("make", [make_grpo, make_rloo])
def test_without_a_penalty_there_is_no_kl_and_the_run_says_so(
    model: Path, tmp_path: Path, store_url: str, store: Store, make: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run, steps = record(make(model, tmp_path / "out", beta=0.0), store, store_url)
    assert [one.kl.value for one in steps] == [None] * 3
    assert [one.beta for one in steps] == [0.0] * 3
    assert (run.beta, run.reference) == (0.0, None)
    line = read_said(capsys)
    assert "no KL to the reference among the keys that this trainer logs; beta 0;" in line
    assert "beta is 0" in line
    assert run.identity is not None
    assert any("beta is 0" in note for note in run.identity["notes"])


def test_a_probe_gives_grpo_without_a_penalty_a_kl(model: Path, tmp_path: Path, store_url: str, store: Store) -> None:
    probe = klaudit.LiveProbe(["w1 w2", "w3", "w4 w5"], every_n_steps=1, max_new_tokens=4, reference=load_model(model))
    run, steps = record(make_grpo(model, tmp_path / "out", beta=0.0), store, store_url, probe=probe)
    assert run.governing_key == "kl_probe"
    values = [one.readings["kl_probe"].value for one in steps]
    assert values[0] == pytest.approx(0.0, abs=1e-6)
    assert values[2] is not None
    assert values[2] > 0.0


# --- beta


class RaiseBeta(TrainerCallback):
    """Retunes the coefficient of a trainer that copied it from its arguments."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.beta = 0.1 * (state.global_step + 1)


@pytest.mark.parametrize("make", [make_grpo, make_dpo])
def test_the_beta_of_a_step_is_the_one_in_force(
    model: Path, tmp_path: Path, store_url: str, store: Store, make: Callable[..., Any]
) -> None:
    trainer = make(model, tmp_path / "out")
    trainer.add_callback(RaiseBeta(trainer))
    _, steps = record(trainer, store, store_url)
    assert [one.beta for one in steps] == pytest.approx([0.1, 0.2, 0.3])


def test_the_beta_that_a_penalty_implies_is_recorded_beside_the_one_in_force(
    model: Path, tmp_path: Path, store_url: str, store: Store
) -> None:
    _, steps = record(make_online_dpo(model, tmp_path / "out"), store, store_url)
    assert "implied_beta" not in steps[0].metrics
    assert [one.metrics["implied_beta"] for one in steps[1:]] == pytest.approx([0.1, 0.1], rel=1e-4)


# --- evaluations and other logs of a step


def test_evaluations_are_no_steps_and_stand_with_the_step_that_follows(model: Path, tmp_path: Path, store_url: str, store: Store) -> None:
    evaluated = {
        "eval_dataset": make_prompts().select(range(8)),
        "eval_strategy": "steps",
        "eval_steps": 1,
        "per_device_eval_batch_size": 8,
    }
    trainer = make_grpo(model, tmp_path / "out", **evaluated)
    _, steps = record(trainer, store, store_url, heldout="eval_reward")
    assert [one.step for one in steps] == [1, 2, 3]
    assert [one.kl.value for one in steps] == read_history(trainer, "kl")
    scores = read_history(trainer, "eval_reward")
    assert [one.metrics.get("heldout_score") for one in steps] == [None, *scores[:2]]


class LogInBetween(TrainerCallback):
    """Logs numbers of its own through the trainer, at a step that was logged."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step > 0:
            self._trainer.log({"my_metric": 10.0 * state.global_step})


def test_a_second_log_of_a_step_is_no_second_step(model: Path, tmp_path: Path, store_url: str, store: Store) -> None:
    trainer = make_dpo(model, tmp_path / "out")
    trainer.add_callback(LogInBetween(trainer))
    _, steps = record(trainer, store, store_url)
    assert [one.step for one in steps] == [1, 2, 3]
    assert [one.metrics.get("my_metric") for one in steps] == [None, 10.0, 20.0]


# --- adapters


ADAPTER: Any = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


@pytest.mark.parametrize("make", [make_grpo, make_dpo])
def test_the_reference_of_an_adapter_is_the_base_model_with_the_adapter_off(
    model: Path, tmp_path: Path, store_url: str, store: Store, make: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(model, tmp_path / "out", peft_config=ADAPTER)
    run, steps = record(trainer, store, store_url, probe=klaudit.LiveProbe(["w1 w2", "w3"], every_n_steps=1, max_new_tokens=4))
    assert trainer.ref_model is None
    assert run.reference == ReferenceModel(str(model), digest_weights(model))
    note = "reference: the base model, adapter off"
    assert note in read_said(capsys)
    assert run.identity is not None
    assert note in run.identity["notes"]
    probed = [one.readings["kl_probe"].value for one in steps]
    assert probed[0] == pytest.approx(0.0, abs=1e-6)
    assert probed[2] is not None
    assert probed[2] > 0.0
    if make is make_grpo:
        assert [one.kl.value for one in steps] == read_history(trainer, "kl")


def test_the_reference_of_an_adapter_that_was_there_before_is_what_training_began_with(
    model: Path, tmp_path: Path, store_url: str, store: Store
) -> None:
    trainer = make_grpo(model, tmp_path / "out", policy=get_peft_model(load_model(model), ADAPTER))
    run, steps = record(trainer, store, store_url)
    # No file holds base and adapter together, so that there is no digest of it.
    assert run.reference == ReferenceModel(f"{model} with adapter 'ref'")
    assert run.identity is not None
    assert "reference: the base model with the adapter that training began with" in run.identity["notes"]
    assert [one.kl.value for one in steps] == read_history(trainer, "kl")


def test_steps_behind_the_last_full_window_are_recorded_from_the_closing_line(
    model: Path, tmp_path: Path, store_url: str, store: Store
) -> None:
    trainer = make_grpo(model, tmp_path / "out", logging_steps=2)
    run, steps = record(trainer, store, store_url)
    assert [one.step for one in steps] == [2, 3]
    assert steps[-1].kl.value == trainer.state.log_history[-1]["kl"]
    assert run.series["kl"].aggregation == "window_mean"


# --- accumulation, checkpoints, the brake


def test_steps_that_accumulate_gradients_are_one_step_each(model: Path, tmp_path: Path, store_url: str, store: Store) -> None:
    trainer = make_grpo(model, tmp_path / "out", per_device_train_batch_size=4, gradient_accumulation_steps=2)
    run, steps = record(trainer, store, store_url)
    assert run.batch_size == 8
    assert [one.step for one in steps] == [1, 2, 3]
    assert [one.kl.value for one in steps] == read_history(trainer, "kl")


def test_checkpoints_are_noted_and_a_resumed_training_goes_on_with_its_run(
    model: Path, tmp_path: Path, store_url: str, store: Store
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2}
    record(make_grpo(model, tmp_path / "out", max_steps=2, **saving), store, store_url)
    second = make_grpo(model, tmp_path / "out", max_steps=4, **saving)
    callback = klaudit.attach(second, run="tiny-run", store=store_url, resume="must")
    second.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert callback.failures == 0
    (run,) = (one.run for one in store.runs.list())
    assert [(one.segment, one.step) for one in store.steps.list(run.id)] == [(0, 1), (0, 2), (1, 3), (1, 4)]
    saved = store.checkpoints.list(run.id)
    assert [(one.segment, one.step, Path(one.path).name) for one in saved] == [(0, 2, "checkpoint-2"), (1, 4, "checkpoint-4")]


def test_a_budget_that_says_stop_ends_grpo_by_its_own_flag_and_saves(model: Path, tmp_path: Path, store_url: str, store: Store) -> None:
    trainer = make_grpo(model, tmp_path / "out", max_steps=10)
    run, steps = record(trainer, store, store_url, budget=KLBudget(ANY_DRIFT, "nats_per_token", on="value", action="stop"))
    assert trainer.state.global_step == 2
    assert [one.step for one in steps] == [1, 2]
    assert [one.step for one in store.checkpoints.list(run.id)] == [2]
    assert (tmp_path / "out" / "checkpoint-2" / "model.safetensors").is_file()


def test_a_heldout_score_that_fails_is_counted_and_training_goes_on(
    model: Path, tmp_path: Path, store_url: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_policy: Any, _step: int) -> float:
        raise ZeroDivisionError

    trainer = make_dpo(model, tmp_path / "out")
    callback = klaudit.attach(trainer, run="tiny-run", store=store_url, heldout=klaudit.HeldoutScore(fail, every_n_steps=1))
    trainer.train()
    # Before each of the three updates, and after the last.
    assert callback.failures == 4
    assert len([line for line in capsys.readouterr().err.splitlines() if "the held-out score failed and training goes on" in line]) == 1
    assert store.steps.count(store.runs.get("tiny-run").id) == 3
    assert all(math.isfinite(number) for number in read_history(trainer, "loss"))
