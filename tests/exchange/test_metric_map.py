import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from klaudit.exchange.metric_map import (
    FRAMEWORKS,
    KLAUDIT_PPO,
    TRL_PPO,
    UNKNOWN_TRAINER,
    Framework,
    declare_series,
    detect_framework,
    find_beta,
    find_scales,
    is_step,
    read_logs,
    resolve_series,
)
from klaudit.records import KLSeries, StepRecord
from tests.exchange.framework_logs import LOGS

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)

KLAUDIT_LOGS, TRL_LOGS = LOGS["klaudit-ppo"], LOGS["trl-ppo"]


def read(logs: Mapping[str, Any], framework: Framework, *, estimator: Any = None, beta: float | None = None) -> StepRecord:
    series = declare_series(framework, temperature=0.7, estimator=estimator)
    return read_logs(logs, framework=framework, series=series, step=3, segment=1, logged_at=NOW, beta=beta, n_sequences=16)


def test_a_trainer_is_known_by_its_keys() -> None:
    assert detect_framework(KLAUDIT_LOGS) is KLAUDIT_PPO
    assert detect_framework(TRL_LOGS) is TRL_PPO
    assert detect_framework({"loss": 0.1, "kl": 0.2}) is None


def test_the_embedded_trainer_is_governed_by_the_full_vocabulary() -> None:
    step = read(KLAUDIT_LOGS, KLAUDIT_PPO)
    assert step.kl.series == KLSeries("reference", "full", "nats_per_sequence", "batch_mean", "reverse", 0.7, "kl_full")
    assert (step.kl.value, step.kl.standard_error, step.kl.n_sequences, step.kl.mean_length) == (0.5, 0.1, 16, 16.0)
    assert {key: (one.value, one.standard_error, one.series.estimator) for key, one in step.readings.items()} == {
        "kl_k1": (0.4, 0.2, "k1"),
        "kl_k3": (0.6, 0.3, "k3"),
        "kl_update": (0.02, 0.01, "full"),
    }


def test_the_embedded_trainers_update_kl_is_nats_per_token_of_the_old_policy() -> None:
    series = read(KLAUDIT_LOGS, KLAUDIT_PPO).readings["kl_update"].series
    assert (series.kind, series.unit, series.direction) == ("update", "nats_per_token", "forward")


def test_what_is_no_kl_is_kept_under_its_own_name() -> None:
    step = read(KLAUDIT_LOGS, KLAUDIT_PPO)
    assert (step.step, step.segment, step.beta, step.score, step.logged_at) == (3, 1, 0.05, 0.8, NOW)
    assert step.metrics == {
        "kl_penalty": 0.02,
        "rlhf_reward": 0.78,
        "heldout_score": 0.7,
        "response_length": 16.0,
        "learning_rate": 1e-5,
    }


def test_trls_kl_is_k1_in_nats_per_sequence() -> None:
    step = read(TRL_LOGS, TRL_PPO, beta=0.05)
    assert step.kl.series == KLSeries("reference", "k1", "nats_per_sequence", "batch_mean", "reverse", 0.7, "objective/kl")
    assert (step.kl.value, step.kl.standard_error, step.beta, step.score) == (2.0, None, 0.05, 1.0)
    assert step.readings["kl_update"].value == 0.01


def test_trls_estimator_is_a_setting() -> None:
    assert read(TRL_LOGS, TRL_PPO, estimator="k3").kl.series.estimator == "k3"


def test_trls_penalty_has_the_opposite_sign_of_klaudits() -> None:
    # ppo_trainer.py:775 logs -kl_coef * kl; here kl_penalty = beta * KL, and score - kl_penalty is the reward that was logged.
    metrics = read(TRL_LOGS, TRL_PPO).metrics
    assert metrics["kl_penalty"] == 0.1
    assert TRL_LOGS["objective/scores"] - metrics["kl_penalty"] == metrics["rlhf_reward"]


def test_trls_names_become_klaudits() -> None:
    metrics = read(TRL_LOGS, TRL_PPO).metrics
    assert {name: metrics[name] for name in ("entropy", "clip_fraction", "ratio", "learning_rate", "value_loss")} == {
        "entropy": 1.5,
        "clip_fraction": 0.02,
        "ratio": 1.01,
        "learning_rate": 3e-6,
        "value_loss": 0.2,
    }
    assert "epoch" not in metrics
    assert metrics["val/num_eos_tokens"] == 4


def test_a_kl_that_is_none_was_computed_and_was_no_number() -> None:
    step = read({**TRL_LOGS, "objective/kl": None}, TRL_PPO)
    assert step.kl.value is not None
    assert math.isnan(step.kl.value)


