"""Runs and steps for audits, made by fixtures that are functions."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from klaudit.records import KLReading, KLSeries, Run, StepRecord

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
FULL = KLSeries(estimator="full", unit="nats_per_sequence")
UPDATE = KLSeries(kind="update", estimator="k2", unit="nats_per_token")


@pytest.fixture(scope="session")
def build_run() -> Callable[..., Run]:
    """`build_run(**fields)`: a run whose `kl` is full in nats per sequence, with a policy-update KL in nats per token."""

    def build(**fields: Any) -> Run:
        declared: dict[str, Any] = {"id": "r1", "name": "demo", "started_at": NOW, "series": {"kl": FULL, "kl_update": UPDATE}}
        return Run(**(declared | fields))

    return build


@pytest.fixture(scope="session")
def build_step() -> Callable[..., StepRecord]:
    """`build_step(step, kl, se=, update=, **fields)`: one step; `kl` is a value of the series `series`, or None."""

    def build(
        step: int,
        kl: float | None,
        *,
        se: float | None = None,
        update: float | None = None,
        series: KLSeries = FULL,
        n_sequences: int | None = None,
        mean_length: float | None = None,
        **fields: Any,
    ) -> StepRecord:
        reading = KLReading(
            series,
            kl,
            standard_error=se,
            n_sequences=n_sequences,
            mean_length=mean_length,
            not_measured="not logged" if kl is None else None,
        )
        readings = {} if update is None else {"kl_update": KLReading(UPDATE, update, standard_error=se, mean_length=mean_length)}
        logged: dict[str, Any] = {"step": step, "kl": reading, "logged_at": NOW, "readings": readings}
        return StepRecord(**(logged | fields))

    return build
