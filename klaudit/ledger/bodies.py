"""What an entry says of a record: the part that nobody may change without another entry. A store's rows are compared with the same words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from klaudit.ledger.canonical import digest_canonical
from klaudit.ledger.merkle import merkle_root
from klaudit.ledger.spans import encode_spans, span_steps
from klaudit.records import Checkpoint, DriftMeasurement, DriftProfile, Finding, KLBudget, KLSeries, Run, Segment, StepRecord
from klaudit.records.moment import format_moment


def describe_run(run: Run) -> dict[str, Any]:
    """Body of `run_opened`; the configuration as a digest, because it may be long."""
    return {
        "name": run.name,
        "framework": run.framework,
        "algorithm": run.algorithm,
        "policy": run.policy,
        "reference": run.reference.name if run.reference else None,
        "reference_digest": run.reference.digest if run.reference else None,
        "batch_size": run.batch_size,
        "beta": run.beta,
        "planned_steps": run.planned_steps,
        "started_at": format_moment(run.started_at),
        "config_digest": digest_canonical("klaudit-config/1", run.config),
        "identity_digest": digest_identity(run.identity),
    }


def digest_identity(identity: Mapping[str, Any] | None) -> str | None:
    """Digest of what trained and was trained; None where it was not said."""
    return None if identity is None else digest_canonical("klaudit-identity/1", identity)


def describe_segment(segment: Segment) -> dict[str, Any]:
    """Body of `segment_began`; leases and heartbeats come and go without an entry."""
    return {
        "segment": segment.index,
        "started_at": format_moment(segment.started_at),
        "host": segment.host,
        "pid": segment.pid,
        "process_started": segment.process_started,
        "session": segment.session,
        "resumed_from_step": segment.resumed_from_step,
        "reference_digest": segment.reference_digest,
        "ended_at": None if segment.ended_at is None else format_moment(segment.ended_at),
        "n_lost": segment.n_lost,
        "lost_first_step": segment.lost_first_step,
        "lost_last_step": segment.lost_last_step,
        "lost_reason": segment.lost_reason,
    }


def describe_series(series: KLSeries) -> dict[str, Any]:
    """One of the `series` of a `series_declared`."""
    return {
        "kind": series.kind,
        "estimator": series.estimator,
        "unit": series.unit,
        "aggregation": series.aggregation,
        "direction": series.direction,
        "temperature": series.temperature,
        "source_key": series.source_key,
    }


def describe_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """Body of `checkpoint`."""
    return {
        "segment": checkpoint.segment,
        "step": checkpoint.step,
        "path": checkpoint.path,
        "saved_at": format_moment(checkpoint.saved_at),
        "digest": checkpoint.digest,
    }


def describe_budget(budget: KLBudget, *, removed_at: datetime | None = None) -> dict[str, Any]:
    """Body of `budget_set`."""
    return {
        "budget": budget.id,
        "run": budget.run_id,
        "match": budget.match,
        "limit": budget.limit,
        "unit": budget.unit,
        "scope": budget.scope,
        "window_steps": budget.window_steps,
        "on": budget.on,
        "action": budget.action,
        "owner": budget.owner,
        "reason": budget.reason,
        "created_at": None if budget.created_at is None else format_moment(budget.created_at),
        "removed_at": None if removed_at is None else format_moment(removed_at),
    }


def digest_measurement(measurement: DriftMeasurement) -> str:
    """One of the `measurements` of a `drift_measured`: `sha256:` and 64 hex digits over everything that the store keeps of it."""
    described = {
        "run": measurement.run_id,
        "step": measurement.step,
        "checkpoint": measurement.checkpoint,
        "checkpoint_digest": measurement.checkpoint_digest,
        "reference": measurement.reference.name,
        "reference_digest": measurement.reference.digest,
        "slice": measurement.slice,
        "series": describe_series(measurement.series),
        "value": float(measurement.value),
        "low": float(measurement.low),
        "high": float(measurement.high),
        "n_sequences": measurement.n_sequences,
        "mean_length": float(measurement.mean_length),
        "measured_at": format_moment(measurement.measured_at),
        "settings": measurement.settings,
    }
    return digest_canonical("klaudit-drift/1", described)


def digest_profile(profile: DriftProfile) -> str:
    """`profile` of a `drift_measured`: `sha256:` and 64 hex digits over everything that the store keeps of it."""
    described = {
        "run": profile.run_id,
        "step": profile.step,
        "checkpoint": profile.checkpoint,
        "checkpoint_digest": profile.checkpoint_digest,
        "reference": profile.reference.name,
        "reference_digest": profile.reference.digest,
        "key": profile.key,
        "ratio": asdict(profile.ratio),
        "retention": None if profile.retention is None else asdict(profile.retention),
        "layers": [asdict(one) for one in profile.layers],
        "contrasts": [asdict(one) for one in profile.contrasts],
        "shards": list(profile.shards),
        "measured_at": format_moment(profile.measured_at),
        "settings": profile.settings,
    }
    return digest_canonical("klaudit-drift-profile/1", described)


def describe_batch(records: Sequence[StepRecord], *, leaves: Sequence[bytes], n_samples: int) -> dict[str, Any]:
    """Body of `steps`, for steps of one segment.

    Args:
        records: at least one, rising.
        leaves: of each, by `hash_step`.
        n_samples: text samples that are stored with them.

    Raises:
        InvalidRecord: no steps, or something that JSON cannot hold.
    """
    root = merkle_root(leaves)
    spans = span_steps(one.step for one in records)
    return {
        "segment": records[0].segment,
        "first_step": records[0].step,
        "last_step": records[-1].step,
        "spans": encode_spans(spans),
        "n_steps": len(records),
        "root": root,
        "n_samples": n_samples,
    }


def describe_stop(finding: Finding) -> dict[str, Any]:
    """Body of `stopped`, but for the segment: a finding whose budget ended the training, and the last step before that."""
    budget = dict(finding.evidence["budget"])
    return {"step": finding.last_step, "finding": finding.id, "code": finding.code, "why": finding.message, "budget": budget}


def describe_audit(*, policy: Mapping[str, str], n_steps: int, verdict: str, n_findings: Mapping[str, int]) -> dict[str, Any]:
    """Body of `audited`: which policy judged how many steps, and what came of it.

    Args:
        policy: its `name`, `version` and `digest`.
        n_steps: that were judged.
        verdict: `pass`, `warn` or `fail`.
        n_findings: by severity.
    """
    return {"policy": dict(policy), "n_steps": n_steps, "verdict": verdict, "n_findings": dict(n_findings)}
