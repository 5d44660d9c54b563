"""Each trainer's table, against one log line of its own: what its KLs are, and that no trainer is taken for another."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from klaudit.errors import InvalidConfig
from klaudit.exchange.frameworks import (
    AREAL,
    FRAMEWORKS,
    NEMO_RL,
    OPENRLHF,
    SKYRL,
    SLIME,
    TRL_GRPO,
    TRL_KTO,
    TRL_LEGACY_PPO,
    TRL_NASH_MD,
    TRL_ONLINE_DPO,
    TRL_PPO,
    TRL_RLOO,
    UNSLOTH_GRPO,
    VERL,
    Framework,
)
from klaudit.exchange.frameworks.framework import Misleading
from klaudit.exchange.frameworks.trl_ppo import AVERAGES
from klaudit.exchange.metric_map import (
    UNKNOWN_TRAINER,
    detect_framework,
    find_beta,
    find_framework,
    find_scales,
    imply_beta,
    read_logs,
    resolve_series,
)
from klaudit.records import StepRecord, find_governing_series
from tests.exchange.framework_logs import CLASSES, GROUP, HF, LOGS, PAIRS

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
ONE_STEP = {"logging_steps": 1}


def read(framework: Framework, logs: Mapping[str, Any], arguments: Mapping[str, Any], **options: Any) -> StepRecord:
    series, _ = resolve_series(framework, arguments=arguments, logged=logs.keys())
    beta = find_beta(framework, arguments)
    scales = find_scales(framework, arguments)
    return read_logs(logs, framework=framework, series=series, step=1, segment=0, logged_at=NOW, beta=beta, scales=scales, **options)


@dataclass(frozen=True)
class Case:
    """What is to come of a trainer's line: series key -> (kind, estimator, unit, aggregation, direction, value)."""

    label: str
    kls: Mapping[str, tuple[str, str, str, str, str, float | None]]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    governing: str | None = "kl"
    beta: float | None = None
    score: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


ABSENT = ("unknown", "unknown", "unknown", "unknown", "unknown", None)
PER_SEQUENCE = ("nats_per_sequence", "batch_mean", "reverse")
LOG_RATIO = ("unknown", "unknown", "nats_per_sequence", "batch_mean", "unknown")

