"""Measured drift of checkpoints from their reference."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from sqlalchemy import RowMapping, insert, select

from klaudit.ledger.bodies import digest_measurement
from klaudit.records import DriftMeasurement, ReferenceModel
from klaudit.records.ledger import LedgerDraft
from klaudit.store.engine import Database
from klaudit.store.floats import join_float, split_float
from klaudit.store.ledger import LedgerRepository, settle_json
from klaudit.store.presence import require_run
from klaudit.store.series import from_series_columns, to_series_columns
from klaudit.store.tables import drift_measurements

PLAIN_FIELDS = ("run_id", "step", "checkpoint", "checkpoint_digest", "slice", "n_sequences", "measured_at", "settings")
FLOAT_FIELDS = ("value", "low", "high", "mean_length")


class DriftRepository:
    """Drift measurements of one store."""

    def __init__(self, database: Database, ledger: LedgerRepository) -> None:
        self._database = database
        self._ledger = ledger

    def add_all(self, measurements: Sequence[DriftMeasurement]) -> None:
        """Store measurements, all or none; earlier ones of the same checkpoint stay.

        Raises:
            RunNotFound: a measurement names a run that is not there.
        """
        if not measurements:
            return
        with self._database.writing() as connection:
            for run_id in {one.run_id for one in measurements if one.run_id is not None}:
                require_run(connection, run_id)
            connection.execute(insert(drift_measurements), [_to_drift_row(one) for one in measurements])
            self._ledger.append(connection, _draft_entries(measurements))

    def list(self, run_id: str | None) -> list[DriftMeasurement]:
        """Measurements of a run, or of checkpoints of no run, by step and in the order in which they were made."""
        query = select(drift_measurements).where(drift_measurements.c.run_id == run_id)
        query = query.order_by(drift_measurements.c.step, drift_measurements.c.id)
        with self._database.reading() as connection:
            return [from_drift_row(row) for row in connection.execute(query).mappings()]


def _draft_entries(measurements: Sequence[DriftMeasurement]) -> list[LedgerDraft]:
    """One entry for each checkpoint."""
    drafts = []
    for (run_id, checkpoint), group in groupby(measurements, key=lambda one: (one.run_id, one.checkpoint)):
        digests = [digest_measurement(replace(one, settings=settle_json(one.settings))) for one in group]
        drafts.append(LedgerDraft("drift_measured", {"checkpoint": checkpoint, "measurements": digests}, run_id))
    return drafts


def _to_drift_row(measurement: DriftMeasurement) -> dict[str, Any]:
    row = {name: getattr(measurement, name) for name in PLAIN_FIELDS}
    for name in FLOAT_FIELDS:
        row |= split_float(name, getattr(measurement, name))
    reference = measurement.reference
    return row | to_series_columns(measurement.series) | {"reference_name": reference.name, "reference_digest": reference.digest}


def from_drift_row(row: RowMapping) -> DriftMeasurement:
    """The measurement that a row of `drift_measurements` holds."""
    floats: dict[str, Any] = {name: join_float(row[name], row[f"{name}_kind"]) for name in FLOAT_FIELDS}
    return DriftMeasurement(
        **{name: row[name] for name in PLAIN_FIELDS},
        **floats,
        series=from_series_columns(row),
        reference=ReferenceModel(row["reference_name"], row["reference_digest"]),
    )
