"""One log line of each trainer, with the keys that its source writes; the sources stand in `klaudit/exchange/frameworks/`."""

from collections.abc import Mapping
from typing import Any

HF = {"loss": 0.1, "grad_norm": 0.5, "learning_rate": 1e-6, "epoch": 0.1}
GROUP = HF | {
    "num_tokens": 512.0, "completions/mean_length": 20.0, "completions/min_length": 4.0, "completions/max_length": 32.0,
    "completions/clipped_ratio": 0.25, "completions/mean_terminated_length": 15.0, "rewards/score/mean": 0.4, "rewards/score/std": 0.2,
    "reward": 0.4, "reward_std": 0.2, "frac_reward_zero_std": 0.0, "entropy": 1.5, "clip_ratio/low_mean": 0.0, "clip_ratio/region_mean": 0.1,
    "step_time": 1.0,
}  # fmt: skip
PAIRS = HF | {
    "logits/chosen": -1.0, "logits/rejected": -1.1, "rewards/chosen": 0.2, "rewards/rejected": -0.1, "rewards/accuracies": 0.7,
    "rewards/margins": 0.3, "logps/chosen": -20.0, "logps/rejected": -25.0,
}  # fmt: skip
ONLINE_PAIRS = PAIRS | {
    "objective/kl": 2.0, "objective/entropy": 30.0, "objective/non_score_reward": -0.2, "objective/rlhf_reward": 0.8,
    "objective/scores": 1.0, "objective/scores_margin": 0.1, "val/contain_eos_token": 0.5, "beta": 0.1,
}  # fmt: skip

