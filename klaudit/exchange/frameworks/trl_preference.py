"""Trainers of TRL that learn from pairs or from good and bad texts: KTO, DPO and its relatives, and those that sample the pairs."""

from klaudit.exchange.frameworks.framework import (
    Arguments,
    Framework,
    Series,
    Settled,
    change_series,
    describe_log_ratio,
    describe_moving_reference,
    describe_reference,
    describe_truncated_sampling,
    find_argument,
    find_number,
)
from klaudit.records import KLSeries

PAIRS = frozenset({"rewards/chosen", "rewards/margins", "logps/chosen"})
IMPLICIT_DRIFT = "implicit_drift"
"""Series key of rewards/chosen / beta."""
IMPLICIT_DRIFT_NOTE = (
    "rewards/chosen / beta is recorded as implicit_drift: mean log(policy / reference) on the data set's chosen texts, in nats per sequence; "
    "the policy did not sample them, so it is no KL and is compared with no budget"
)


def _settle_kto(series: Series, arguments: Arguments, _version: str | None) -> Settled:
    notes = describe_moving_reference(arguments)
    if find_argument(arguments, "loss_type") == "apo_zero_unpaired":
        notes = (*notes, "this loss has no KL term, so kl is a constant 0")
    return Settled(series, notes)


TRL_KTO = Framework(
    name="trl",
    algorithm="kto",
    title="TRL KTO",
    source="TRL 1.16.0 trl/trainer/kto_trainer.py lines 1442-1446, 1459, 1484",
    checked="run",
    page="trl-kto",
    detected_by=(frozenset({"kl", "rewards/chosen", "logps/chosen"}), frozenset({"kl", "rewards/rejected", "logps/rejected"})),
    trainer_classes=frozenset({"KTOTrainer"}),
    argument_classes=frozenset({"KTOConfig"}),
    argument_names=frozenset({"desirable_weight", "undesirable_weight"}),
    series={
        "kl": KLSeries(kind="baseline", estimator="k1", unit="nats_per_sequence", aggregation="batch_mean", direction="unknown"),
        "rewards/chosen": describe_log_ratio(),
    },
    series_keys={"rewards/chosen": IMPLICIT_DRIFT},
    optional=frozenset({"rewards/chosen"}),
    temperature_argument=None,
    is_window_mean=True,
    beta_arguments=("beta",),
    beta_multiples={"rewards/chosen": 1.0},
    settle=_settle_kto,
    notes=(
        "kl is the baseline of KTO's loss: log(policy / reference) of each prompt with another prompt's text, cut off at 0; it is no drift",
        IMPLICIT_DRIFT_NOTE,
    ),
)

TRL_DPO = Framework(
    name="trl",
    algorithm="dpo",
    title="TRL DPO",
    source="TRL 1.16.0 trl/trainer/dpo_trainer.py lines 1581-1587",
    checked="run",
    page="trl-dpo",
    detected_by=(PAIRS,),
    excluded_by=frozenset({"kl", "objective/kl", "loss/kl", "nll_loss", "log_odds_ratio", "delta"}),
    trainer_classes=frozenset({"DPOTrainer"}),
    argument_classes=frozenset({"DPOConfig"}),
    argument_names=frozenset({"precompute_ref_log_probs", "ld_alpha"}),
    series={"rewards/chosen": describe_log_ratio()},
    series_keys={"rewards/chosen": IMPLICIT_DRIFT},
    temperature_argument=None,
    is_window_mean=True,
    beta_arguments=("beta",),
    beta_multiples={"rewards/chosen": 1.0},
    settle=lambda series, arguments, _: Settled(series, describe_moving_reference(arguments)),
    notes=(IMPLICIT_DRIFT_NOTE, "only a live probe, or measuring the checkpoints, gives the KL to the reference"),
)

TRL_BCO = Framework(
    name="trl",
    algorithm="bco",
    title="TRL BCO (up to 1.13)",
    source="TRL 1.13.0 trl/experimental/bco/bco_trainer.py line 1259",
    page="trl-dpo",
    detected_by=(frozenset({"rewards/chosen", "delta", "logps/chosen"}),),
    trainer_classes=frozenset({"BCOTrainer"}),
    argument_classes=frozenset({"BCOConfig"}),
    series={"rewards/chosen": describe_log_ratio()},
    series_keys={"rewards/chosen": IMPLICIT_DRIFT},
    temperature_argument=None,
    is_window_mean=True,
    beta_arguments=("beta",),
    beta_multiples={"rewards/chosen": 1.0},
    notes=(IMPLICIT_DRIFT_NOTE,),
)

REFERENCE_FREE_NOTE = "this trainer has no reference: rewards/chosen is beta x log policy, not a log-ratio, so there is no drift in it"

