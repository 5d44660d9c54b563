"""What a report says, whatever it is written in."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from klaudit.records import Checkpoint, DriftMeasurement, Finding, KLBudget, Run, Severity, StepRecord, TextSample
from klaudit.records.non_finite import decode_float
from klaudit.report.verdict import LIMITS, describe_run, list_not_measured, state_headline, state_measured
from klaudit.report.views import DriftView, RunView, SampleView, format_count, view_drift, view_run, view_sample
from klaudit.report.views.drift_profile import CheckpointProfile

SCHEMA_VERSION = 1
MAX_POINTS = 600
"""Points a curve keeps: more than a chart of this width can show apart."""
MAX_TOKENS = 400
"""Tokens of one sampled text that are shown."""
MAX_PROMPT = 2000
"""Characters of a prompt that are shown."""


@dataclass(frozen=True, slots=True)
class Report:
    """One run, judged. Equal inputs give equal reports, to the byte."""

    klaudit_version: str
    generated_at: datetime
    run: Run
    verdict: str
    """pass, warn or fail, as the audit gave it."""
    headline: str
    measured: str
    """What was measured, on what share of steps, in which unit."""
    facts: tuple[tuple[str, str], ...]
    """Name and value, in the order of reading."""
    view: RunView
    findings: tuple[Finding, ...]
    """Worst first, then by step."""
    audit: Mapping[str, Any]
    """As `klaudit audit --json` prints it."""
    not_measured: tuple[str, ...]
    limits: tuple[str, ...]
    drift: DriftView
    profiles: tuple[CheckpointProfile, ...]
    """Slices, retention, weights and check of the sampling of the measured checkpoints; without the keys of their completions."""
    checkpoints: tuple[Checkpoint, ...]
    samples: tuple[SampleView, ...]
    samples_statement: str
    schema_version: int = SCHEMA_VERSION


def build_report(
    *,
    run: Run,
    steps: Sequence[StepRecord],
    audit: Mapping[str, Any],
    budgets: Sequence[KLBudget] = (),
    checkpoints: Sequence[Checkpoint] = (),
    drift: Sequence[DriftMeasurement] = (),
    profiles: Sequence[CheckpointProfile] = (),
    samples: Sequence[TextSample] = (),
    generated_at: datetime,
    klaudit_version: str,
) -> Report:
    """Gather what a report says.

    Args:
        audit: what `klaudit audit --json` prints.
        generated_at: with time zone.
    """
    findings = tuple(read_finding(one, run_id=run.id) for one in audit.get("findings", ()))
    view = view_run(run, steps=steps, findings=findings, budgets=budgets, checkpoints=checkpoints, max_points=MAX_POINTS)
    chosen = choose_samples(samples)
    verdict = str(audit.get("verdict", "pass"))
    return Report(
        klaudit_version=klaudit_version,
        generated_at=generated_at.astimezone(UTC),
        run=run,
        verdict=verdict,
        headline=state_headline(verdict, view=view, findings=findings),
        measured=state_measured(view),
        facts=describe_run(run, audit, n_segments=view.n_segments),
        view=view,
        findings=tuple(sorted(findings, key=lambda one: (-one.severity.rank, one.first_step, one.code, one.id))),
        audit=audit,
        not_measured=list_not_measured(audit, view),
        limits=LIMITS,
        drift=view_drift(run, measurements=drift, steps=steps, budgets=budgets, max_points=MAX_POINTS),
        profiles=tuple(replace(one, shards=()) for one in profiles),
        checkpoints=tuple(sorted(checkpoints, key=lambda one: (one.segment, one.step, one.path))),
        samples=tuple(shorten_sample(one) for one in chosen),
        samples_statement=f"showing {len(chosen)} of {format_count(len(samples), 'sampled text')}",
    )


def read_finding(data: Mapping[str, Any], *, run_id: str) -> Finding:
    """A finding out of the audit's JSON, in which numbers that are not finite are strings."""
    numbers: dict[str, Any] = {key: decode_float(data[key]) for key in ("value", "threshold") if data.get(key) is not None}
    plain = {
        key: data[key] for key in ("id", "code", "rule", "rule_version", "first_step", "detected_step", "last_step", "message", "remedy")
    }
    optional = {key: data[key] for key in ("segment", "series", "status", "unit", "evidence") if data.get(key) is not None}
    return Finding(run_id=run_id, severity=Severity(data["severity"]), **plain, **optional, **numbers)


def choose_samples(samples: Sequence[TextSample], *, n_each: int = 3) -> list[SampleView]:
    """The texts of highest KL and those of the last step, in order of segment, step and index."""
    views = [view_sample(one) for one in samples]
    order = sorted(views, key=lambda one: (one.segment, one.step, one.index))
    furthest = sorted(order, key=lambda one: -one.total_nats if not math.isnan(one.total_nats) else -math.inf)[:n_each]
    last = [one for one in order if (one.segment, one.step) == (order[-1].segment, order[-1].step)][:n_each]
    return [one for one in order if one in furthest or one in last]


def shorten_sample(sample: SampleView) -> SampleView:
    """Leave out what would make the report heavy, and say so; the total stays that of the whole text."""
    prompt = sample.prompt if len(sample.prompt) <= MAX_PROMPT else f"{sample.prompt[:MAX_PROMPT]}… ({len(sample.prompt):,} characters)"
    if len(sample.tokens) <= MAX_TOKENS:
        return replace(sample, prompt=prompt)
    tokens = sample.tokens[:MAX_TOKENS]
    label = f"{sample.label}; the first {MAX_TOKENS} tokens are shown"
    return replace(sample, prompt=prompt, tokens=tokens, completion="".join(one.text for one in tokens), label=label)