CASES = [
    Case(
        "klaudit-ppo",
        {
            "kl": ("reference", "full", *PER_SEQUENCE, 0.5),
            "kl_k1": ("reference", "k1", *PER_SEQUENCE, 0.4),
            "kl_k3": ("reference", "k3", *PER_SEQUENCE, 0.6),
            "kl_update": ("update", "full", "nats_per_token", "token_mean", "forward", 0.02),
        },
        beta=0.05,
        score=0.8,
        metrics={"kl_penalty": 0.02, "response_length": 16.0},
    ),
    Case(
        "trl-ppo",
        {
            "kl": ("reference", "k1", *PER_SEQUENCE, 2.0),
            "kl_update": ("update", "k2", "nats_per_token", "unknown", "forward", 0.01),
        },
        {"kl_coef": 0.05, "kl_estimator": "k1", "temperature": 0.7},
        beta=0.05,
        score=1.0,
        metrics={"implied_beta": 0.05, "kl_penalty": 0.1, "ratio": 1.01},
    ),
    Case(
        "trl-ppo-0.11",
        {
            "kl": ("reference", "k1", *PER_SEQUENCE, 2.0),
            "kl_update": ("update", "k2", "nats_per_token", "token_mean", "forward", 0.01),
            "kl_update_k1": ("update", "k1", "nats_per_token", "token_mean", "forward", 0.02),
        },
        beta=0.2,
        score=1.0,
        metrics={"response_length": 16.0, "clip_fraction": 0.1},
    ),
    Case(
        "trl-grpo",
        {"kl": ("reference", "k3", "nats_per_token", "token_mean", "reverse", 0.003)},
        {"beta": 0.04, **ONE_STEP},
        beta=0.04,
        score=0.4,
        metrics={"response_length": 20.0, "clip_fraction": 0.1, "entropy": 1.5},
    ),
    Case("trl-gmpo", {"kl": ("reference", "k3", "nats_per_token", "token_mean", "reverse", 0.003)}, ONE_STEP, score=0.4),
    Case(
        "trl-rloo",
        {"kl": ("reference", "k1", "nats_per_token", "token_mean", "reverse", -0.003)},
        {"beta": 0.05, **ONE_STEP},
        beta=0.05,
        score=0.4,
    ),
    Case(
        "trl-async-grpo", {"kl": ("mismatch", "k3", "nats_per_token", "token_mean", "forward", 0.003)}, ONE_STEP, governing=None, score=0.4
    ),
    Case("unsloth-grpo", {"kl": ("reference", "k3", "nats_per_token", "token_mean", "reverse", 0.003)}, ONE_STEP, score=0.4),
    Case(
        "trl-online-dpo",
        {"kl": ("reference", "k1", "nats_per_sequence", "unknown", "reverse", 2.0)},
        {"beta": [0.1], **ONE_STEP},
        beta=0.1,
        score=1.0,
        metrics={"implied_beta": 0.1, "kl_penalty": 0.2, "eos_fraction": 0.5},
    ),
    Case("trl-xpo", {"kl": ("unknown", "unknown", "nats_per_sequence", "unknown", "unknown", -0.2)}, ONE_STEP, governing=None, beta=0.1),
    Case("trl-nash-md", {"kl": ("reference", "k1", *PER_SEQUENCE, 2.0)}, ONE_STEP, beta=0.1),
    Case("trl-dpo", {"kl": ABSENT, "implicit_drift": (*LOG_RATIO, 2.0)}, {"beta": 0.1, **ONE_STEP}, governing=None, beta=0.1),
    Case("trl-bco", {"kl": ABSENT, "implicit_drift": (*LOG_RATIO, 2.0)}, {"beta": 0.1, **ONE_STEP}, governing=None, beta=0.1),
    Case("trl-reference-free", {"kl": ABSENT}, {"beta": 0.1}, governing=None, beta=0.1, metrics={"rewards/chosen": 0.2}),
    Case(
        "trl-kto",
        {"kl": ("baseline", "k1", "nats_per_sequence", "batch_mean", "unknown", 1.2), "implicit_drift": (*LOG_RATIO, 2.0)},
        {"beta": 0.1, **ONE_STEP},
        governing=None,
        beta=0.1,
    ),
    Case(
        "verl-ppo",
        {
            "kl": ("reference", "k1", "nats_per_token", "batch_mean", "reverse", 0.01),
            "kl_update": ("update", "k1", "nats_per_token", "token_mean", "forward", 0.002),
            "kl_mismatch": ("mismatch", "k3", "nats_per_token", "token_mean", "forward", 0.0012),
            "kl_mismatch_k1": ("mismatch", "k1", "nats_per_token", "token_mean", "forward", 0.001),
        },
        beta=0.001,
        score=0.7,
        metrics={"response_length": 150.0, "clip_fraction": 0.1, "entropy": 0.3, "rlhf_reward": 0.69},
    ),
    Case(
        "openrlhf-ppo",
        {
            "kl": ("reference", "k1", "nats_per_token", "batch_mean", "reverse", 0.02),
            "kl_update": ("update", "k1", "nats_per_token", "token_mean", "forward", 0.001),
            "kl_mismatch": ("mismatch", "k1", "nats_per_token", "token_mean", "forward", 0.0005),
        },
        {"algo": {"kl": {"init_coef": 0.01, "estimator": "k1", "target": None}}},
        beta=0.01,
        score=0.6,
        metrics={"response_length": 120.0, "clip_fraction": 0.05, "entropy": 0.4, "rlhf_reward": 0.58},
    ),
    Case(
        "nemo-rl-grpo",
        {
            "kl": ("reference", "k3", "nats_per_token", "token_mean", "reverse", 0.01),
            "kl_mismatch": ("mismatch", "k3", "nats_per_token", "token_mean", "forward", 0.0005),
            "kl_mismatch_reverse": ("mismatch", "unknown", "nats_per_token", "token_mean", "reverse", 0.0006),
        },
        {"loss_fn": {"reference_policy_kl_penalty": 0.01}},
        beta=0.01,
        score=0.5,
        metrics={"response_length": 300.0, "entropy": 0.4},
    ),
    Case(
        "nemo-aligner-ppo",
        {"kl": ("reference", "unknown", "nats_per_token", "batch_mean", "reverse", 0.05)},
        governing=None,
        score=0.5,
        metrics={"response_length": 100.0},
    ),
    Case(
        "skyrl-grpo",
        {"kl": ("reference", "k3", "nats_per_token", "batch_mean", "reverse", 0.01)},
        score=0.5,
        metrics={"response_length": 200.0, "policy/response_length": 512.0, "entropy": 0.4},
    ),
    Case(
        "slime-grpo",
        {
            "kl": ("reference", "k1", "nats_per_token", "batch_mean", "reverse", 0.01),
            "kl_update": ("update", "k1", "nats_per_token", "batch_mean", "forward", 0.001),
        },
        {"kl_coef": 0.0, "kl_loss_coef": 0.001, "kl_loss_type": "k1"},
        beta=0.001,
        score=0.5,
        metrics={"response_length": 300.0, "rollout/kl": 0.0},
    ),
    Case(
        "areal-ppo",
        {
            "kl": ("reference", "k1", "nats_per_token", "token_mean", "reverse", 0.01),
            "kl_mismatch_k1": ("mismatch", "k1", "nats_per_token", "token_mean", "forward", 0.0005),
            "kl_mismatch": ("mismatch", "k3", "nats_per_token", "token_mean", "forward", 0.0004),
        },
        {"actor": {"kl_ctl": 0.1, "kl_estimator": "k1"}, "ref": {"path": "base"}},
        beta=0.1,
        score=0.5,
        metrics={"log_ratio_new_to_old": -0.001},
    ),
    Case(
        "torchtune-ppo",
        {
            "kl": ("reference", "k1", *PER_SEQUENCE, 2.0),
            "kl_update": ("update", "k2", "nats_per_token", "unknown", "forward", 0.01),
        },
        {"kl_coeff": 0.01},
        beta=0.01,
        score=0.5,
        metrics={"implied_beta": 0.01, "kl_penalty": 0.02, "response_length": 40.0},
    ),
    Case(
        "trlx-ppo",
        {
            "kl": ("unknown", "unknown", "unknown", "unknown", "unknown", 0.3),
            "sqrt_kl_per_token": ("unknown", "unknown", "unknown", "unknown", "unknown", 0.05),
        },
        governing=None,
        beta=0.1,
        score=0.5,
    ),
    Case("deepspeed-chat-ppo", {"kl": ABSENT}, governing=None, score=0.5),
    Case("transformers", {"kl": ABSENT}, governing=None, metrics={"loss": 0.1, "grad_norm": 0.5, "learning_rate": 1e-6}),
]


