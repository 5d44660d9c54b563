"""slime."""

from klaudit.exchange.frameworks.framework import (
    Arguments,
    Framework,
    Place,
    Series,
    Settled,
    change_series,
    describe_moving_reference,
    describe_reference,
    describe_token_kl,
    find_argument,
    find_number,
)

IN_REWARD = "rollout/kl"


def _settle_slime(series: Series, arguments: Arguments, _version: str | None) -> Settled:
    notes = []
    if not find_number(arguments, "kl_coef"):
        # A constant 0 where no KL is taken off the reward (loss.py lines 742-746), which is the default.
        series = {key: one for key, one in series.items() if key != IN_REWARD}
        if find_argument(arguments, "use_kl_loss") is False:
            notes.append("kl_coef is 0 and use_kl_loss is off, so no KL to the reference is logged")
    if find_argument(arguments, "kl_loss_type") == "low_var_kl":
        notes.append("each token's estimate is cut off at 10 nats on both sides")
    if find_argument(arguments, "use_unbiased_kl"):
        notes.append("each token's estimate is multiplied by policy / old policy")
    notes += describe_moving_reference(arguments)
    if find_argument(arguments, "calculate_per_token_loss"):
        series = change_series(series, {"train/kl_loss", "train/ppo_kl"}, aggregation="token_mean")
    return Settled(series, tuple(notes))


def _find_places(arguments: Arguments) -> dict[str, Place]:
    if find_argument(arguments, "use_kl_loss") and not find_argument(arguments, "use_unbiased_kl"):
        return {IN_REWARD: "reward", "train/kl_loss": "loss"}
    return {IN_REWARD: "reward"}


SLIME = Framework(
    name="slime",
    algorithm="grpo",
    title="slime",
    source=(
        "THUDM/slime 624b824a slime/backends/megatron_utils/loss.py lines 742-756, 1098-1153; slime/utils/ppo_utils.py lines 12-51; "
        "slime/observability/train_metric_utils.py lines 186-214"
    ),
    detected_by=(frozenset({"train/ppo_kl", "train/pg_clipfrac"}),),
    prefix="",
    series={
        # A mean over all tokens of the responses, masked ones too.
        IN_REWARD: describe_reference("k1", "nats_per_token", aggregation="unknown"),
        "train/kl_loss": describe_reference("k1", "nats_per_token", aggregation="batch_mean"),
        "train/ppo_kl": describe_token_kl("update", "k1", direction="forward", aggregation="batch_mean"),
    },
    series_keys={"train/ppo_kl": "kl_update"},
    optional=frozenset({"train/kl_loss", IN_REWARD}),
    estimator_arguments={"train/kl_loss": "kl_loss_type", IN_REWARD: "kl_loss_type"},
    temperature_argument="rollout_temperature",
    score=("rollout/raw_reward",),
    beta_arguments=("kl_coef", "kl_loss_coef"),
    metrics={
        "rollout/response_lengths": "response_length",
        "train/entropy_loss": "entropy",
        "train/pg_clipfrac": "clip_fraction",
        "train/pg_loss": "policy_loss",
        "train/grad_norm": "grad_norm",
    },
    find_places=_find_places,
    settle=_settle_slime,
)
