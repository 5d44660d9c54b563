"""`KLAuditCallback` inside a real training of TRL 1.12.0's PPOTrainer."""

import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import klaudit
from klaudit.store import open_store


class RaiseBeta(TrainerCallback):
    """Does what TRL lets a callback do: retune the KL coefficient while training."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        args.kl_coef = 0.2


def read_rows(path: Path) -> list[tuple[int, float, float, float]]:
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT step, kl, beta, score FROM steps ORDER BY segment, step").fetchall()


def test_every_update_is_one_row_with_kl_beta_and_score(build_trainer: Callable[..., Any], tmp_path: Path) -> None:
    callback = klaudit.KLAuditCallback(run="trl-ppo", store=f"sqlite:///{tmp_path / 'klaudit.db'}")
    trainer = build_trainer(tmp_path / "out", callbacks=[callback], total_episodes=48)
    trainer.train()
    logged = [(entry["step"], entry["objective/kl"], 0.05, entry["objective/scores"]) for entry in trainer.state.log_history]
    assert callback.failures == 0
    assert len(logged) == 3
    assert read_rows(tmp_path / "klaudit.db") == logged


def test_the_run_says_what_its_kl_is(build_trainer: Callable[..., Any], tmp_path: Path) -> None:
    store_url = f"sqlite:///{tmp_path / 'klaudit.db'}"
    build_trainer(tmp_path / "out", callbacks=[klaudit.KLAuditCallback(run="trl-ppo", store=store_url)]).train()
    run = open_store(store_url).runs.get("trl-ppo")
    assert (run.status, run.framework, run.algorithm) == ("finished", "trl", "ppo")
    assert (run.batch_size, run.beta, run.planned_steps) == (16, 0.05, 2)
    assert run.series["kl"] == klaudit.KLSeries(
        kind="reference",
        estimator="k1",
        unit="nats_per_sequence",
        aggregation="batch_mean",
        direction="reverse",
        temperature=0.7,
        source_key="objective/kl",
    )
    assert run.governing_key == "kl"


def test_the_estimator_is_the_one_that_the_trainer_was_told(build_trainer: Callable[..., Any], tmp_path: Path) -> None:
    store_url = f"sqlite:///{tmp_path / 'klaudit.db'}"
    callback = klaudit.KLAuditCallback(run="trl-ppo", store=store_url)
    build_trainer(tmp_path / "out", callbacks=[callback], total_episodes=16, kl_estimator="k3").train()
    assert open_store(store_url).runs.get("trl-ppo").series["kl"].estimator == "k3"


def test_a_beta_that_is_changed_while_training_is_recorded_with_the_penalty_that_it_made(
    build_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    store_url = f"sqlite:///{tmp_path / 'klaudit.db'}"
    callbacks = [klaudit.KLAuditCallback(run="trl-ppo", store=store_url), RaiseBeta()]
    build_trainer(tmp_path / "out", callbacks=callbacks).train()
    store = open_store(store_url)
    steps = store.steps.list(store.runs.get("trl-ppo").id)
    assert [step.beta for step in steps] == [0.05, 0.2]
    for step in steps:
        assert step.beta is not None
        assert step.kl.value is not None
        assert math.isclose(step.metrics["kl_penalty"], step.beta * step.kl.value, rel_tol=1e-5)


def test_a_checkpoint_that_trl_saves_is_noted_with_its_step_and_its_place(build_trainer: Callable[..., Any], tmp_path: Path) -> None:
    store_url = f"sqlite:///{tmp_path / 'klaudit.db'}"
    callbacks = [klaudit.KLAuditCallback(run="trl-ppo", store=store_url)]
    build_trainer(tmp_path / "out", callbacks=callbacks, save_strategy="steps", save_steps=2).train()
    store = open_store(store_url)
    checkpoints = store.checkpoints.list(store.runs.get("trl-ppo").id)
    assert [checkpoint.step for checkpoint in checkpoints] == [2]
    assert (Path(checkpoints[0].path) / "model.safetensors").is_file()


def test_a_budget_that_says_stop_ends_the_training_though_trl_never_reads_should_training_stop(
    build_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    trainer = build_trainer(tmp_path / "out")
    budget = klaudit.KLBudget(0.5, unit="nats_per_sequence", on="value", action="stop")
    klaudit.attach(trainer, run="trl-ppo", budget=budget, store=f"sqlite:///{tmp_path / 'klaudit.db'}")
    with pytest.raises(klaudit.KLBudgetExceeded, match="trl-ppo"):
        trainer.train()
    assert [step for step, *_ in read_rows(tmp_path / "klaudit.db")] == [1]


def drop_seconds(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in entry.items() if key != "eps"} for entry in history]


def test_ppo_is_the_same_to_the_bit_with_a_probe_and_a_heldout_score(build_trainer: Callable[..., Any], tmp_path: Path) -> None:
    def score(policy: Any, _step: int) -> float:
        assert policy.lm_head is not None  # the policy itself, not what TRL wraps it in with the value model
        return float(torch.rand(1))

    alone = build_trainer(tmp_path / "alone")
    alone.train()
    watched = build_trainer(tmp_path / "watched")
    store_url = f"sqlite:///{tmp_path / 'klaudit.db'}"
    callback = klaudit.attach(
        watched,
        run="trl-ppo",
        store=store_url,
        probe=klaudit.LiveProbe(["it is", "so dull"], every_n_steps=1, max_new_tokens=4, temperature=0.7),
        heldout=klaudit.HeldoutScore(score, every_n_steps=1),
    )
    watched.train()
    assert callback.failures == 0
    assert repr(drop_seconds(watched.state.log_history)) == repr(drop_seconds(alone.state.log_history))
    store = open_store(store_url)
    steps = store.steps.list(store.runs.get("trl-ppo").id)
    assert [one.readings["kl_probe"].is_finite for one in steps] == [True, True]
    assert all("heldout_score" in one.metrics for one in steps)