TRL_REFERENCE_FREE = Framework(
    name="trl",
    algorithm="reference-free",
    title="TRL CPO, ORPO, TPO",
    source=("TRL 1.16.0 trl/experimental/cpo/cpo_trainer.py lines 742-746; orpo/orpo_trainer.py line 699; tpo/tpo_trainer.py line 759"),
    page="trl-dpo",
    detected_by=(PAIRS,),
    excluded_by=frozenset({"kl", "objective/kl", "loss/kl", "delta"}),
    trainer_classes=frozenset({"CPOTrainer", "ORPOTrainer", "TPOTrainer"}),
    argument_classes=frozenset({"CPOConfig", "ORPOConfig", "TPOConfig"}),
    temperature_argument=None,
    is_window_mean=True,
    beta_arguments=("beta",),
    notes=(REFERENCE_FREE_NOTE,),
)


def _settle_online_dpo(series: Series, arguments: Arguments, _version: str | None) -> Settled:
    notes = describe_truncated_sampling(arguments)
    temperature = find_number(arguments, "temperature")
    if temperature is not None and temperature != 1:
        notes = (
            *notes,
            f"texts are sampled at temperature {temperature:g} and scored at 1, so objective/kl is a biased k1 and no temperature is recorded",
        )
    return Settled(series, notes)


TRL_ONLINE_DPO = Framework(
    name="trl",
    algorithm="online-dpo",
    title="TRL OnlineDPO (experimental)",
    source="TRL 1.16.0 trl/experimental/online_dpo/online_dpo_trainer.py lines 1139, 1270-1278, 1295, 1340-1342",
    checked="run",
    page="trl-online-dpo",
    detected_by=(frozenset({"objective/kl", "rewards/chosen", "val/contain_eos_token"}),),
    excluded_by=frozenset({"policy/approxkl_avg", "alpha", "mixture_coef"}),
    trainer_classes=frozenset({"OnlineDPOTrainer"}),
    argument_classes=frozenset({"OnlineDPOConfig"}),
    series={"objective/kl": describe_reference("k1", "nats_per_sequence", aggregation="unknown")},
    temperature_argument=None,
    is_window_mean=True,
    score=("objective/scores",),
    beta=("beta",),
    beta_arguments=("beta",),
    penalty="objective/non_score_reward",
    penalised="objective/kl",
    metrics={
        "objective/rlhf_reward": "rlhf_reward",
        "objective/non_score_reward": "kl_penalty",
        "objective/entropy": "entropy_per_sequence",
        "val/contain_eos_token": "eos_fraction",
    },
    negated=frozenset({"objective/non_score_reward"}),
    settle=_settle_online_dpo,
    notes=("objective/kl also counts the padding after a text's end, so it reads off where texts end early; its aggregation is unknown",),
)

TRL_XPO = Framework(
    name="trl",
    algorithm="xpo",
    title="TRL XPO (up to 1.13)",
    source="TRL 1.13.0 trl/experimental/xpo/xpo_trainer.py lines 398-401, 424-425",
    page="trl-online-dpo",
    detected_by=(frozenset({"objective/kl", "alpha", "rewards/chosen"}),),
    trainer_classes=frozenset({"XPOTrainer"}),
    argument_classes=frozenset({"XPOConfig"}),
    series={"objective/kl": KLSeries(kind="unknown", unit="nats_per_sequence", aggregation="unknown", direction="unknown")},
    temperature_argument=None,
    is_window_mean=True,
    beta=("beta",),
    beta_arguments=("beta",),
    metrics={"objective/entropy": "entropy_per_sequence", "val/model_contain_eos_token": "eos_fraction"},
    notes=(
        "objective/kl is half of log(policy / reference) on the policy's texts plus half of it on the reference's, "
        "about (KL(policy || reference) - KL(reference || policy)) / 2: it may be negative, and is no KL",
    ),
)


def _settle_nash_md(series: Series, arguments: Arguments, _version: str | None) -> Settled:
    temperature = find_number(arguments, "temperature")
    if temperature is None or temperature == 1:
        return Settled(series)
    note = f"texts are sampled at temperature {temperature:g} and scored at 1, so loss/kl is a biased k1 and no temperature is recorded"
    return Settled(change_series(series, {"loss/kl"}, aggregation="unknown"), (note,))


TRL_NASH_MD = Framework(
    name="trl",
    algorithm="nash-md",
    title="TRL Nash-MD (up to 1.13)",
    source="TRL 1.13.0 trl/experimental/nash_md/nash_md_trainer.py lines 376-379, 407, 442",
    page="trl-online-dpo",
    detected_by=(frozenset({"loss/kl", "mixture_coef"}),),
    trainer_classes=frozenset({"NashMDTrainer"}),
    argument_classes=frozenset({"NashMDConfig"}),
    series={"loss/kl": describe_reference("k1", "nats_per_sequence")},
    temperature_argument=None,
    is_window_mean=True,
    score=(),
    beta=("beta",),
    beta_arguments=("beta",),
    metrics={"objective/entropy": "entropy_per_sequence", "val/model_contain_eos_token": "eos_fraction"},
    settle=_settle_nash_md,
)
