"""Shards to what they say beside the KL."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import rfc8785

from klaudit.drift.contrast import contrast_slices
from klaudit.drift.interval import estimate_ratio
from klaudit.drift.plan import METHOD, ModelIdentity
from klaudit.drift.summary import list_sequences
from klaudit.records import DriftProfile, DriftShard, Interval, LayerDrift, MeasuredSequence, ReferenceModel, Retention


def build_profile(
    shards: Sequence[DriftShard],
    *,
    checkpoint: ModelIdentity,
    reference: ModelIdentity,
    settings: Mapping[str, Any],
    measured_at: datetime,
    step: int | None = None,
    run_id: str | None = None,
    retention: Retention | None = None,
    layers: Sequence[LayerDrift] = (),
) -> DriftProfile:
    """The check of the sampling and the contrasts of one checkpoint's shards, with what was measured apart from them.

    Args:
        shards: every shard of the checkpoint, in any order; some hold completions of the policy.
        checkpoint: what was measured.
        reference: against what.
        settings: from `describe_settings`.
        measured_at: with a time zone.
        step: updates done when the checkpoint was saved.
        run_id: of the run that saved it.
        retention: from `Executor.measure_retention`.
        layers: from `klaudit.models.parameters.compare_layers`.
    """
    sampled = list_sequences(shards, sampler="policy")
    return DriftProfile(
        checkpoint=checkpoint.name,
        reference=ReferenceModel(name=reference.name, digest=reference.digest),
        measured_at=measured_at,
        key=_derive_key(shards, retention=retention),
        ratio=measure_mean_ratio(sampled),
        run_id=run_id,
        step=step,
        checkpoint_digest=checkpoint.digest,
        retention=retention,
        layers=tuple(layers),
        contrasts=contrast_slices(sampled),
        shards=tuple(shard.key for shard in shards),
        settings=settings,
    )


def measure_mean_ratio(sequences: Sequence[MeasuredSequence]) -> Interval:
    """Mean of reference(token) / policy(token) over the policy's sampled tokens, with an interval over prompts.

    Each token's ratio has mean 1 given its prefix, as long as the policy that is scored is the one that was sampled from; prompts are not
    weighted, since the mean is 1 in each. Of a policy that has left the reference far behind the ratio is heavy-tailed: look at the interval.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        totals = [float(np.exp(np.subtract(one.reference_logprobs, one.policy_logprobs)).sum()) for one in sequences]
    mean = estimate_ratio(totals, sizes=[float(len(one)) for one in sequences], clusters=[one.prompt for one in sequences], floor=0.0)
    return Interval(mean.value, mean.low, mean.high)


def _derive_key(shards: Sequence[DriftShard], *, retention: Retention | None) -> str:
    content: Any = {
        "method": METHOD,
        "shards": sorted(shard.key for shard in shards),
        "retention": None if retention is None else retention.text_digest,
    }
    return "sha256:" + hashlib.sha256(rfc8785.dumps(content)).hexdigest()
