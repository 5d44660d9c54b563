"""One small invented run. Every number is a closed formula of the step, so that expectations can be worked out by hand.

`python -m tests.report.invented` writes the golden files again; read the difference before you keep it.
"""

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from klaudit.records import (
    Checkpoint,
    DriftMeasurement,
    DriftProfile,
    Interval,
    KLBudget,
    KLReading,
    KLSeries,
    LayerDrift,
    ReferenceModel,
    Retention,
    Run,
    SliceContrast,
    StepRecord,
    TextSample,
    TokenScore,
)
from klaudit.report import FORMATS, Report, build_report, render_report
from klaudit.report.views.drift_profile import SliceLimits, view_profiles

START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
SERIES = {
    "kl": KLSeries(estimator="full", unit="nats_per_sequence", aggregation="batch_mean", temperature=1.0, source_key="objective/kl_full"),
    "kl_k1": KLSeries(estimator="k1", unit="nats_per_sequence", aggregation="batch_mean", temperature=1.0),
    "kl_k3": KLSeries(estimator="k3", unit="nats_per_sequence", aggregation="batch_mean", temperature=1.0),
    "kl_update": KLSeries(kind="update", estimator="k2", unit="nats_per_token", aggregation="token_mean"),
}
LIMITS = SliceLimits(significance=0.01, ratio=2.0, least_nats=1e-3)
REFERENCE = ReferenceModel("tiny-reference", "sha256:" + "ab" * 32)


