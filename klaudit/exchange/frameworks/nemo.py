"""NeMo-RL, and NeMo-Aligner before it."""

from klaudit.exchange.frameworks.framework import (
    Arguments,
    Framework,
    Series,
    Settled,
    change_series,
    describe_reference,
    describe_token_kl,
    find_argument,
    find_number,
)


def _settle_nemo_rl(series: Series, arguments: Arguments, _version: str | None) -> Settled:
    notes = []
    if find_number(arguments, "loss_fn.reference_policy_kl_penalty") == 0:
        notes.append("reference_policy_kl_penalty is 0, so kl_penalty is a constant 0 and says nothing")
    if find_argument(arguments, "loss_fn.use_kl_in_reward"):
        notes.append("use_kl_in_reward takes the KL out of the loss, so kl_penalty is a constant 0 and says nothing")
    if find_argument(arguments, "loss_fn.token_level_loss") is False:
        series = change_series(series, {"kl_penalty"}, aggregation="batch_mean")
    return Settled(series, tuple(notes))


NEMO_RL = Framework(
    name="nemo-rl",
    algorithm="grpo",
    title="NeMo-RL",
    source="NVIDIA-NeMo/RL 7ea279ab nemo_rl/algorithms/loss/loss_functions.py lines 404-440, 469-510, 777; algorithms/utils.py lines 42-101",
    detected_by=(frozenset({"kl_penalty", "token_mult_prob_error"}),),
    series={
        "kl_penalty": describe_reference("k3", "nats_per_token"),
        "gen_kl_error": describe_token_kl("mismatch", "k3", direction="forward"),
        # KL(trainer || rollout engine) by a formula that is unbiased on the trainer's samples only; these are the engine's.
        "policy_kl_error": describe_token_kl("mismatch", "unknown", direction="reverse"),
    },
    series_keys={"gen_kl_error": "kl_mismatch", "policy_kl_error": "kl_mismatch_reverse"},
    optional=frozenset({"gen_kl_error", "policy_kl_error"}),
    estimator_arguments={
        "kl_penalty": "loss_fn.reference_policy_kl_type",
        "gen_kl_error": "loss_fn.reference_policy_kl_type",
    },
    temperature_argument="policy.generation.temperature",
    clamps={"kl_penalty": 10.0},
    score=("reward",),
    beta_arguments=("loss_fn.reference_policy_kl_penalty",),
    metrics={
        "approx_entropy": "entropy",
        "mean_gen_tokens_per_sample": "response_length",
        "probs_ratio": "ratio",
        "lr": "learning_rate",
    },
    settle=_settle_nemo_rl,
    notes=("kl_penalty is the KL itself, already divided by beta; it is 0 where the coefficient is 0",),
)

NEMO_ALIGNER = Framework(
    name="nemo-aligner",
    algorithm="ppo",
    title="NeMo-Aligner (retired)",
    source="nemo_aligner 0.7.0 nemo_aligner/algorithms/ppo.py lines 247-251; utils/ppo_utils.py lines 75-82",
    detected_by=(frozenset({"init_policy_kl", "rewards_with_kl"}),),
    prefix="train_rollouts/",
    # |log-ratio| unless use_absolute_kl is false: above the KL, and no estimator of klaudit's.
    series={"init_policy_kl": describe_reference("unknown", "nats_per_token", aggregation="batch_mean")},
    temperature_argument=None,
    score=("rewards",),
    metrics={"generation_length": "response_length", "lr": "learning_rate"},
    notes=("init_policy_kl is mean |log(policy / reference)| by default, which is above the KL; it is 0 where the penalty is 0",),
)
