"""Long runs, hostile numbers, killed writers."""

import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from klaudit.audit import PRESETS
from klaudit.records import KLBudget, KLReading, KLSeries, Run, StepRecord
from klaudit.records.finding import Finding
from klaudit.store import open_store
from klaudit.workflows.audits import audit_stored_run
from klaudit.workflows.recorder.start import start_recording

pytestmark = pytest.mark.soak

SERIES = KLSeries(estimator="full", unit="nats_per_sequence")
STEPS = 20_000
KILLS = 50
BEGAN_AT = datetime(2026, 11, 22, tzinfo=UTC)


def draw_value(rng: random.Random, *, level: float) -> float:
    """Mostly a KL near `level`; now and then what a broken trainer logs."""
    if rng.random() < 0.01:
        return rng.choice([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e300])
    return level * math.exp(rng.gauss(0.0, 0.1))


def draw_step(rng: random.Random, *, step: int, segment: int) -> StepRecord:
    """One step of a run that drifts, jumps and breaks."""
    level = 0.5 + 0.5 * math.sin(step / 300) + (4.0 if step % 1000 > 990 else 0.0)
    return StepRecord(
        step=step,
        segment=segment,
        logged_at=BEGAN_AT + timedelta(seconds=step),
        kl=KLReading(SERIES, draw_value(rng, level=level), standard_error=0.05, n_sequences=16, mean_length=16.0),
        beta=0.05,
        score=draw_value(rng, level=0.5),
        metrics={"entropy": draw_value(rng, level=2.0), "learning_rate": 1e-5},
    )


def strip_status(findings: tuple[Finding, ...] | list[Finding]) -> list[tuple[object, ...]]:
    """What makes a finding, NaN-proof."""
    return sorted((one.id, one.severity, one.status, one.first_step, one.detected_step, one.last_step, repr(one.value)) for one in findings)


@pytest.mark.timeout(1800)
def test_a_long_hostile_run_is_stored_whole_and_audited_alike_live_and_afterwards(tmp_path: Path, share: float) -> None:
    rng = random.Random(7)
    url = f"sqlite:///{tmp_path}/klaudit.db"
    n_steps = round(STEPS * share)
    budget = KLBudget(2.0, "nats_per_sequence")
    run = Run(id="", name="long", started_at=BEGAN_AT, batch_size=16, series={"kl": SERIES})
    logged: list[StepRecord] = []
    for segment in range(2):
        first = 1 if segment == 0 else n_steps // 2
        recorder = start_recording(
            url,
            run=run,
            resumed_from_step=None if segment == 0 else first - 1,
            budgets=(budget,),
            policy=PRESETS["default"],
            channels=(),
        )
        for step in range(first, first + n_steps // 2):
            record = draw_step(rng, step=step, segment=segment)
            recorder.log(record)
            logged.append(record)
        recorder.close()
    with open_store(url) as store:
        assert repr(store.steps.list(recorder.run.id)) == repr(logged)
        audit = audit_stored_run(store, "long")
        assert {one.code for one in audit.findings} >= {"KLA101", "KLA201", "KLA303"}
        assert strip_status(store.findings.list(recorder.run.id)) == strip_status(audit.findings)