def test_every_table_has_a_line_and_a_case_of_its_own() -> None:
    labels = [framework.label for framework in FRAMEWORKS]
    assert len(set(labels)) == len(labels)
    assert set(LOGS) == set(labels)
    assert [case.label for case in CASES] == labels


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_a_line_becomes_what_its_trainer_means(case: Case) -> None:
    framework, logs = find_framework(case.label), LOGS[case.label]
    step = read(framework, logs, case.arguments, n_sequences=8)
    readings = {"kl": step.kl, **step.readings}
    described = {
        key: (one.series.kind, one.series.estimator, one.series.unit, one.series.aggregation, one.series.direction, one.value)
        for key, one in readings.items()
    }
    assert {key: one[:5] for key, one in described.items()} == {key: one[:5] for key, one in case.kls.items()}
    assert {key: one[5] for key, one in described.items()} == pytest.approx({key: one[5] for key, one in case.kls.items()})
    assert find_governing_series({key: one.series for key, one in readings.items()}) == case.governing
    assert (step.beta, step.score) == (case.beta, case.score)
    assert {name: step.metrics.get(name) for name in case.metrics} == pytest.approx(dict(case.metrics))
    assert "epoch" not in step.metrics


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda framework: framework.label)
def test_a_table_says_where_it_was_read_and_by_which_lines(framework: Framework) -> None:
    assert framework.source
    assert framework.page
    # A project's version, or the commit that was read; klaudit's own file needs neither.
    assert framework.name == "klaudit" or any(character.isdigit() for character in framework.source) or framework.name == "deepspeed-chat"
    assert set(framework.series_keys) <= set(framework.series)
    assert set(framework.estimator_arguments) <= set(framework.series)
    assert framework.optional | set(framework.clamps) | set(framework.beta_multiples) <= set(framework.series)


