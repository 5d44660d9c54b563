"""Trainers that compare samples of one prompt with each other: TRL's GRPO, GMPO, RLOO and AsyncGRPO, and Unsloth's GRPO."""

from klaudit.exchange.frameworks.framework import (
    Arguments,
    Framework,
    Series,
    Settled,
    change_series,
    describe_moving_reference,
    describe_place,
    describe_reference,
    describe_token_kl,
    describe_truncated_sampling,
    find_argument,
    find_number,
    is_at_least,
)

BIAS_CORRECTED_SINCE = (1, 10)
"""TRL's `use_bias_correction_kl`: False in 1.9.2, True in 1.10.0 (trl/trainer/grpo_config.py line 966 of either)."""

GROUP_LOGS = frozenset({"completions/mean_length", "frac_reward_zero_std"})
GROUP_METRICS = {
    "completions/mean_length": "response_length",
    "clip_ratio/region_mean": "clip_fraction",
}
NO_REFERENCE = "beta is 0, so no reference is loaded and no KL to it is logged; only a live probe can measure it"


def describe_group_sampling(arguments: Arguments) -> tuple[str, ...]:
    """What the arguments that GRPO and RLOO share say of their KL."""
    none = (NO_REFERENCE,) if find_number(arguments, "beta") == 0 else ()
    return (*none, *describe_moving_reference(arguments), *describe_truncated_sampling(arguments))


def describe_reuse(arguments: Arguments) -> tuple[str, ...]:
    """What to say where one batch of samples is trained on more than once."""
    iterations = find_number(arguments, "num_iterations") or 1
    if iterations <= 1:
        return ()
    return (f"each batch is used {iterations:g} times; from the second on, the KL is of the moved policy on samples of the old one",)


def _settle_grpo(series: Series, arguments: Arguments, version: str | None) -> Settled:
    notes = [*describe_group_sampling(arguments), *describe_reuse(arguments)]
    is_corrected = find_argument(arguments, "use_bias_correction_kl")
    if is_corrected is None and version is not None:
        is_corrected = is_at_least(version, BIAS_CORRECTED_SINCE)
    if find_number(arguments, "beta") == 0:
        return Settled(series, tuple(notes))
    if is_corrected is False:
        return Settled(series, (*notes, *describe_place("kl", place="loss", estimator="k3")))
    if is_corrected is None:
        notes.append("from TRL 1.10 on kl is k3 times policy / old policy unless use_bias_correction_kl is false; the version is not known")
        return Settled(series, tuple(notes))
    if find_argument(arguments, "importance_sampling_level") == "sequence":
        notes.append("kl is k3 per token times a ratio of whole sequences: an estimate of no KL that klaudit knows")
        return Settled(change_series(series, {"kl"}, estimator="unknown"), tuple(notes))
    notes.append("kl is bias-corrected: k3 times policy / old policy per token, which is plain k3 as long as a batch is used once")
    return Settled(series, tuple(notes))


TRL_GRPO = Framework(
    name="trl",
    algorithm="grpo",
    title="TRL GRPO",
    source="TRL 1.16.0 trl/trainer/grpo_trainer.py lines 3098-3105, 3257-3268",
    checked="run",
    page="trl-grpo",
    detected_by=(GROUP_LOGS, frozenset({"kl", "completion_length", "reward_std"})),
    excluded_by=frozenset({"ratio", "objective/kl", "ppo_kl"}),
    trainer_classes=frozenset({"GRPOTrainer"}),
    argument_classes=frozenset({"GRPOConfig"}),
    argument_names=frozenset({"num_generations", "scale_rewards", "importance_sampling_level"}),
    series={"kl": describe_reference("k3", "nats_per_token")},
    is_window_mean=True,
    score=("reward",),
    beta_arguments=("beta",),
    metrics=GROUP_METRICS | {"completion_length": "response_length"},
    settle=_settle_grpo,
)

