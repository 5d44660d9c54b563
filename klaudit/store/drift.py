"""What was measured of checkpoints: their KLs, what stands beside them, and the sampled completions behind both."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, and_, func, insert, select

from klaudit.ledger.bodies import digest_measurement, digest_profile
from klaudit.records import DriftMeasurement, DriftProfile, DriftShard, Interval, LayerDrift, ReferenceModel, Retention, SliceContrast
from klaudit.records.ledger import LedgerDraft
from klaudit.records.non_finite import encode_json
from klaudit.store.engine import Database
from klaudit.store.floats import join_float, split_float
from klaudit.store.ledger import LedgerRepository, settle_json
from klaudit.store.presence import require_run
from klaudit.store.series import from_series_columns, to_series_columns
from klaudit.store.shards import combine_digests, digest_contents, insert_shard, read_keys, read_shards
from klaudit.store.tables import checkpoint_distances, drift_measurements, drift_profiles, runs

PLAIN_FIELDS = ("run_id", "step", "checkpoint", "checkpoint_digest", "slice", "n_sequences", "measured_at", "settings")
FLOAT_FIELDS = ("value", "low", "high", "mean_length")
PROFILE_FIELDS = ("run_id", "step", "checkpoint", "checkpoint_digest", "key", "measured_at", "settings")
RATIO_FIELDS = {"ratio": "value", "ratio_low": "low", "ratio_high": "high"}


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
        with self._database.writing() as connection:
            _require_runs(connection, measurements)
            self._insert(connection, drift_measurements, measurements, "measurements")

    def list(self, run_id: str | None) -> Sequence[DriftMeasurement]:
        """Measurements of a run, or of checkpoints of no run, by step and in the order in which they were made; both directions."""
        return self._list(drift_measurements, run_id)

    def count_measured(self) -> Mapping[str, int]:
        """How many checkpoints were measured of each run that has any, by the run's name."""
        query = (
            select(runs.c.name, func.count(drift_measurements.c.checkpoint.distinct()).label("n"))
            .join(drift_measurements, drift_measurements.c.run_id == runs.c.id)
            .group_by(runs.c.id, runs.c.name)
            .order_by(runs.c.name)
        )
        with self._database.reading() as connection:
            return {row.name: row.n for row in connection.execute(query)}

    def add_distances(self, distances: Sequence[DriftMeasurement]) -> tuple[DriftMeasurement, ...]:
        """Store KLs between checkpoints, all or none: the `reference` of each is the other checkpoint, by path.

        Returns:
            Them, in their order; in place of one that is stored already, with whatever time, the stored one.

        Raises:
            RunNotFound: a distance names a run that is not there.
        """
        with self._database.writing() as connection:
            _require_runs(connection, distances)
            self._ledger.lock(connection)
            run_ids = {one.run_id for one in distances}
            known = {_identify(one): one for run_id in run_ids for one in _read_measurements(connection, checkpoint_distances, run_id)}
            self._insert(connection, checkpoint_distances, [one for one in distances if _identify(one) not in known], "distances")
        return tuple(known.get(_identify(one), one) for one in distances)

    def list_distances(self, run_id: str | None) -> Sequence[DriftMeasurement]:
        """KLs between checkpoints of a run, or of no run, by step and in the order in which they were made."""
        return self._list(checkpoint_distances, run_id)

    def add_profile(self, profile: DriftProfile, measurements: Sequence[DriftMeasurement] = ()) -> DriftProfile:
        """Store a profile with its measurements, all or none; earlier ones of the same checkpoint stay.

        Where a profile of the same key, run, checkpoint and step is there already, as another process that measured the same stored it,
        nothing is stored.

        Args:
            profile: whose shards are stored already.
            measurements: made from the same shards, of the same checkpoint.

        Returns:
            The one that is stored: the given one, or the one that was there.

        Raises:
            RunNotFound: they name a run that is not there.
        """
        with self._database.writing() as connection:
            _require_runs(connection, [profile, *measurements])
            # Of what may be long before the lock that all writers wait for.
            contents = combine_digests(profile.shards, digest_contents(connection, profile.shards))
            self._ledger.lock(connection)
            if (known := _find_profile(connection, like=profile)) is not None:
                return known
            connection.execute(insert(drift_profiles), _to_profile_row(profile))
            if measurements:
                connection.execute(insert(drift_measurements), [_to_drift_row(one) for one in measurements])
            settled = replace(profile, settings=settle_json(profile.settings))
            body = {
                "checkpoint": profile.checkpoint,
                "measurements": _digest_all(measurements),
                "profile": digest_profile(settled),
                "contents_digest": contents,
            }
            self._ledger.append(connection, [LedgerDraft("drift_measured", body, profile.run_id)])
        return profile

    def list_profiles(self, run_id: str | None) -> Sequence[DriftProfile]:
        """Profiles of a run's checkpoints, or of checkpoints of no run, by step and in the order in which they were made."""
        query = select(drift_profiles).where(drift_profiles.c.run_id == run_id)
        query = query.order_by(drift_profiles.c.step, drift_profiles.c.id)
        with self._database.reading() as connection:
            return [from_profile_row(row) for row in connection.execute(query).mappings()]

    def find_profiles(self, key: str) -> Sequence[DriftProfile]:
        """Profiles of one key, of whatever run, the oldest first."""
        query = select(drift_profiles).where(drift_profiles.c.key == key).order_by(drift_profiles.c.id)
        with self._database.reading() as connection:
            return [from_profile_row(row) for row in connection.execute(query).mappings()]

    def add_shard(self, shard: DriftShard, *, run_id: str | None = None) -> None:
        """Store a shard; what is there under its key stays as it is.

        A shard belongs to whatever profile lists it. It goes with its run when no profile of another does.

        Args:
            shard: to store.
            run_id: of the run that it was measured for.

        Raises:
            RunNotFound: no run has this id.
        """
        with self._database.writing() as connection:
            if run_id is not None:
                require_run(connection, run_id)
            insert_shard(connection, shard, run_id)

    def list_stored(self, keys: Sequence[str]) -> frozenset[str]:
        """Which of the shards are there."""
        with self._database.reading() as connection:
            return frozenset(read_keys(connection, keys))

    def find_shards(self, keys: Sequence[str]) -> dict[str, DriftShard]:
        """Those of the shards that are there, by key.

        Raises:
            StoreError: one that cannot be read.
        """
        with self._database.reading() as connection:
            return {one.key: one for one in read_shards(connection, keys)}

    def list_shards(self, profile: DriftProfile) -> Sequence[DriftShard]:
        """The shards behind a profile, in its order; those that are there.

        Raises:
            StoreError: one that cannot be read.
        """
        found = self.find_shards(profile.shards)
        return [found[key] for key in profile.shards if key in found]

    def _insert(self, connection: Connection, table: Table, measurements: Sequence[DriftMeasurement], name: str) -> None:
        if not measurements:
            return
        connection.execute(insert(table), [_to_drift_row(one) for one in measurements])
        # One entry for each checkpoint.
        drafts = [
            LedgerDraft("drift_measured", {"checkpoint": checkpoint, name: _digest_all(group)}, run_id)
            for (run_id, checkpoint), group in groupby(measurements, key=lambda one: (one.run_id, one.checkpoint))
        ]
        self._ledger.append(connection, drafts)

    def _list(self, table: Table, run_id: str | None) -> Sequence[DriftMeasurement]:
        with self._database.reading() as connection:
            return _read_measurements(connection, table, run_id)


