"""PPO of TRL: the trainer of 0.12 to 1.12, and the one before it."""

import math
from collections.abc import Mapping

from klaudit.exchange.frameworks.framework import (
    Arguments,
    Framework,
    Series,
    Settled,
    describe_reference,
    describe_token_kl,
    find_argument,
    find_number,
)

AVERAGES = (
    "policy/approxkl_avg",
    "policy/clipfrac_avg",
    "policy/entropy_avg",
    "loss/policy_avg",
    "loss/value_avg",
    "val/clipfrac_avg",
    "val/ratio",
)
"""What TRL averages over slots that it did not fill (ppo_trainer.py lines 632-638, 889-897)."""


def find_ppo_scales(arguments: Arguments) -> Mapping[str, float]:
    """The share of TRL's statistics that it fills: ceil(G/M) of G slots a minibatch, the others stay 0 and are averaged with the rest.

    G is `gradient_accumulation_steps`, M `num_mini_batches` (TRL 1.12.0 trl/experimental/ppo/ppo_trainer.py: slots of line 631, filled
    in lines 816-868, averaged in lines 889-897).
    """
    accumulated, mini_batches = find_number(arguments, "gradient_accumulation_steps"), find_number(arguments, "num_mini_batches")
    if accumulated is None or mini_batches is None or accumulated <= 1 or mini_batches <= 1:
        return {}
    return dict.fromkeys(AVERAGES, math.ceil(accumulated / mini_batches) / accumulated)


def _settle_ppo(series: Series, arguments: Arguments, _version: str | None) -> Settled:
    notes = []
    scales = find_ppo_scales(arguments)
    if scales:
        notes.append(
            f"TRL averages {', '.join(scales)} over slots that it did not fill and logs {scales['val/ratio']:.3g} of their value; "
            "klaudit divides that out (val/ratio_var stays as TRL logs it)"
        )
    if find_argument(arguments, "stop_token") is None and "stop_token" in arguments and find_argument(arguments, "stop_token_id") is None:
        notes.append("no stop_token is set, so a response runs on after its end and its KL counts what follows")
    return Settled(series, tuple(notes))


TRL_PPO = Framework(
    name="trl",
    algorithm="ppo",
    title="TRL PPO 0.12 to 1.12",
    source="TRL 1.12.0 trl/experimental/ppo/ppo_trainer.py lines 774-776, 855-897",
    checked="run",
    page="trl-ppo",
    detected_by=(frozenset({"objective/kl", "policy/approxkl_avg"}), frozenset({"objective/kl", "objective/scores"})),
    excluded_by=frozenset({"rewards/chosen", "objective/kl_coef"}),
    trainer_classes=frozenset({"PPOTrainer", "PPOv2Trainer"}),
    argument_names=frozenset({"kl_coef", "cliprange_value", "num_ppo_epochs"}),
    series={
        "objective/kl": describe_reference("k1", "nats_per_sequence"),
        # Mean over padded positions too (line 857), so the aggregation is not a token mean.
        "policy/approxkl_avg": describe_token_kl("update", "k2", direction="forward", aggregation="unknown"),
    },
    series_keys={"policy/approxkl_avg": "kl_update"},
    estimator_arguments={"objective/kl": "kl_estimator"},
    score=("objective/scores",),
    beta_arguments=("kl_coef",),
    penalty="objective/non_score_reward",
    penalised="objective/kl",
    metrics={
        "objective/rlhf_reward": "rlhf_reward",
        "objective/non_score_reward": "kl_penalty",
        "objective/entropy": "entropy_per_sequence",
        "policy/entropy_avg": "entropy",
        "policy/clipfrac_avg": "clip_fraction",
        "val/ratio": "ratio",
        "loss/policy_avg": "policy_loss",
        "loss/value_avg": "value_loss",
        "lr": "learning_rate",
    },
    # The code has -kl_coef * kl (line 776); klaudit's kl_penalty is beta * kl.
    negated=frozenset({"objective/non_score_reward"}),
    find_scales=find_ppo_scales,
    find_places=lambda _: {"objective/kl": "reward"},
    settle=_settle_ppo,
    # Set by DefaultFlowCallback and never read: only an exception stops it (research/trainers.md 1.3).
    reads_should_stop=False,
)


def _settle_legacy_ppo(series: Series, arguments: Arguments, _version: str | None) -> Settled:
    if find_argument(arguments, "kl_penalty") not in ("abs", "mse"):
        return Settled(series)
    return Settled(series, ("the KL penalty is not the KL: its mean over samples is above KL(policy || reference)",))


TRL_LEGACY_PPO = Framework(
    name="trl",
    algorithm="ppo",
    title="TRL PPO up to 0.11",
    slug="trl-ppo-0.11",
    source="TRL 0.11.4 trl/trainer/ppo_trainer.py lines 1150-1164, 1255-1256, 1300-1328",
    page="trl-ppo",
    detected_by=(frozenset({"objective/kl", "objective/kl_coef"}), frozenset({"objective/kl", "ppo/mean_scores"})),
    argument_names=frozenset({"init_kl_coef", "adap_kl_ctrl"}),
    prefix="",
    series={
        "objective/kl": describe_reference("k1", "nats_per_sequence"),
        "ppo/policy/approxkl": describe_token_kl("update", "k2", direction="forward"),
        "ppo/policy/policykl": describe_token_kl("update", "k1", direction="forward"),
    },
    series_keys={"ppo/policy/approxkl": "kl_update", "ppo/policy/policykl": "kl_update_k1"},
    optional=frozenset({"ppo/policy/approxkl", "ppo/policy/policykl"}),
    estimator_arguments={"objective/kl": "kl_penalty"},
    # Sampling is the user's own call of generate(); the trainer scores at temperature 1.
    temperature_argument=None,
    score=("ppo/mean_scores",),
    beta=("objective/kl_coef",),
    beta_arguments=("init_kl_coef",),
    metrics={
        "objective/entropy": "entropy_per_sequence",
        "ppo/policy/entropy": "entropy",
        "ppo/policy/clipfrac": "clip_fraction",
        "ppo/policy/ratio": "ratio",
        "ppo/loss/policy": "policy_loss",
        "ppo/loss/value": "value_loss",
        "ppo/learning_rate": "learning_rate",
        "tokens/responses_len_mean": "response_length",
    },
    settle=_settle_legacy_ppo,
    notes=(
        "the user's own code samples: a temperature, top_k or top_p other than 1, 0 and 1 there biases objective/kl, which is scored at 1",
    ),
)
