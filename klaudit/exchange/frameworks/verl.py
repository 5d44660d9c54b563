"""PPO and GRPO of verl, with the KL in the reward or in the loss."""

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
from klaudit.records.series import Aggregation, Unit

IN_REWARD, IN_LOSS = "actor/reward_kl_penalty", "actor/kl_loss"
LOSS_MODES: dict[str, tuple[Unit, Aggregation]] = {
    "token-mean": ("nats_per_token", "token_mean"),
    "seq-mean-token-mean": ("nats_per_token", "batch_mean"),
    "seq-mean-token-sum": ("nats_per_sequence", "batch_mean"),
}
"""`loss_agg_mode` -> what actor/kl_loss is; other modes make a number of no unit that klaudit knows (core_algos.py lines 1170-1204)."""


def _settle_verl(series: Series, arguments: Arguments, _version: str | None) -> Settled:
    in_reward = find_argument(arguments, "algorithm.use_kl_in_reward")
    in_loss = find_argument(arguments, "actor_rollout_ref.actor.use_kl_loss")
    # One that is switched off is never logged, and would else be taken for the better of the two.
    off = {key for key, use in ((IN_REWARD, in_reward), (IN_LOSS, in_loss)) if use is False}
    series = {key: one for key, one in series.items() if key not in off}
    notes = []
    if len(off) == 2:
        notes.append("use_kl_in_reward and use_kl_loss are both off, so no reference is loaded and no KL to it is logged")
    if IN_LOSS in series:
        mode = find_argument(arguments, "actor_rollout_ref.actor.loss_agg_mode") or "token-mean"
        unit, aggregation = LOSS_MODES.get(str(mode), ("unknown", "unknown"))
        series = change_series(series, {IN_LOSS}, unit=unit, aggregation=aggregation)
        if (find_number(arguments, "actor_rollout_ref.actor.ppo_epochs") or 1) > 1:
            notes.append("actor/kl_loss is a mean over the passes of an update, of the moving policy on samples of the old one")
    if in_reward and find_argument(arguments, "algorithm.kl_ctrl.type") == "adaptive":
        target = find_number(arguments, "algorithm.kl_ctrl.target_kl")
        goal = "the target" if target is None else f"the target {target:g}"
        notes.append(f"beta is adaptive, and {goal} is compared with a KL in nats per token, not per sequence as in Ziegler et al. 2019")
    return Settled(series, tuple(notes))


VERL = Framework(
    name="verl",
    algorithm="ppo",
    title="verl",
    source=(
        "verl 0.9.1 verl/trainer/ppo/ray_trainer.py lines 78-117; workers/utils/losses.py lines 131-142; "
        "trainer/ppo/core_algos.py lines 1254-1258, 2188-2247; trainer/ppo/rollout_corr_helper.py lines 955-966"
    ),
    checked="logger",
    page="verl",
    detected_by=(
        frozenset({"actor/ppo_kl"}),
        frozenset({IN_REWARD}),
        frozenset({IN_LOSS}),
        frozenset({"critic/score/mean", "response_length/mean"}),
    ),
    prefix="",
    series={
        # Means over tokens of each sequence, then over sequences (line 106).
        IN_REWARD: describe_reference("k1", "nats_per_token", aggregation="batch_mean"),
        IN_LOSS: describe_reference("k3", "nats_per_token"),
        "actor/ppo_kl": describe_token_kl("update", "k1", direction="forward"),
        "rollout_corr/kl": describe_token_kl("mismatch", "k1", direction="forward"),
        "rollout_corr/k3_kl": describe_token_kl("mismatch", "k3", direction="forward"),
    },
    series_keys={"actor/ppo_kl": "kl_update", "rollout_corr/kl": "kl_mismatch_k1", "rollout_corr/k3_kl": "kl_mismatch"},
    optional=frozenset({IN_REWARD, IN_LOSS, "actor/ppo_kl", "rollout_corr/kl", "rollout_corr/k3_kl"}),
    estimator_arguments={IN_REWARD: "algorithm.kl_penalty", IN_LOSS: "actor_rollout_ref.actor.kl_loss_type"},
    temperature_argument="actor_rollout_ref.rollout.temperature",
    clamps={IN_REWARD: 10.0, IN_LOSS: 10.0},
    clamped_estimators=frozenset({"k3"}),
    score=("critic/score/mean",),
    beta=("actor/reward_kl_penalty_coeff", "actor/kl_coef"),
    beta_arguments=("actor_rollout_ref.actor.kl_loss_coef",),
    metrics={
        "critic/rewards/mean": "rlhf_reward",
        "response_length/mean": "response_length",
        "actor/entropy": "entropy",
        "actor/pg_clipfrac": "clip_fraction",
        "actor/pg_loss": "policy_loss",
        "critic/vf_loss": "value_loss",
        "actor/grad_norm": "grad_norm",
        "actor/lr": "learning_rate",
    },
    find_places=lambda _: {IN_REWARD: "reward", IN_LOSS: "loss"},
    settle=_settle_verl,
)
