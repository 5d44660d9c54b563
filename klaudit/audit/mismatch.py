"""Which of a run's numbers say how far the engine that samples and the trainer that scores are apart."""

import math
from collections.abc import Mapping

from klaudit.audit.observation import complete_reading
from klaudit.records import KLSeries, Run, StepRecord
from klaudit.records.series import Estimator, sort_keys

MISMATCH_ORDER: tuple[Estimator, ...] = ("full", "k3", "k1", "k2")
"""Best first. By an unknown estimator it may be no KL: NeMo-RL's policy_kl_error weighs its samples the wrong way round."""

LOGPROB_DIFFERENCES = (
    "sampling/sampling_logp_difference/mean",
    "train/train_rollout_logprob_abs_diff",
    "policy/rollout_train_logprobs_abs_diff_mean",
)
"""Mean |log-probability by the engine - by the trainer| over tokens, in nats: of TRL, slime and SkyRL."""

MEAN_WEIGHTS = ("sampling/importance_sampling_ratio/mean", "rollout_corr/rollout_is_mean")
"""Mean probability by the trainer over that by the engine: of TRL and verl."""


def find_mismatch_series(series: Mapping[str, KLSeries]) -> str | None:
    """Key of the best rollout-mismatch KL of known estimator and unit; None where there is none."""
    for estimator in MISMATCH_ORDER:
        for key in sort_keys(series):
            one = series[key]
            if one.kind == "mismatch" and one.estimator == estimator and one.unit != "unknown":
                return key
    return None


def read_mismatch(record: StepRecord, *, key: str, run: Run) -> float | None:
    """The step's mismatch KL in nats per token; None where it is absent, not finite, or per sequence without a length."""
    reading = record.reading(key)
    if reading is None or not reading.is_finite:
        return None
    if reading.series.unit == "nats_per_token":
        return reading.value
    completed = complete_reading(record, key=key, run=run)
    per_token = None if completed is None else completed.value_in("nats_per_token")
    return per_token if per_token is not None and math.isfinite(per_token) else None


def includes_staleness(run: Run) -> bool:
    """Whether the engine's policy is older than the trainer's by design, so that the mismatch has every update since in it."""
    return run.algorithm == "async-grpo" or run.framework == "areal"
