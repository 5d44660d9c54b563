"""PPO of trlX."""

from klaudit.exchange.frameworks.framework import Framework
from klaudit.records import KLSeries

TRLX_PPO = Framework(
    name="trlx",
    algorithm="ppo",
    title="trlX PPO",
    source="CarperAI/trlx 3340c2f3 trlx/trainer/accelerate_ppo_trainer.py lines 456-460, 510-511, 519",
    detected_by=(frozenset({"policy/sqrt_kl"}),),
    prefix="",
    # A square root of mean(exp(l) - 1 - l) with l = log(policy / reference): chi-squared minus KL, over prompt tokens too.
    series={
        "policy/sqrt_kl": KLSeries(kind="unknown", direction="unknown"),
        "policy/kl_per_token": KLSeries(kind="unknown", direction="unknown"),
    },
    series_keys={"policy/kl_per_token": "sqrt_kl_per_token"},
    optional=frozenset({"policy/kl_per_token"}),
    temperature_argument=None,
    score=("rollout_scores/mean",),
    beta=("kl_ctl_value",),
    metrics={"policy/clipfrac": "clip_fraction", "ratio": "ratio"},
    notes=(
        "policy/sqrt_kl and policy/kl_per_token are square roots, and of k3 with the ratio the wrong way round (its mean is "
        "chi-squared minus KL), prompt tokens included: no KL can be had from them, so they are compared with no budget",
    ),
)