@pytest.mark.parametrize("label", LOGS)
def test_no_trainer_is_taken_for_another(label: str) -> None:
    found = detect_framework(LOGS[label], trainer_class=CLASSES.get(label))
    assert found is not None
    assert found.label == label


@pytest.mark.parametrize("label", [label for label in LOGS if find_framework(label).prefix == "train/"])
def test_what_a_tracker_puts_before_the_keys_changes_nothing(label: str) -> None:
    prefixed = {f"train/{key}": value for key, value in LOGS[label].items()}
    found = detect_framework(prefixed, trainer_class=CLASSES.get(label))
    assert found is not None
    assert found.label == label
    assert read(found, prefixed, ONE_STEP) == read(found, LOGS[label], ONE_STEP)


@pytest.mark.parametrize(
    ("logs", "hints", "label"),
    [
        (GROUP, {"trainer_class": "GRPOTrainer"}, "trl-grpo"),
        (GROUP, {"trainer_class": "MyTrainer", "arguments_class": "GRPOConfig"}, "trl-grpo"),
        (GROUP | {"kl": 0.1}, {"arguments_class": "RLOOConfig"}, "trl-rloo"),
        (GROUP | {"kl": 0.1}, {"arguments": {"num_generations": 4, "normalize_advantages": False}}, "trl-rloo"),
        (GROUP | {"kl": 0.1, "sampling/importance_sampling_ratio/mean": 1.0}, {}, "trl-grpo"),
        (PAIRS, {"arguments_class": "DPOConfig"}, "trl-dpo"),
        (PAIRS, {"arguments_class": "TPOConfig"}, "trl-reference-free"),
        (HF | {"kl": 0.1, "reward_std": 0.1, "completion_length": 9.0}, {}, "trl-grpo"),
        ({"objective/kl": 1.0, "objective/scores": 0.5}, {}, "trl-ppo"),
        # Before it logs what it is known by.
        (HF, {"trainer_class": "GRPOTrainer"}, "trl-grpo"),
        ({"loss": 0.1}, {"arguments_class": "KTOConfig"}, "trl-kto"),
    ],
)
def test_a_class_or_an_argument_tells_where_keys_do_not(logs: Mapping[str, Any], hints: Mapping[str, Any], label: str) -> None:
    found = detect_framework(logs, **hints)
    assert found is not None
    assert found.label == label


@pytest.mark.parametrize(
    ("logs", "named"),
    [(GROUP | {"kl": 0.1}, ("TRL GRPO", "TRL RLOO")), (PAIRS, ("TRL DPO", "TRL CPO, ORPO, TPO"))],
)
def test_keys_that_mean_different_things_are_not_guessed_at(logs: Mapping[str, Any], named: tuple[str, ...]) -> None:
    found = detect_framework(logs, trainer_class="MyTrainer")
    assert found is not None
    assert (found.name, found.series) == (UNKNOWN_TRAINER.name, UNKNOWN_TRAINER.series)
    assert all(title in found.notes[0] for title in named)


def test_keys_that_mean_the_same_everywhere_need_no_class() -> None:
    found = detect_framework(HF | {"kl": 0.1, "reward_std": 0.1, "completion_length": 9.0})
    assert found is not None
    assert any("Unsloth GRPO" in note for note in found.notes)


def test_a_kl_beside_the_keys_of_any_trainer_is_unknown() -> None:
    assert detect_framework({**HF, "kl": 0.1}) is None
    assert detect_framework({"kl_div": 0.1, "policy_entropy": 0.2}) is None


def test_a_trainer_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(InvalidConfig, match=r"got 'trl-grop'; known are klaudit-ppo, trl-ppo,.* trl-grpo"):
        find_framework("trl-grop")


