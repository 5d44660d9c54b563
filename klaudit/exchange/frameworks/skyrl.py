"""SkyRL, with the KL in the loss (its default) or in the reward."""

from klaudit.exchange.frameworks.framework import Arguments, Framework, Series, Settled, describe_reference, find_argument

IN_REWARD, IN_LOSS = "loss/avg_kl", "policy/policy_kl"


def _settle_skyrl(series: Series, arguments: Arguments, _version: str | None) -> Settled:
    in_reward = find_argument(arguments, "trainer.algorithm.use_kl_in_reward")
    in_loss = find_argument(arguments, "trainer.algorithm.use_kl_loss")
    if in_reward is False and in_loss is False:
        return Settled(series, ("use_kl_in_reward and use_kl_loss are both off, so no KL to the reference is logged",))
    return Settled(series)


SKYRL = Framework(
    name="skyrl",
    algorithm="grpo",
    title="SkyRL",
    source=(
        "skyrl 0.3.0 skyrl/train/trainer.py lines 1391-1433; skyrl/backends/skyrl_train/workers/worker.py lines 971-1024; "
        "skyrl/backends/skyrl_train/utils/ppo_utils.py lines 88-125"
    ),
    detected_by=(frozenset({IN_REWARD}), frozenset({IN_LOSS}), frozenset({"policy/policy_entropy", "policy/policy_lr"})),
    prefix="",
    series={
        IN_REWARD: describe_reference("k3", "nats_per_token", aggregation="batch_mean"),
        IN_LOSS: describe_reference("k3", "nats_per_token", aggregation="batch_mean"),
    },
    optional=frozenset({IN_REWARD, IN_LOSS}),
    estimator_arguments={
        IN_REWARD: "trainer.algorithm.kl_estimator_type",
        IN_LOSS: "trainer.algorithm.kl_estimator_type",
    },
    temperature_argument="generator.sampling_params.temperature",
    clamps={IN_REWARD: 10.0, IN_LOSS: 10.0},
    clamped_estimators=frozenset({"k3"}),
    score=("reward/avg_raw_reward",),
    beta=("loss/kl_loss_coef",),
    beta_arguments=("trainer.algorithm.kl_loss_coef",),
    metrics={
        "policy/policy_entropy": "entropy",
        "policy/policy_lr": "learning_rate",
        "policy/policy_loss": "policy_loss",
        "generate/avg_num_tokens": "response_length",
    },
    find_places=lambda _: {IN_REWARD: "reward", IN_LOSS: "loss"},
    settle=_settle_skyrl,
    notes=("policy/response_length is the padded length of a batch, not the mean length, and is kept under its own name",),
)
