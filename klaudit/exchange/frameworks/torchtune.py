"""PPO of torchtune."""

from klaudit.exchange.frameworks.framework import Framework, describe_reference, describe_token_kl

TORCHTUNE_PPO = Framework(
    name="torchtune",
    algorithm="ppo",
    title="torchtune PPO",
    source="torchtune 0.6.1 recipes/ppo_full_finetune_single_device.py lines 1118-1160; torchtune/rlhf/rewards.py lines 79-80",
    detected_by=(frozenset({"kl", "kl_reward", "approx_policy_kl"}),),
    prefix="",
    series={
        "kl": describe_reference("k1", "nats_per_sequence"),
        # Mean over padded positions too (line 1122).
        "approx_policy_kl": describe_token_kl("update", "k2", direction="forward", aggregation="unknown"),
    },
    series_keys={"approx_policy_kl": "kl_update"},
    score=("scores",),
    beta_arguments=("kl_coeff",),
    penalty="kl_reward",
    penalised="kl",
    metrics={
        "kl_reward": "kl_penalty",
        "clipfrac": "clip_fraction",
        "ratios": "ratio",
        "response_lengths": "response_length",
    },
    negated=frozenset({"kl_reward"}),
)
