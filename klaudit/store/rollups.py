"""Buckets of steps, kept at write time: a chart of a million steps reads a few hundred rows, and no spike is lost in them."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import isfinite
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, func, select, text

from klaudit.records import PRIMARY, RollUp, StepRecord
from klaudit.store.engine import Database
from klaudit.store.tables import rollups, run_summaries, steps

LEVELS = (64, 1024)
"""Steps a bucket."""

MAX_KEYS = 256
"""Keys of a run that are rolled up, the first that it logs; of the others there are the steps alone."""

MAX_KEY_LENGTH = 255
"""Letters of a key that is rolled up."""

_get_value = itemgetter(0)

_COLUMNS = [column for column in rollups.columns if column.name != "run_id"]
"""In the order of the fields of RollUp."""

_UPSERT = text("""
    INSERT INTO rollups (run_id, key, level, segment, bucket, n, min, min_step, max, max_step, total, n_non_finite, first_step, last_step)
    VALUES (:run_id, :key, :level, :segment, :bucket, :n, :min, :min_step, :max, :max_step, :total, :n_non_finite, :first_step, :last_step)
    ON CONFLICT (run_id, key, level, segment, bucket) DO UPDATE SET
        n = rollups.n + excluded.n,
        min_step = CASE WHEN rollups.min <= excluded.min OR excluded.min IS NULL THEN rollups.min_step ELSE excluded.min_step END,
        min = CASE WHEN rollups.min <= excluded.min OR excluded.min IS NULL THEN rollups.min ELSE excluded.min END,
        max_step = CASE WHEN rollups.max >= excluded.max OR excluded.max IS NULL THEN rollups.max_step ELSE excluded.max_step END,
        max = CASE WHEN rollups.max >= excluded.max OR excluded.max IS NULL THEN rollups.max ELSE excluded.max END,
        total = CASE WHEN abs(rollups.total) < 8e307 AND abs(excluded.total) < 8e307 THEN rollups.total + excluded.total END,
        n_non_finite = rollups.n_non_finite + excluded.n_non_finite,
        first_step = CASE WHEN rollups.first_step < excluded.first_step THEN rollups.first_step ELSE excluded.first_step END,
        last_step = CASE WHEN rollups.last_step > excluded.last_step THEN rollups.last_step ELSE excluded.last_step END
""")


class RollUpRepository:
    """Roll-ups of the runs of one store; `StepRepository.add_all` writes them, at most `MAX_KEYS` keys a run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, run_id: str, key: str, level: int, *, segment: int | None = None) -> list[RollUp]:
        """Buckets of one key in order of segment and step.

        Args:
            run_id: of the run.
            key: `kl`, a key of the readings, `beta`, `score` or a metric's name.
            level: one of `LEVELS`.
            segment: only this one.
        """
        query = select(*_COLUMNS).where(rollups.c.run_id == run_id, rollups.c.key == key, rollups.c.level == level)
        if segment is not None:
            query = query.where(rollups.c.segment == segment)
        with self._database.reading() as connection:
            return [RollUp(*row) for row in connection.execute(query.order_by(rollups.c.segment, rollups.c.bucket))]

    def list_broken(self, run_id: str, keys: Collection[str]) -> list[tuple[int, int]]:
        """Segments and buckets, at the finest level, in which one of the keys is NaN or infinite, or a step has no primary KL; in order."""
        level = min(LEVELS)
        where = (rollups.c.run_id == run_id, rollups.c.key.in_(keys), rollups.c.level == level, rollups.c.n_non_finite > 0)
        bucket = (steps.c.step // level).label("bucket")
        unmeasured = select(steps.c.segment, bucket).where(steps.c.run_id == run_id, steps.c.kl_kind.is_(None)).distinct()
        n_kl = select(func.sum(rollups.c.n + rollups.c.n_non_finite))
        n_kl = n_kl.where(rollups.c.run_id == run_id, rollups.c.key == PRIMARY, rollups.c.level == max(LEVELS))
        with self._database.reading() as connection:
            found = {(row.segment, row.bucket) for row in connection.execute(select(rollups.c.segment, rollups.c.bucket).where(*where))}
            n_steps = connection.scalar(select(run_summaries.c.n_steps).where(run_summaries.c.run_id == run_id))
            # Looks at every step, so only where one is known to be there.
            if PRIMARY in keys and (connection.scalar(n_kl) or 0) < (n_steps or 0):
                found |= {(row.segment, row.bucket) for row in connection.execute(unmeasured)}
        return sorted(found)


def list_values(record: StepRecord) -> dict[str, float]:
    """The numbers of a step by their roll-up's key: the readings first, then beta and score, then the metrics that are named otherwise."""
    own = {PRIMARY: record.kl.value, **{key: one.value for key, one in record.readings.items()}, "beta": record.beta, "score": record.score}
    values = {key: float(value) for key, value in own.items() if value is not None}
    return values | {name: float(value) for name, value in record.metrics.items() if name not in own}


def roll_up(run_id: str, batch: Iterable[tuple[int, int, Mapping[str, float]]], keys: Iterable[str]) -> list[dict[str, Any]]:
    """Rows of `rollups` of a batch, at every level.

    Args:
        run_id: of the run.
        batch: segment, step and values of each step, in order.
        keys: that are rolled up.
    """
    wanted, finest = set(keys), min(LEVELS)
    points: dict[tuple[int, int], dict[str, list[tuple[float, int]]]] = {}
    for segment, step, values in batch:
        bucket = points.setdefault((segment, step // finest), defaultdict(list))
        for key, value in values.items():
            if key in wanted:
                bucket[key].append((value, step))
    rows = []
    for level in LEVELS:
        buckets: dict[tuple[int, int], dict[str, list[tuple[float, int]]]] = {}
        for (segment, number), by_key in points.items():
            bucket = buckets.setdefault((segment, number * finest // level), defaultdict(list))
            for key, inside in by_key.items():
                bucket[key] += inside
        for (segment, number), by_key in buckets.items():
            place = {"run_id": run_id, "level": level, "segment": segment, "bucket": number}
            rows += [{**place, "key": key, **_sum_up(inside)} for key, inside in by_key.items()]
    return rows


def _sum_up(points: Sequence[tuple[float, int]]) -> dict[str, Any]:
    total = sum(map(_get_value, points))
    # A sum that is finite has only finite terms.
    finite = points
    if not isfinite(total):
        finite = [point for point in points if isfinite(point[0])]
        total = sum(map(_get_value, finite))
    low: tuple[float | None, int | None] = (None, None)
    high = low
    if finite:
        # Of equal values the first that comes, which is that of the lowest step.
        low, high = min(finite, key=_get_value), max(finite, key=_get_value)
    return {
        "n": len(finite),
        "min": low[0],
        "min_step": low[1],
        "max": high[0],
        "max_step": high[1],
        "total": total if isfinite(total) else None,
        "n_non_finite": len(points) - len(finite),
        "first_step": points[0][1],
        "last_step": points[-1][1],
    }


def extend_keys(known: Sequence[str], batch: Iterable[Mapping[str, float]]) -> list[str]:
    """The keys that a run rolls up, with those that a batch brings; at most `MAX_KEYS`."""
    keys = dict.fromkeys(known)
    for values in batch:
        for key in values:
            if key not in keys and len(keys) < MAX_KEYS and _can_be_key(key):
                keys[key] = None
    return list(keys)


def write_rollups(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add what `roll_up` made to the buckets, within a transaction of the caller's, who holds the lock on the run."""
    if rows:
        connection.execute(_UPSERT, rows)


def _can_be_key(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return len(name) <= MAX_KEY_LENGTH and "\0" not in name