def _read_measurements(connection: Connection, table: Table, run_id: str | None) -> Sequence[DriftMeasurement]:
    query = select(table).where(table.c.run_id == run_id).order_by(table.c.step, table.c.id)
    return [from_drift_row(row) for row in connection.execute(query).mappings()]


def _find_profile(connection: Connection, *, like: DriftProfile) -> DriftProfile | None:
    """The stored profile of the same measurement of the same checkpoint, whenever it was made."""
    columns = drift_profiles.c
    own = and_(columns.key == like.key, columns.run_id == like.run_id, columns.checkpoint == like.checkpoint, columns.step == like.step)
    row = connection.execute(select(drift_profiles).where(own).order_by(columns.id).limit(1)).mappings().first()
    return None if row is None else from_profile_row(row)


def _identify(one: DriftMeasurement) -> str:
    """Tells measurements apart by all but their time; NaN is like NaN."""
    return json.dumps(encode_json({**asdict(one), "measured_at": None}), sort_keys=True)


def _require_runs(connection: Connection, records: Sequence[DriftMeasurement | DriftProfile]) -> None:
    """Raise RunNotFound unless the runs are there; they then stay until the transaction ends.

    To be done before the ledger is locked: who deletes a run holds it first and locks the ledger last.
    """
    run_ids = sorted({one.run_id for one in records if one.run_id is not None})
    held = select(runs.c.id).where(runs.c.id.in_(run_ids)).order_by(runs.c.id).with_for_update(read=True, key_share=True)
    present = set(connection.scalars(held)) if run_ids else set()
    for run_id in run_ids:
        if run_id not in present:
            require_run(connection, run_id)