TRL_GMPO = Framework(
    name="trl",
    algorithm="gmpo",
    title="TRL GMPO (experimental)",
    source="TRL 1.16.0 trl/experimental/gmpo/gmpo_trainer.py lines 106-139",
    page="trl-grpo",
    detected_by=(GROUP_LOGS,),
    excluded_by=TRL_GRPO.excluded_by | {"policy_loss", "entropy_coef", "completion_length"},
    trainer_classes=frozenset({"GMPOTrainer"}),
    argument_classes=frozenset({"GMPOConfig"}),
    series={"kl": describe_reference("k3", "nats_per_token")},
    is_window_mean=True,
    score=("reward",),
    beta_arguments=("beta",),
    metrics=GROUP_METRICS,
    settle=lambda series, arguments, _: Settled(series, (*describe_group_sampling(arguments), *describe_reuse(arguments))),
)


def _settle_rloo(series: Series, arguments: Arguments, _version: str | None) -> Settled:
    return Settled(series, describe_group_sampling(arguments))


TRL_RLOO = Framework(
    name="trl",
    algorithm="rloo",
    title="TRL RLOO",
    source="TRL 1.16.0 trl/trainer/rloo_trainer.py lines 1664-1673, 1712-1716",
    checked="run",
    page="trl-rloo",
    detected_by=(GROUP_LOGS,),
    excluded_by=TRL_GMPO.excluded_by | {"sampling/importance_sampling_ratio/mean", "cispo_clip_ratio", "vespo/phi_seq_mean"},
    trainer_classes=frozenset({"RLOOTrainer"}),
    argument_classes=frozenset({"RLOOConfig"}),
    argument_names=frozenset({"num_generations", "normalize_advantages"}),
    series={"kl": describe_reference("k1", "nats_per_token")},
    is_window_mean=True,
    score=("reward",),
    beta_arguments=("beta",),
    metrics=GROUP_METRICS,
    settle=_settle_rloo,
    notes=("kl is a mean over tokens; the penalty in the reward is beta times the sum over each sequence",),
)

TRL_ASYNC_GRPO = Framework(
    name="trl",
    algorithm="async-grpo",
    title="TRL AsyncGRPO (experimental)",
    source="TRL 1.16.0 trl/experimental/async_grpo/async_grpo_trainer.py lines 1527-1528, 1553-1589",
    page="trl-grpo",
    detected_by=(frozenset({"kl", "ratio", "clip_ratio/region_mean"}),),
    trainer_classes=frozenset({"AsyncGRPOTrainer"}),
    argument_classes=frozenset({"AsyncGRPOConfig"}),
    argument_names=frozenset({"max_staleness"}),
    # The old log-probabilities are those that the rollout engine reported when it sampled (async_rollout_worker.py line 83).
    series={"kl": describe_token_kl("mismatch", "k3", direction="forward")},
    is_window_mean=True,
    score=("reward",),
    metrics=GROUP_METRICS,
    notes=(
        "kl is KL(rollout engine || policy), the engine's own error and every update since it sampled in one; no reference exists, "
        "so only a live probe can measure a KL to one",
    ),
)


def _settle_unsloth(series: Series, arguments: Arguments, version: str | None) -> Settled:
    if find_number(arguments, "beta") == 0:
        return Settled(series, ("beta is 0, so kl is a constant 0 and says nothing; only a live probe can measure a KL to the reference",))
    # Its version is not TRL's, so only the arguments can say whether the ratio is in it.
    return _settle_grpo(series, arguments, None)


UNSLOTH_GRPO = Framework(
    name="unsloth",
    algorithm="grpo",
    title="Unsloth GRPO",
    page="trl-grpo",
    source="unsloth_zoo 2026.10.9 unsloth_zoo/rl_replacements.py lines 1136-1151; unsloth 2026.10.9 unsloth/models/rl_replacements.py line 5073",
    detected_by=(
        frozenset({"kl", "completion_length", "completions/mean_length", "reward_std"}),
        frozenset({"kl", "completion_length", "reward_std"}),
    ),
    excluded_by=frozenset({"ratio"}),
    trainer_classes=frozenset({"UnslothGRPOTrainer", "_UnslothGRPOTrainer"}),
    argument_classes=frozenset({"UnslothGRPOConfig"}),
    argument_names=frozenset({"unsloth_num_chunks", "num_generations"}),
    series={"kl": describe_reference("k3", "nats_per_token")},
    clamps={"kl": 10.0},
    is_window_mean=True,
    score=("reward",),
    beta_arguments=("beta",),
    metrics=GROUP_METRICS,
    settle=_settle_unsloth,
)
