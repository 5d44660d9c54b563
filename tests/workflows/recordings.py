"""Runs that tests record: a series of KLs, one a step."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from klaudit.alerts import Channel
from klaudit.audit import PRESETS
from klaudit.errors import AlertNotDelivered
from klaudit.records import Alert, KLBudget, KLReading, KLSeries, Run, StepRecord
from klaudit.workflows.recorder.run_recorder import RunRecorder
from klaudit.workflows.recorder.start import start_recording

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
FULL = KLSeries(estimator="full", unit="nats_per_sequence", aggregation="batch_mean")


def begin(
    url: str,
    name: str = "run",
    *,
    budgets: Sequence[KLBudget] = (),
    channels: Sequence[Channel] = (),
    resumed_from_step: int | None = None,
) -> RunRecorder:
    run = Run(id="", name=name, started_at=NOW, batch_size=16, series={"kl": FULL})
    return start_recording(url, run=run, budgets=budgets, policy=PRESETS["default"], channels=channels, resumed_from_step=resumed_from_step)


def make_step(step: int, kl: float, *, segment: int = 0, standard_error: float = 0.1) -> StepRecord:
    return StepRecord(step, KLReading(FULL, kl, standard_error, 16), NOW, segment=segment, beta=0.05, score=0.5)


def record_all(recorder: RunRecorder, kls: Iterable[float], *, first_step: int = 1) -> None:
    """Log some steps and wait until they are stored."""
    for step, kl in enumerate(kls, start=first_step):
        recorder.log(make_step(step, kl, segment=recorder.segment))
    assert recorder.flush()


@dataclass
class Collector:
    """A channel that keeps what it is given, or refuses it."""

    refusal: Exception | None = None
    alerts: list[Alert] = field(default_factory=list)
    name: ClassVar[str] = "collector"

    def deliver(self, alert: Alert) -> None:
        self.alerts.append(alert)
        if self.refusal is not None:
            raise self.refusal


REFUSED = AlertNotDelivered("nobody home")