# What arguments and versions change.


def resolve_one(framework: Framework, arguments: Mapping[str, Any], *, version: str | None = None, key: str = "kl") -> tuple[Any, str]:
    series, notes = resolve_series(framework, arguments=arguments, version=version)
    return series[key], "; ".join(notes)


@pytest.mark.parametrize(
    ("arguments", "version", "estimator", "note"),
    [
        ({"use_bias_correction_kl": True}, None, "k3", "bias-corrected"),
        ({"use_bias_correction_kl": False}, "1.16.0", "k3", "KL(reference || policy)"),
        ({}, "1.9.2", "k3", "KL(reference || policy)"),
        ({}, "1.10.0", "k3", "bias-corrected"),
        ({}, "1.16.0.dev0", "k3", "bias-corrected"),
        ({}, None, "k3", "the version is not known"),
        ({"importance_sampling_level": "sequence"}, "1.16.0", "unknown", "whole sequences"),
        ({"importance_sampling_level": "sequence"}, "1.9.2", "k3", "KL(reference || policy)"),
        ({"importance_sampling_level": "sequence", "use_bias_correction_kl": True}, None, "unknown", "whole sequences"),
    ],
)
def test_grpos_kl_is_multiplied_by_the_ratio_in_some_versions(
    arguments: Mapping[str, Any], version: str | None, estimator: str, note: str
) -> None:
    series, notes = resolve_one(TRL_GRPO, {"beta": 0.04, **ONE_STEP, **arguments}, version=version)
    assert series.estimator == estimator
    assert note in notes


@pytest.mark.parametrize(
    ("framework", "arguments", "note"),
    [
        (TRL_GRPO, {"beta": 0.0}, "no KL to it is logged"),
        (TRL_RLOO, {"beta": 0}, "no KL to it is logged"),
        (UNSLOTH_GRPO, {"beta": 0.0}, "a constant 0"),
        (UNSLOTH_GRPO, {"beta": 0.1}, "cut off at 10 nats"),
        (
            TRL_GRPO,
            {"sync_ref_model": True, "ref_model_mixup_alpha": 0.6, "ref_model_sync_steps": 512},
            "every 512 steps 0.6 of the policy",
        ),
        (TRL_KTO, {"sync_ref_model": True}, "moves the reference"),
        (TRL_GRPO, {"top_p": 0.9, "top_k": 50}, "truncated (top_k 50, top_p 0.9)"),
        (TRL_GRPO, {"num_iterations": 3}, "used 3 times"),
        (TRL_KTO, {"loss_type": "apo_zero_unpaired"}, "a constant 0"),
        (TRL_ONLINE_DPO, {}, "padding"),
        (TRL_ONLINE_DPO, {"temperature": 0.9}, "sampled at temperature 0.9 and scored at 1"),
        (TRL_NASH_MD, {"temperature": 0.9}, "sampled at temperature 0.9 and scored at 1"),
        (VERL, {"algorithm": {"use_kl_in_reward": False}, "actor_rollout_ref": {"actor": {"use_kl_loss": False}}}, "both off"),
        (
            VERL,
            {"algorithm": {"use_kl_in_reward": True, "kl_ctrl": {"type": "adaptive", "target_kl": 0.1}}},
            "the target 0.1 is compared with a KL in nats per token",
        ),
        (OPENRLHF, {"algo.kl.init_coef": 0}, "a constant 0"),
        (OPENRLHF, {"algo": {"kl": {"target": 6.0}}}, "adaptive and not logged"),
        (NEMO_RL, {"loss_fn": {"use_kl_in_reward": True}}, "a constant 0"),
        (SKYRL, {"trainer": {"algorithm": {"use_kl_in_reward": False, "use_kl_loss": False}}}, "no KL to the reference is logged"),
        (SLIME, {"use_kl_loss": False}, "no KL to the reference is logged"),
        (SLIME, {"use_unbiased_kl": True, "kl_loss_type": "low_var_kl"}, "cut off at 10 nats"),
        (AREAL, {"actor": {"kl_ctl": 0.1}}, "no reference engine"),
        (TRL_LEGACY_PPO, {"kl_penalty": "abs"}, "no estimate of a KL"),
        (TRL_PPO, {"stop_token": None, "stop_token_id": None}, "no stop_token"),
        (TRL_PPO, {"gradient_accumulation_steps": 4, "num_mini_batches": 2}, "0.5 of their value"),
    ],
)
def test_what_a_setting_means_is_said(framework: Framework, arguments: Mapping[str, Any], note: str) -> None:
    _, notes = resolve_series(framework, arguments=arguments)
    assert note in "; ".join(notes)
    assert not any(one.endswith(".") for one in notes)


