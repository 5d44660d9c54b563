"""PPO and GRPO of AReaL."""

from klaudit.exchange.frameworks.framework import (
    Arguments,
    Framework,
    Series,
    Settled,
    change_series,
    describe_reference,
    describe_token_kl,
)

KL_REWARDS = "ppo_actor/kl_rewards/avg"


def _settle_areal(series: Series, arguments: Arguments, _version: str | None) -> Settled:
    if arguments.get("ref"):
        return Settled(series)
    # actor.py lines 192-194: without a reference engine its log-probabilities are taken as 0.
    note = "no reference engine is known of; without one kl_rewards is -kl_ctl x log policy and no KL, so its kind is unknown"
    return Settled(change_series(series, {KL_REWARDS}, kind="unknown", estimator="unknown", direction="unknown"), (note,))


AREAL = Framework(
    name="areal",
    algorithm="ppo",
    title="AReaL",
    source=(
        "areal 1.0.4 areal/trainer/ppo/actor.py lines 191-203, 292-297, 1045-1063; utils/data.py lines 1619-1656; "
        "utils/functional/functional.py line 548"
    ),
    detected_by=(frozenset({KL_REWARDS}),),
    prefix="",
    series={
        KL_REWARDS: describe_reference("k1", "nats_per_token"),
        "ppo_actor/update/kl_div_direct/avg": describe_token_kl("mismatch", "k1", direction="forward"),
        "ppo_actor/update/kl_div_dual/avg": describe_token_kl("mismatch", "k3", direction="forward"),
    },
    series_keys={"ppo_actor/update/kl_div_direct/avg": "kl_mismatch_k1", "ppo_actor/update/kl_div_dual/avg": "kl_mismatch"},
    optional=frozenset({"ppo_actor/update/kl_div_direct/avg", "ppo_actor/update/kl_div_dual/avg"}),
    estimator_arguments={KL_REWARDS: "actor.kl_estimator"},
    temperature_argument="gconfig.temperature",
    clamps={KL_REWARDS: 10.0},
    score=("ppo_actor/task_reward/avg",),
    beta_arguments=("actor.kl_ctl",),
    beta_multiples={KL_REWARDS: -1.0},
    metrics={
        "ppo_actor/update/entropy/avg": "entropy",
        "ppo_actor/update/clip_ratio/avg": "clip_fraction",
        "ppo_actor/update/importance_weight/avg": "ratio",
        "ppo_actor/update/approx_kl/avg": "log_ratio_new_to_old",
    },
    find_places=lambda _: {KL_REWARDS: "reward"},
    settle=_settle_areal,
    notes=(
        "no KL is logged as such: klaudit divides kl_rewards by -kl_ctl, and needs the arguments for that",
        "approx_kl is mean log(new / old), the opposite sign of an update KL, and is kept as log_ratio_new_to_old",
    ),
)
