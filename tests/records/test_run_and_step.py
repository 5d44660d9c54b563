from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from klaudit.errors import InvalidRecord
from klaudit.records import (
    Alert,
    Checkpoint,
    DriftMeasurement,
    KLReading,
    KLSeries,
    ReferenceModel,
    Run,
    Segment,
    Severity,
    StepRecord,
)

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
NAIVE = datetime(2026, 11, 22, 10)  # noqa: DTZ001 - what records refuse
SERIES = KLSeries(estimator="full", unit="nats_per_sequence")
READING = KLReading(SERIES, 0.5)


def measure(**changes: Any) -> DriftMeasurement:
    fields: dict[str, Any] = {
        "checkpoint": "checkpoint-1",
        "reference": ReferenceModel("base"),
        "series": SERIES,
        "value": 1.0,
        "low": 0.5,
        "high": 1.5,
        "n_sequences": 8,
        "mean_length": 16.0,
        "measured_at": NOW,
    }
    return DriftMeasurement(**{**fields, **changes})


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a run without a name": (lambda: Run("id", " ", NOW), "Run.name must not be empty"),
    "a run of unknown status": (lambda: Run("id", "a", NOW, status="lost"), "got 'lost'"),  # type: ignore[arg-type]
    "a run that began in no time zone": (lambda: Run("id", "a", NAIVE), "Run.started_at must carry a time zone"),
    "a run that ended in no time zone": (lambda: Run("id", "a", NOW, finished_at=NAIVE), "Run.finished_at must carry a time zone"),
    "an empty batch": (lambda: Run("id", "a", NOW, batch_size=0), "Run.batch_size must be 1 or more; got 0"),
    "a segment before the first": (lambda: Segment("id", -1, NOW), "Segment.index and .n_lost must be 0 or more; got index=-1"),
    "a segment that began in no time zone": (lambda: Segment("id", 0, NAIVE), "Segment.started_at must carry a time zone"),
    "a negative step": (lambda: StepRecord(-1, READING, NOW), "whole number from 0 to 2^63 - 1; got -1 of type int"),
    "a negative segment": (lambda: StepRecord(1, READING, NOW, segment=-2), "StepRecord.segment must be 0 or more; got -2"),
    "a second primary reading": (lambda: StepRecord(1, READING, NOW, readings={"kl": READING}), "must not hold 'kl'"),
    "a step in no time zone": (lambda: StepRecord(1, READING, NAIVE), "StepRecord.logged_at must carry a time zone"),
    "a reference without a name": (lambda: ReferenceModel(""), "ReferenceModel.name must not be empty"),
    "a digest of another kind": (lambda: ReferenceModel("a", "md5:00"), "64 hex digits; got 'md5:00'"),
    "a digest that is too short": (lambda: Checkpoint("id", 1, "p", NOW, digest="sha256:ab"), "got 'sha256:ab'"),
    "a checkpoint before the first step": (lambda: Checkpoint("id", -1, "p", NOW), "Checkpoint.step must be 0 or more; got -1"),
    "a checkpoint that lies nowhere": (lambda: Checkpoint("id", 1, "", NOW), "Checkpoint.path must not be empty"),
    "an interval beside its value": (lambda: measure(low=1.1), "low <= value <= high; got 1.1, 1.0, 1.5"),
    "a measurement of nothing": (lambda: measure(n_sequences=0), "n_sequences must be 1 or more; got 0"),
    "a measurement in no time zone": (lambda: measure(measured_at=NAIVE), "DriftMeasurement.measured_at must carry a time zone"),
    "an alert of unknown delivery": (
        lambda: Alert("i", "r", "f", Severity.INFO, 1, "t", "x", "console", NOW, delivery="lost"),  # type: ignore[arg-type]
        "Alert.delivery must be one of pending, delivered, failed; got 'lost'",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_record_refuses_what_it_cannot_hold_and_says_what_came(what: str) -> None:
    make, message = REFUSED[what]
    with pytest.raises(InvalidRecord) as caught:
        make()
    assert message in str(caught.value)


def test_an_interval_of_numbers_that_are_not_finite_is_kept() -> None:
    assert measure(value=float("nan"), low=float("nan"), high=float("nan")).n_sequences == 8


def test_a_step_finds_its_readings_by_key() -> None:
    k1 = KLReading(KLSeries(estimator="k1", unit="nats_per_sequence"), 0.4)
    step = StepRecord(1, READING, NOW, readings={"kl_k1": k1})
    assert step.reading("kl") is READING
    assert step.reading("kl_k1") is k1
    assert step.reading("kl_k3") is None


def test_the_governing_key_is_that_of_the_best_reference_series() -> None:
    k1 = KLSeries(estimator="k1", unit="nats_per_sequence")
    assert Run("id", "a", NOW, series={"kl": k1, "kl_full": SERIES}).governing_key == "kl_full"
    assert Run("id", "a", NOW).governing_key is None