@pytest.mark.parametrize(
    ("arguments", "aggregation", "note"),
    [
        ({"logging_steps": 1}, "token_mean", None),
        ({"logging_steps": 10}, "window_mean", "a mean over 10 steps"),
        ({"logging_steps": 0.1}, "window_mean", "0.1 of the training"),
        ({"logging_steps": 1, "logging_strategy": "epoch"}, "window_mean", "a mean over an epoch"),
        ({}, "unknown", "how many is not known"),
    ],
)
def test_a_mean_over_several_steps_is_called_one(arguments: Mapping[str, Any], aggregation: str, note: str | None) -> None:
    series, notes = resolve_one(TRL_RLOO, arguments)
    assert series.aggregation == aggregation
    assert ("each line" in notes) == (note is not None)
    assert (note or "") in notes


@pytest.mark.parametrize(
    ("framework", "arguments", "temperature"),
    [
        (TRL_PPO, {"temperature": 0.7}, 0.7),
        (TRL_GRPO, {"temperature": 1.0}, 1.0),
        (TRL_GRPO, {"temperature": 0.0}, None),
        (TRL_GRPO, {"temperature": "hot"}, None),
        (TRL_ONLINE_DPO, {"temperature": 0.9}, None),
        (VERL, {"actor_rollout_ref": {"rollout": {"temperature": 0.6}}}, 0.6),
        (OPENRLHF, {"rollout.temperature": 0.8}, 0.8),
    ],
)
def test_the_temperature_is_the_one_at_which_both_were_scored(
    framework: Framework, arguments: Mapping[str, Any], temperature: float | None
) -> None:
    assert resolve_one(framework, arguments)[0].temperature == temperature


@pytest.mark.parametrize(
    ("framework", "arguments", "estimator"),
    [
        (TRL_PPO, {"kl_estimator": "k3"}, "k3"),
        (TRL_LEGACY_PPO, {"kl_penalty": "full"}, "full"),
        (TRL_LEGACY_PPO, {"kl_penalty": "mse"}, "k2"),
        (TRL_LEGACY_PPO, {"kl_penalty": "abs"}, "unknown"),
        (
            VERL,
            {"algorithm": {"kl_penalty": "low_var_kl+", "use_kl_in_reward": True}, "actor_rollout_ref": {"actor": {"use_kl_loss": False}}},
            "k3",
        ),
        (
            VERL,
            {"algorithm": {"kl_penalty": "abs", "use_kl_in_reward": True}, "actor_rollout_ref": {"actor": {"use_kl_loss": False}}},
            "unknown",
        ),
        (OPENRLHF, {"algo": {"kl": {"estimator": "k2"}}}, "k2"),
        (SKYRL, {"trainer": {"algorithm": {"kl_estimator_type": "k1"}}}, "k1"),
        (AREAL, {"actor": {"kl_estimator": "k3"}, "ref": {"path": "base"}}, "k3"),
    ],
)
def test_the_estimator_is_the_one_that_the_trainer_was_told(framework: Framework, arguments: Mapping[str, Any], estimator: str) -> None:
    assert resolve_one(framework, arguments)[0].estimator == estimator


def test_a_default_that_nobody_confirmed_is_said_to_be_one() -> None:
    _, notes = resolve_one(OPENRLHF, {})
    assert "kl is taken for k1, the default of algo.kl.estimator, which is not among the arguments" in notes