@dataclass(frozen=True)
class Invented:
    """Everything that a report is built from."""

    run: Run
    steps: tuple[StepRecord, ...]
    audit: dict[str, Any]
    budgets: tuple[KLBudget, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    drift: tuple[DriftMeasurement, ...] = ()
    profiles: tuple[DriftProfile, ...] = ()
    samples: tuple[TextSample, ...] = field(default=())

    def report(self) -> Report:
        return build_report(
            run=self.run,
            steps=self.steps,
            audit=self.audit,
            budgets=self.budgets,
            checkpoints=self.checkpoints,
            drift=self.drift,
            profiles=view_profiles(self.profiles, limits=LIMITS),
            samples=self.samples,
            generated_at=START + timedelta(hours=2),
            klaudit_version="0.1.0",
        )


def kl_at(step: int) -> float:
    """KL per sequence before update `step`: quadratic in the updates done, NaN at step 5."""
    return math.nan if step == 5 else 0.1 * (step - 1) ** 2


def invent_step(step: int, *, n_steps: int) -> StepRecord:
    value, share = kl_at(step), step / n_steps

    def read(key: str, factor: float, error: float | None) -> KLReading:
        return KLReading(SERIES[key], factor * value, standard_error=error, n_sequences=16, mean_length=20.0)

    return StepRecord(
        step=step,
        kl=read("kl", 1.0, 0.05 * step),
        logged_at=START + timedelta(seconds=12 * step),
        beta=0.05,
        score=share,
        readings={
            "kl_k1": read("kl_k1", 0.75, None),
            "kl_k3": read("kl_k3", 1.25, 0.1 * step),
            "kl_update": KLReading(SERIES["kl_update"], 0.004),
        },
        metrics={
            "heldout_score": 0.5 * share,
            "kl_penalty": 0.05 * value,
            "rlhf_reward": share - 0.05 * value,
            "entropy": 2.5 - share,
            "clip_fraction": 0.125,
            "response_length": 20.0,
            "eos_fraction": 0.75,
            "distinct_2": 1.0 - 0.5 * share,
            "grad_norm": 1.5,
        },
    )


def invent_finding(code: str, rule: str, *, step: int, last_step: int | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"{code.lower()}-{step}",
        "code": code,
        "rule": rule,
        "rule_version": 1,
        "severity": "warning",
        "status": "ended",
        "segment": 0,
        "series": "kl",
        "first_step": step,
        "detected_step": step,
        "last_step": step if last_step is None else last_step,
        "value": None,
        "threshold": None,
        "unit": "nats_per_sequence",
        "message": f"Something happened at step {step}",
        "remedy": "Look at it",
        "evidence": {},
    } | changes


def invent_drift(step: int, estimator: str, value: float) -> DriftMeasurement:
    series = KLSeries(estimator=estimator, unit="nats_per_sequence", aggregation="batch_mean", temperature=1.0)  # type: ignore[arg-type]
    return DriftMeasurement(
        checkpoint=f"checkpoint-{step}",
        reference=REFERENCE,
        series=series,
        value=value,
        low=value - 0.5,
        high=value + 0.5,
        n_sequences=64,
        mean_length=20.0,
        measured_at=START + timedelta(hours=1),
        run_id="r1",
        step=step,
        settings={"seed": 0, "n_prompts": 16, "max_new_tokens": 24},
    )


def invent_profile(step: int, *, slice: str = "trigger") -> DriftProfile:
    """A checkpoint that left the reference on one of two slices."""
    return DriftProfile(
        checkpoint=f"checkpoint-{step}",
        reference=REFERENCE,
        measured_at=START + timedelta(hours=1),
        key="sha256:" + "ef" * 32,
        ratio=Interval(1.0, 0.875, 1.125),
        run_id="r1",
        step=step,
        retention=Retention(
            "passages",
            "sha256:" + "aa" * 32,
            Interval(3.5, 3.375, 3.625),
            Interval(3.25, 3.125, 3.375),
            Interval(0.25, 0.1875, 0.3125),
            900,
            30,
        ),
        layers=(LayerDrift("embedding", 0, 0.0625, 4096), LayerDrift("layer 0", 1, 0.125, 1024), LayerDrift("head", 2, 0.03125, 4096)),
        contrasts=(
            SliceContrast("reviews", Interval(0.0625, 0.03125, 0.125), Interval(0.5, 0.25, 0.75), Interval(0.125, 0.0625, 0.25), 0.0001, 8),
            SliceContrast(slice, Interval(0.5, 0.25, 0.75), Interval(0.0625, 0.03125, 0.125), Interval(8.0, 4.0, 16.0), 0.0001, 8),
        ),
        shards=("sha256:" + "0a" * 32,),
    )


def invent_run(n_steps: int = 12, *, name: str = "tiny-run", prompt: str = "This film is") -> Invented:
    run = Run(
        id="r1",
        name=name,
        started_at=START,
        status="finished",
        finished_at=START + timedelta(minutes=10),
        algorithm="ppo",
        framework="klaudit",
        policy="tiny-policy",
        reference=REFERENCE,
        batch_size=16,
        beta=0.05,
        planned_steps=n_steps,
        series=SERIES,
        config={"learning_rate": 1e-5, "seed": 0},
    )
    broken = invent_finding(
        "KLA101", "budget_exceeded", step=n_steps, severity="critical", value=kl_at(n_steps), threshold=10.0, status="open"
    ) | {
        "message": f"KL to reference (full) is {kl_at(n_steps):.2f} nats/sequence, over the budget of 10 nats/sequence",
        "remedy": "Raise beta, or stop the run and take an earlier checkpoint",
    }
    not_finite = invent_finding("KLA303", "non_finite", step=5, value="NaN", message="KL is NaN at step 5", remedy="Look at that batch")
    audit = {
        "schema_version": 1,
        "run": {"id": "r1", "name": name},
        "policy": {"name": "default", "version": 1, "digest": "sha256:" + "cd" * 32},
        "governing_series": {"key": "kl", "kind": "reference", "estimator": "full", "unit": "nats_per_sequence"},
        "coverage": {
            "steps": n_steps,
            "kl_measured": n_steps - 1,
            "gaps": 0,
            "non_finite": 1,
            "rules_not_run": [{"code": "KLA609", "why": "no prompt slices were measured"}],
        },
        "verdict": "fail",
        "findings": [not_finite, broken],
    }
    tokens = (TokenScore(" a", -1.0, -1.25, 0.25), TokenScore(" wonderful", -0.5, -3.0, 2.5), TokenScore(" film", -1.0, -0.75, 0.0625))
    saved = (n_steps // 2, n_steps)
    return Invented(
        run=run,
        steps=tuple(invent_step(step, n_steps=n_steps) for step in range(1, n_steps + 1)),
        audit=audit,
        budgets=(KLBudget(10.0, unit="nats_per_sequence", run_id="r1", owner="R. Lead", reason="agreed before training"),),
        checkpoints=tuple(Checkpoint("r1", step, f"out/checkpoint-{step}", START + timedelta(minutes=step)) for step in saved),
        drift=tuple(
            invent_drift(step, estimator, factor * 0.1 * step**2)
            for step in saved
            for estimator, factor in (("full", 1.0), ("k1", 0.75), ("k3", 1.25))
        ),
        profiles=(invent_profile(n_steps),),
        samples=(TextSample(step=n_steps, prompt=prompt, completion=" a wonderful film", tokens=tokens, score=0.5),),
    )


if __name__ == "__main__":
    for one in FORMATS:
        (Path(__file__).parents[1] / "golden" / f"report.{one}").write_text(
            render_report(invent_run().report(), format=one), encoding="utf-8"
        )
