"""The embedded PPO trainer."""

from klaudit.exchange.frameworks.framework import Framework, describe_reference, describe_token_kl

KLAUDIT_PPO = Framework(
    name="klaudit",
    algorithm="ppo",
    title="klaudit PPO",
    source="klaudit/ppo/trainer.py",
    checked="run",
    page="klaudit-ppo",
    detected_by=(frozenset({"kl_full", "kl_k1"}),),
    series={
        "kl_full": describe_reference("full", "nats_per_sequence"),
        "kl_k1": describe_reference("k1", "nats_per_sequence"),
        "kl_k3": describe_reference("k3", "nats_per_sequence"),
        "kl_update": describe_token_kl("update", "full", direction="forward"),
    },
    prefix="",
    standard_error_suffix="_se",
    score=("score",),
    beta=("beta",),
    ignored=frozenset(),
)