@pytest.mark.parametrize(
    ("mode", "unit", "aggregation"),
    [
        ("token-mean", "nats_per_token", "token_mean"),
        ("seq-mean-token-sum", "nats_per_sequence", "batch_mean"),
        ("seq-mean-token-mean", "nats_per_token", "batch_mean"),
        ("seq-mean-token-sum-norm", "unknown", "unknown"),
    ],
)
def test_verls_kl_loss_has_the_unit_of_its_aggregation(mode: str, unit: str, aggregation: str) -> None:
    arguments = {"actor_rollout_ref": {"actor": {"use_kl_loss": True, "loss_agg_mode": mode}}, "algorithm": {"use_kl_in_reward": False}}
    series, _ = resolve_one(VERL, arguments)
    assert (series.source_key, series.estimator, series.unit, series.aggregation) == ("actor/kl_loss", "k3", unit, aggregation)


def test_verls_two_modes_are_told_apart_by_what_is_logged() -> None:
    in_loss = {"actor/kl_loss": 0.02, "actor/kl_coef": 0.001, "actor/ppo_kl": 0.001}
    step = read(VERL, in_loss, {})
    assert (step.kl.series.source_key, step.kl.value, step.beta) == ("actor/kl_loss", 0.02, 0.001)
    assert set(step.readings) == {"kl_update"}
    neither = read(VERL, {"actor/ppo_kl": 0.001, "critic/score/mean": 0.5}, {})
    assert (neither.kl.value, neither.kl.not_measured) == (None, "this trainer logs no KL to the reference")


def test_arealls_kl_needs_beta_and_a_reference() -> None:
    step = read(AREAL, LOGS["areal-ppo"], {})
    assert (step.kl.value, step.kl.series.kind) == (None, "unknown")
    assert "beta is not known" in str(step.kl.not_measured)


# Beta.


@pytest.mark.parametrize(
    ("framework", "arguments", "beta"),
    [
        (TRL_PPO, {"kl_coef": 0.05}, 0.05),
        (TRL_GRPO, {"beta": 0.0}, 0.0),
        (TRL_GRPO, {"beta": True}, None),
        (TRL_GRPO, {"beta": math.nan}, None),
        (TRL_ONLINE_DPO, {"beta": [0.1]}, 0.1),
        (TRL_ONLINE_DPO, {"beta": [0.1, 0.2]}, None),
        (OPENRLHF, {"algo.kl.init_coef": 0.01}, 0.01),
        (OPENRLHF, {"algo.kl.init_coef": 0.01, "algo.kl.target": 6.0}, None),
        (SLIME, {"kl_coef": 0.0, "kl_loss_coef": 0.001}, 0.001),
        (SLIME, {"kl_coef": 0.0, "kl_loss_coef": 0.0}, 0.0),
        (UNKNOWN_TRAINER, {"beta": 0.1}, None),
    ],
)
def test_beta_of_the_arguments(framework: Framework, arguments: Mapping[str, Any], beta: float | None) -> None:
    assert find_beta(framework, arguments) == beta


@pytest.mark.parametrize(
    ("penalty", "kl", "beta"),
    [
        (0.1, 2.0, 0.05),
        (-0.1, -2.0, 0.05),
        (1e-9, 1e-5, None),
        (0.0, 0.0, None),
        (math.nan, 2.0, None),
        (0.1, math.inf, None),
        (None, 2.0, None),
        (0.1, None, None),
        (1e308, 1e-3, None),
    ],
)
def test_beta_is_implied_where_the_kl_is_large_enough_to_tell(penalty: float | None, kl: float | None, beta: float | None) -> None:
    assert imply_beta(penalty=penalty, kl=kl) == (beta if beta is None else pytest.approx(beta))


def test_a_kl_near_zero_implies_no_beta() -> None:
    step = read(TRL_PPO, {**LOGS["trl-ppo"], "objective/kl": 6e-8, "objective/non_score_reward": -3e-9}, {})
    assert "implied_beta" not in step.metrics


# TRL's averages over slots that it did not fill.