LOGS: Mapping[str, Mapping[str, Any]] = {
    "klaudit-ppo": {
        "kl_full": 0.5, "kl_full_se": 0.1, "kl_k1": 0.4, "kl_k1_se": 0.2, "kl_k3": 0.6, "kl_k3_se": 0.3, "kl_update": 0.02,
        "kl_update_se": 0.01, "beta": 0.05, "score": 0.8, "kl_penalty": 0.02, "rlhf_reward": 0.78, "heldout_score": 0.7,
        "response_length": 16.0, "learning_rate": 1e-5,
    },
    "trl-ppo": {
        "eps": 3, "objective/kl": 2.0, "objective/entropy": 30.0, "objective/non_score_reward": -0.1, "objective/rlhf_reward": 0.9,
        "objective/scores": 1.0, "policy/approxkl_avg": 0.01, "policy/clipfrac_avg": 0.02, "policy/entropy_avg": 1.5,
        "loss/policy_avg": 0.3, "loss/value_avg": 0.2, "val/clipfrac_avg": 0.0, "val/ratio": 1.01, "val/ratio_var": 0.001,
        "val/num_eos_tokens": 4, "lr": 3e-6, "episode": 64, "epoch": 0.5,
    },
    "trl-ppo-0.11": {
        "objective/kl": 2.0, "objective/kl_dist": [1.0, 3.0], "objective/kl_coef": 0.2, "objective/entropy": 30.0,
        "ppo/mean_non_score_reward": -0.01, "ppo/mean_scores": 1.0, "ppo/std_scores": 0.5, "tokens/responses_len_mean": 16.0,
        "ppo/policy/approxkl": 0.01, "ppo/policy/policykl": 0.02, "ppo/policy/clipfrac": 0.1, "ppo/policy/entropy": 1.5,
        "ppo/policy/ratio": [1.0, 1.1], "ppo/loss/policy": 0.3, "ppo/loss/value": 0.2, "ppo/learning_rate": 1e-5,
    },
    "trl-grpo": GROUP | {"kl": 0.003, "policy_loss": 0.01, "entropy_coef": 0.001},
    "trl-gmpo": GROUP | {"kl": 0.003},
    "trl-rloo": GROUP | {"kl": -0.003},
    "trl-async-grpo": GROUP | {"kl": 0.003, "ratio": 1.0},
    "unsloth-grpo": GROUP | {"kl": 0.003, "completion_length": 20.0},
    "trl-online-dpo": ONLINE_PAIRS,
    "trl-xpo": HF | {
        "loss/dpo": 0.6, "loss/xpo": 0.1, "objective/kl": -0.2, "objective/entropy": 30.0, "rewards/chosen": 0.2, "rewards/rejected": -0.1,
        "rewards/accuracies": 0.7, "rewards/margins": 0.3, "logps/chosen": -20.0, "logps/rejected": -25.0,
        "val/model_contain_eos_token": 0.5, "val/ref_contain_eos_token": 0.5, "alpha": 1e-5, "beta": 0.1,
    },
    "trl-nash-md": HF | {
        "loss/kl": 2.0, "loss/score": 0.1, "objective/entropy": 30.0, "rewards/probabilities": 0.5, "rewards/chosen": 0.2,
        "rewards/rejected": -0.1, "rewards/accuracies": 0.7, "rewards/margins": 0.3, "logps/chosen": -20.0, "logps/rejected": -25.0,
        "val/model_contain_eos_token": 0.5, "mixture_coef": 0.5, "beta": 0.1,
    },
    "trl-dpo": PAIRS | {"mean_token_accuracy": 0.6, "entropy": 1.5, "num_tokens": 512.0},
    "trl-bco": PAIRS | {"delta": 0.1},
    "trl-reference-free": PAIRS | {"nll_loss": 1.0, "log_odds_ratio": -0.5, "log_odds_chosen": 0.2},
    "trl-kto": PAIRS | {"kl": 1.2, "entropy": 1.5, "num_tokens": 512.0},
    "verl-ppo": {
        "actor/reward_kl_penalty": 0.01, "actor/reward_kl_penalty_coeff": 0.001, "actor/ppo_kl": 0.002, "actor/pg_clipfrac": 0.1,
        "actor/pg_clipfrac_lower": 0.0, "actor/pg_loss": 0.01, "actor/entropy": 0.3, "actor/grad_norm": 0.5, "actor/lr": 1e-6,
        "critic/score/mean": 0.7, "critic/score/max": 1.0, "critic/score/min": 0.0, "critic/rewards/mean": 0.69,
        "response_length/mean": 150.0, "rollout_corr/kl": 0.001, "rollout_corr/k3_kl": 0.0012, "training/global_step": 3,
    },
    "openrlhf-ppo": {
        "policy_loss": 0.01, "entropy_loss": 0.4, "ppo_clip_ratio": 0.05, "ppo_kl": 0.001, "vllm_kl": 0.0005, "is_filter_ratio": 0.0,
        "kl": 0.02, "logprobs_diff": 0.02, "reward": 0.6, "return": 0.58, "response_length": 120.0, "total_length": 200.0,
        "actor_lr": 1e-6, "actor_grad_norm": 0.5, "critic_loss": 0.1, "rollout/reward_mean": 0.6, "timing/ppo_train": 3.0,
    },
    "nemo-rl-grpo": {
        "loss": 0.1, "kl_penalty": 0.01, "probs_ratio": 1.0, "probs_ratio_clamped": 1.0, "token_mult_prob_error": 1.01,
        "gen_kl_error": 0.0005, "policy_kl_error": 0.0006, "js_divergence_error": 0.0001, "approx_entropy": 0.4, "reward": 0.5,
        "mean_gen_tokens_per_sample": 300.0, "grad_norm": 0.5, "lr": 1e-6,
    },
    "nemo-aligner-ppo": {
        "train_rollouts/init_policy_kl": 0.05, "train_rollouts/rewards_with_kl": 0.4, "train_rollouts/rewards": 0.5,
        "train_rollouts/generation_length": 100.0,
    },
    "skyrl-grpo": {
        "policy/policy_kl": 0.01, "policy/policy_entropy": 0.4, "policy/policy_lr": 1e-6, "policy/final_loss": 0.1,
        "policy/response_length": 512, "reward/avg_raw_reward": 0.5, "generate/avg_num_tokens": 200.0,
    },
    "slime-grpo": {
        "train/kl_loss": 0.01, "train/ppo_kl": 0.001, "train/pg_clipfrac": 0.05, "train/pg_loss": 0.01, "train/entropy_loss": 0.4,
        "train/grad_norm": 0.5, "rollout/kl": 0.0, "rollout/raw_reward": 0.5, "rollout/response_lengths": 300.0,
    },
    "areal-ppo": {
        "ppo_actor/kl_rewards/avg": -0.001, "ppo_actor/kl_rewards/min": -0.1, "ppo_actor/task_reward/avg": 0.5,
        "ppo_actor/update/approx_kl/avg": -0.001, "ppo_actor/update/entropy/avg": 0.4, "ppo_actor/update/clip_ratio/avg": 0.05,
        "ppo_actor/update/kl_div_direct/avg": 0.0005, "ppo_actor/update/kl_div_taylor/avg": 0.0006,
        "ppo_actor/update/kl_div_dual/avg": 0.0004, "ppo_actor/update/importance_weight/avg": 1.0,
    },
    "torchtune-ppo": {
        "scores": 0.5, "rlhf_reward": 0.48, "kl": 2.0, "kl_reward": -0.02, "loss": 0.1, "policy_loss": 0.05, "value_loss": 0.1,
        "clipfrac": 0.05, "ratios": 1.0, "approx_policy_kl": 0.01, "response_lengths": 40.0,
    },
    "trlx-ppo": {
        "policy/sqrt_kl": 0.3, "policy/kl_per_token": 0.05, "kl_ctl_value": 0.1, "rollout_scores/mean": 0.5, "time/rollout_time": 3.0,
    },
    "deepspeed-chat-ppo": {"reward": 0.5, "actor_loss": 0.1, "actor_loss_sum": 0.1, "critic_loss": 0.2, "critic_loss_sum": 0.2},
    "transformers": HF,
}  # fmt: skip
"""By what a person calls the trainer."""

CLASSES: Mapping[str, str] = {
    "trl-gmpo": "GMPOTrainer",
    "trl-rloo": "RLOOTrainer",
    "trl-dpo": "DPOTrainer",
}
"""Of the trainers whose keys others log too, so that only the class tells."""
