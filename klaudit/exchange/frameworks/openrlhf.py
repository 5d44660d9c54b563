"""PPO, REINFORCE++, RLOO and GRPO of OpenRLHF, which log the same keys."""

from klaudit.exchange.frameworks.framework import (
    Arguments,
    Framework,
    Place,
    Series,
    Settled,
    change_series,
    describe_reference,
    describe_token_kl,
    find_argument,
    find_number,
)
from klaudit.records.series import Aggregation


def _settle_openrlhf(series: Series, arguments: Arguments, _version: str | None) -> Settled:
    notes = []
    if find_number(arguments, "algo.kl.init_coef") == 0:
        notes.append("algo.kl.init_coef is 0, so no reference is loaded: kl is a constant 0 and says nothing")
    if find_argument(arguments, "algo.kl.use_loss"):
        is_by_sequence = find_argument(arguments, "actor.loss_agg_mode") == "seq-mean-token-mean"
        aggregation: Aggregation = "batch_mean" if is_by_sequence else "token_mean"
        series = change_series(series, {"kl"}, aggregation=aggregation)
        notes.append("kl is the KL of the loss: of the policy while it moves, on samples of the old one")
    if find_argument(arguments, "algo.kl.target"):
        notes.append("beta is adaptive and not logged, so it is not recorded; its target is compared with a KL in nats per token")
    return Settled(series, tuple(notes))


def _find_places(arguments: Arguments) -> dict[str, Place]:
    if not find_argument(arguments, "algo.kl.use_loss"):
        return {"kl": "reward"}
    return {} if find_argument(arguments, "algo.kl.unbiased_gradient") else {"kl": "loss"}


OPENRLHF = Framework(
    name="openrlhf",
    algorithm="ppo",
    title="OpenRLHF",
    source=(
        "OpenRLHF 0.11.2 openrlhf/models/utils.py lines 69-116; trainer/ppo_utils/experience_maker.py lines 205-227; "
        "trainer/ray/ppo_actor.py lines 312-334; models/loss.py lines 228-258"
    ),
    checked="logger",
    page="openrlhf",
    detected_by=(frozenset({"ppo_kl", "ppo_clip_ratio"}),),
    series={
        # Means over tokens of each sequence, then over sequences (experience_maker.py line 215).
        "kl": describe_reference("k1", "nats_per_token", aggregation="batch_mean"),
        "ppo_kl": describe_token_kl("update", "k1", direction="forward"),
        "vllm_kl": describe_token_kl("mismatch", "k1", direction="forward"),
    },
    series_keys={"ppo_kl": "kl_update", "vllm_kl": "kl_mismatch"},
    optional=frozenset({"vllm_kl"}),
    estimator_arguments={"kl": "algo.kl.estimator"},
    temperature_argument="rollout.temperature",
    clamps={"kl": 10.0},
    score=("reward",),
    beta_arguments=("algo.kl.init_coef",),
    adaptive_argument="algo.kl.target",
    metrics={
        "return": "rlhf_reward",
        "score": "filter_score",
        "ppo_clip_ratio": "clip_fraction",
        "entropy_loss": "entropy",
        "actor_lr": "learning_rate",
        "actor_grad_norm": "grad_norm",
        "critic_loss": "value_loss",
    },
    find_places=_find_places,
    settle=_settle_openrlhf,
    notes=("where no reference is loaded, kl is a constant 0; beta is not among the keys",),
)