def _digest_all(measurements: Iterable[DriftMeasurement]) -> list[str]:
    return [digest_measurement(replace(one, settings=settle_json(one.settings))) for one in measurements]


def _to_reference_columns(reference: ReferenceModel) -> dict[str, Any]:
    return {"reference_name": reference.name, "reference_digest": reference.digest}


def _to_drift_row(measurement: DriftMeasurement) -> dict[str, Any]:
    row = {name: getattr(measurement, name) for name in PLAIN_FIELDS}
    for name in FLOAT_FIELDS:
        row |= split_float(name, getattr(measurement, name))
    return row | to_series_columns(measurement.series) | _to_reference_columns(measurement.reference)


def from_drift_row(row: RowMapping) -> DriftMeasurement:
    """The measurement that a row of `drift_measurements` or `checkpoint_distances` holds."""
    floats: dict[str, Any] = {name: join_float(row[name], row[f"{name}_kind"]) for name in FLOAT_FIELDS}
    return DriftMeasurement(
        **{name: row[name] for name in PLAIN_FIELDS},
        **floats,
        series=from_series_columns(row),
        reference=ReferenceModel(row["reference_name"], row["reference_digest"]),
    )


def _to_profile_row(profile: DriftProfile) -> dict[str, Any]:
    row = {name: getattr(profile, name) for name in PROFILE_FIELDS}
    for column, name in RATIO_FIELDS.items():
        row |= split_float(column, getattr(profile.ratio, name))
    return row | {
        **_to_reference_columns(profile.reference),
        "retention": None if profile.retention is None else asdict(profile.retention),
        "layers": [asdict(one) for one in profile.layers],
        "contrasts": [asdict(one) for one in profile.contrasts],
        "shards": profile.shards,
    }


def from_profile_row(row: RowMapping) -> DriftProfile:
    """The profile that a row of `drift_profiles` holds."""
    ratio: dict[str, Any] = {name: join_float(row[column], row[f"{column}_kind"]) for column, name in RATIO_FIELDS.items()}
    return DriftProfile(
        **{name: row[name] for name in PROFILE_FIELDS},
        reference=ReferenceModel(row["reference_name"], row["reference_digest"]),
        ratio=Interval(**ratio),
        retention=None if row["retention"] is None else Retention(**_join_intervals(row["retention"])),
        layers=tuple(LayerDrift(**one) for one in row["layers"]),
        contrasts=tuple(SliceContrast(**_join_intervals(one)) for one in row["contrasts"]),
        shards=tuple(row["shards"]),
    )


def _join_intervals(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: Interval(**one) if isinstance(one, dict) else one for name, one in values.items()}