def average_like_trl(value: float, *, accumulated: int, mini_batches: int, device_batch: int = 4, epochs: int = 2) -> float:
    """What ppo_trainer.py logs of a statistic that has one value in every micro-batch (lines 631, 813-868, 889)."""
    slots = [[[0.0] * accumulated for _ in range(mini_batches)] for _ in range(epochs)]
    local_batch = device_batch * accumulated
    local_mini_batch = local_batch // mini_batches
    for epoch in range(epochs):
        for mini_batch, _ in enumerate(range(0, local_batch, local_mini_batch)):
            for micro_batch, _ in enumerate(range(0, local_mini_batch, device_batch)):
                slots[epoch][mini_batch][micro_batch] = value
    flat = [one for epoch in slots for mini_batch in epoch for one in mini_batch]
    return math.fsum(flat) / len(flat)


@pytest.mark.parametrize(("accumulated", "mini_batches"), [(1, 1), (1, 4), (4, 1), (2, 2), (4, 2), (8, 2), (3, 2), (4, 4), (4, 8), (5, 2)])
def test_trls_scale_is_divided_out_of_every_average(accumulated: int, mini_batches: int) -> None:
    arguments = {"gradient_accumulation_steps": accumulated, "num_mini_batches": mini_batches}
    logged = average_like_trl(1.0, accumulated=accumulated, mini_batches=mini_batches)
    logs = {**LOGS["trl-ppo"], **dict.fromkeys(AVERAGES, logged)}
    step = read(TRL_PPO, logs, arguments)
    read_back = [
        step.readings["kl_update"].value,
        *(step.metrics[name] for name in ("ratio", "entropy", "clip_fraction", "policy_loss", "value_loss")),
    ]
    assert read_back == pytest.approx([1.0] * 6)
    assert step.metrics["val/clipfrac_avg"] == pytest.approx(1.0)
    assert step.kl.value == 2.0
    assert bool(find_scales(TRL_PPO, arguments)) == (logged != 1.0)


def test_other_trainers_are_scaled_by_nothing() -> None:
    assert all(not find_scales(one, {"gradient_accumulation_steps": 4, "num_mini_batches": 2}) for one in FRAMEWORKS if one is not TRL_PPO)


@pytest.mark.parametrize(
    ("framework", "arguments", "told", "is_misleading"),
    [
        (VERL, {"actor_rollout_ref": {"actor": {"kl_loss_type": "k1"}}}, "actor/kl_loss is k1 in the loss", True),
        (VERL, {"actor_rollout_ref": {"actor": {"kl_loss_type": "k1+"}}}, None, False),
        (VERL, {"actor_rollout_ref": {"actor": {"kl_loss_type": "k3"}}}, "actor/kl_loss is k3 in the loss", False),
        (VERL, {"actor_rollout_ref": {"actor": {"kl_loss_type": "mse"}}}, None, False),
        (TRL_PPO, {"kl_estimator": "k1"}, None, False),
        (TRL_PPO, {"kl_estimator": "k3"}, "objective/kl is k3 in the reward", False),
        (OPENRLHF, {"algo.kl.use_loss": True, "algo.kl.estimator": "k1"}, "kl is k1 in the loss", True),
        (OPENRLHF, {"algo.kl.use_loss": False, "algo.kl.estimator": "k1"}, None, False),
        (SLIME, {"use_kl_loss": True, "kl_loss_type": "k1", "use_unbiased_kl": True}, None, False),
        (SLIME, {"use_kl_loss": True, "kl_loss_type": "k1"}, "train/kl_loss is k1 in the loss", True),
    ],
)
def test_an_estimator_whose_gradient_is_another_where_it_is_penalised_is_told(
    framework: Framework, arguments: Mapping[str, Any], told: str | None, is_misleading: bool
) -> None:
    _, notes = resolve_series(framework, arguments=arguments)
    found = [note for note in notes if " in the loss" in note or " in the reward" in note]
    assert [note.partition(",")[0] for note in found] == ([] if told is None else [told])
    assert [isinstance(note, Misleading) for note in found] == ([] if told is None else [is_misleading])


def test_a_reference_that_follows_the_policy_by_slimes_arguments_is_told() -> None:
    _, notes = resolve_series(SLIME, arguments={"ref_update_interval": 50})
    assert any(note.startswith("ref_update_interval makes the policy the reference every 50 rollouts") for note in notes)