def test_a_kl_that_was_not_logged_is_not_measured_and_says_which_key_is_missing() -> None:
    logs = {key: value for key, value in KLAUDIT_LOGS.items() if key != "kl_k3"}
    reading = read(logs, KLAUDIT_PPO).readings["kl_k3"]
    assert reading.value is None
    assert reading.not_measured == "the trainer did not log kl_k3 at this step"


def test_a_trainer_that_nobody_knows_has_a_kl_of_unknown_kind() -> None:
    step = read({"kl": 0.3, "loss": 0.1, "lr": 1e-6}, UNKNOWN_TRAINER, beta=0.1)
    assert (step.kl.value, step.kl.series.kind, step.kl.series.estimator, step.kl.series.unit) == (0.3, "unknown", "unknown", "unknown")
    assert (step.beta, step.score, step.metrics) == (0.1, None, {"loss": 0.1, "learning_rate": 1e-6})


def test_scalars_of_torch_are_numbers() -> None:
    step = read({**KLAUDIT_LOGS, "kl_full": torch.tensor(0.25), "entropy": torch.tensor([1.5])}, KLAUDIT_PPO)
    assert (step.kl.value, step.metrics["entropy"]) == (0.25, 1.5)


@pytest.mark.parametrize("odd", ["0.5", "a name", [1.0], {"a": 1}, torch.ones(3), object()])
def test_what_is_no_number_is_left_out_and_costs_nothing_else(odd: Any) -> None:
    assert read({**KLAUDIT_LOGS, "odd": odd}, KLAUDIT_PPO) == read(KLAUDIT_LOGS, KLAUDIT_PPO)
    assert read({**KLAUDIT_LOGS, "kl_full": odd}, KLAUDIT_PPO).kl.value is None


def test_the_primary_series_is_declared_once() -> None:
    assert set(declare_series(KLAUDIT_PPO)) == {"kl", "kl_k1", "kl_k3", "kl_update"}
    assert set(declare_series(TRL_PPO)) == {"kl", "kl_update"}
    assert declare_series(UNKNOWN_TRAINER) == {"kl": replace(UNKNOWN_TRAINER.series["kl"], source_key="kl")}


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        ({"loss": 0.1}, True),
        ({"train_runtime": 3.0, "train_loss": 0.1}, False),
        ({"train_samples_per_second": 3.0}, False),
        ({"eval_loss": 0.1, "epoch": 1.0}, False),
    ],
)
def test_an_evaluation_and_the_summary_at_the_end_are_no_steps(logs: Mapping[str, Any], expected: bool) -> None:
    assert is_step(logs) is expected


def test_defaults_are_what_an_empty_configuration_resolves_to() -> None:
    for framework in (KLAUDIT_PPO, TRL_PPO, UNKNOWN_TRAINER):
        assert resolve_series(framework, arguments={})[0] == declare_series(framework)


def test_a_negative_standard_error_is_none() -> None:
    assert read({**KLAUDIT_LOGS, "kl_full_se": -0.1}, KLAUDIT_PPO).kl.standard_error is None


KEYS = sorted({key for logs in LOGS.values() for key in logs} | {"kl", "train/kl", "", "step", "metric"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
ARGUMENTS = sorted(
    {"beta", "temperature", "logging_steps", "logging_strategy", "top_k", "ref", "sync_ref_model", "use_bias_correction_kl"}
    | {
        name
        for framework in FRAMEWORKS
        for name in (*framework.estimator_arguments.values(), *framework.beta_arguments, framework.adaptive_argument)
        if name
    }
)


@given(
    framework=st.sampled_from((*FRAMEWORKS, UNKNOWN_TRAINER)),
    logs=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8),
    arguments=st.dictionaries(st.sampled_from(ARGUMENTS), VALUES, max_size=4),
    version=st.none() | st.sampled_from(["1.16.0", "0.11.4", "main", ""]),
)
def test_nothing_that_a_trainer_logs_or_is_told_raises(framework: Framework, logs: Any, arguments: Any, version: str | None) -> None:
    detect_framework(logs, trainer_class="GRPOTrainer", arguments=arguments)
    for logged in (None, logs):
        series, _ = resolve_series(framework, arguments=arguments, version=version, logged=logged)
        step = read_logs(
            logs,
            framework=framework,
            series=series,
            step=1,
            segment=0,
            logged_at=NOW,
            beta=find_beta(framework, arguments),
            scales=find_scales(framework, arguments),
        )
        assert step.kl.series is series["kl"]
