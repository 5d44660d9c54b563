"""One row a run, kept with every batch of steps, so that a list of runs costs by runs and not by steps; also the lock on a run's steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, func, insert, select, update

from klaudit.errors import RunNotFound
from klaudit.records import PRIMARY, UNDECLARED, KLReading, KLSeries, Run, RunSummary, StepRecord, find_governing_series
from klaudit.store.floats import join_float, split_float
from klaudit.store.presence import describe_missing_run
from klaudit.store.rollups import LEVELS
from klaudit.store.tables import rollups, run_summaries, segments

_LOCK = select(run_summaries).where(run_summaries.c.run_id == bindparam("id")).with_for_update()
_UPDATE = update(run_summaries).where(run_summaries.c.run_id == bindparam("id"))


def find_kl_key(series: Mapping[str, KLSeries]) -> str:
    """Key of the KL that a run's summary shows."""
    return find_governing_series(series) or PRIMARY


def create_summary(connection: Connection, run_id: str, series: Mapping[str, KLSeries]) -> None:
    """Begin the summary of a new run."""
    row = {"n_steps": 0, "n_kl_measured": 0, "n_non_finite": 0, "n_lost": 0, "kl_key": find_kl_key(series), "rollup_keys": []}
    connection.execute(insert(run_summaries), row | {"run_id": run_id})


def lock_summary(connection: Connection, run_id: str) -> RowMapping:
    """A run's summary, held against other writers of the run until the transaction ends.

    Raises:
        RunNotFound: no run has this id.
    """
    row = connection.execute(_LOCK, {"id": run_id}).mappings().first()
    if row is None:
        raise RunNotFound(f"{describe_missing_run(connection, run_id)}. Add the run before its steps")
    return row


def advance_summary(
    connection: Connection,
    summary: RowMapping,
    *,
    records: Sequence[StepRecord],
    values: Sequence[Mapping[str, float]],
    series: Mapping[str, KLSeries],
    keys: Sequence[str],
) -> None:
    """Add new steps to a run's summary.

    Args:
        connection: that holds the lock on the summary, and has written the steps' roll-ups.
        summary: as `lock_summary` gave it.
        records: the new steps, at least one.
        values: the numbers of each.
        series: of the run.
        keys: that the run rolls up.
    """
    kl_key = find_kl_key(series)
    n_measured = sum(math.isfinite(one.get(kl_key, math.nan)) for one in values)
    is_same = kl_key == summary["kl_key"]
    changes: dict[str, Any] = {
        "n_steps": summary["n_steps"] + len(records),
        # Another series may govern now than when the earlier steps were counted; the roll-ups hold these steps too.
        "n_kl_measured": summary["n_kl_measured"] + n_measured if is_same else _count_measured(connection, summary["run_id"], kl_key),
        "n_non_finite": summary["n_non_finite"] + sum(not all(map(math.isfinite, one.values())) for one in values),
        "kl_key": kl_key,
    }
    first, last = min(records, key=find_place), max(records, key=find_place)
    if summary["first_step"] is None or find_place(first) < (summary["first_segment"], summary["first_step"]):
        changes |= {"first_segment": first.segment, "first_step": first.step}
    if summary["last_step"] is None or find_place(last) > (summary["last_segment"], summary["last_step"]):
        changes |= describe_last_step(last, kl_key, series)
    if len(keys) != len(summary["rollup_keys"]):
        changes["rollup_keys"] = list(keys)
    connection.execute(_UPDATE, changes | {"id": summary["run_id"]})


def govern_summary(connection: Connection, summary: RowMapping, *, last: StepRecord | None, series: Mapping[str, KLSeries]) -> None:
    """Show the KL that governs now that series were declared again.

    Args:
        connection: that holds the lock on the summary.
        summary: as `lock_summary` gave it.
        last: the run's last step.
        series: of the run.
    """
    kl_key = find_kl_key(series)
    changes: dict[str, Any] = {"kl_key": kl_key}
    if last is not None:
        changes |= describe_last_step(last, kl_key, series) | {"n_kl_measured": _count_measured(connection, summary["run_id"], kl_key)}
    connection.execute(_UPDATE, changes | {"id": summary["run_id"]})


def count_lost(connection: Connection, run_id: str) -> None:
    """Bring a run's lost steps up to date with its segments."""
    lost = select(func.coalesce(func.sum(segments.c.n_lost), 0)).where(segments.c.run_id == run_id).scalar_subquery()
    connection.execute(update(run_summaries).where(run_summaries.c.run_id == run_id).values(n_lost=lost))


def to_summary(run: Run, row: RowMapping, n_findings: Mapping[str, int]) -> RunSummary:
    """The record of a row of `run_summaries`."""
    series = run.series.get(row["kl_key"], UNDECLARED)
    reading = (
        KLReading(
            series=series,
            value=join_float(row["last_kl"], row["last_kl_kind"]),
            standard_error=join_float(row["last_kl_se"], row["last_kl_se_kind"]),
            n_sequences=row["last_n_sequences"],
            mean_length=join_float(row["last_mean_length"], row["last_mean_length_kind"]),
            not_measured=row["last_kl_not_measured"],
        )
        if row["last_step"] is not None
        else None
    )
    return RunSummary(
        run=run,
        n_steps=row["n_steps"],
        last_step=row["last_step"],
        last_logged_at=row["last_logged_at"],
        last_kl=reading,
        last_beta=join_float(row["last_beta"], row["last_beta_kind"]),
        last_score=join_float(row["last_score"], row["last_score_kind"]),
        n_findings=n_findings,
        n_kl_measured=row["n_kl_measured"],
        n_non_finite=row["n_non_finite"],
        n_lost=row["n_lost"],
    )


def find_place(record: StepRecord) -> tuple[int, int]:
    """Where a step stands in its run."""
    return (record.segment, record.step)


def describe_last_step(record: StepRecord, kl_key: str, series: Mapping[str, KLSeries]) -> dict[str, Any]:
    """The columns of `run_summaries` that are about a run's last step."""
    reading = record.reading(kl_key) or KLReading.absent(series.get(kl_key, UNDECLARED), f"step {record.step} has no {kl_key}")
    return {
        "last_segment": record.segment,
        "last_step": record.step,
        "last_logged_at": record.logged_at,
        **split_float("last_kl", reading.value),
        **split_float("last_kl_se", reading.standard_error),
        "last_kl_not_measured": reading.not_measured,
        "last_n_sequences": reading.n_sequences,
        **split_float("last_mean_length", reading.mean_length),
        **split_float("last_beta", record.beta),
        **split_float("last_score", record.score),
    }


def _count_measured(connection: Connection, run_id: str, kl_key: str) -> int:
    where = (rollups.c.run_id == run_id, rollups.c.key == kl_key, rollups.c.level == max(LEVELS))
    return connection.scalar(select(func.coalesce(func.sum(rollups.c.n), 0)).where(*where)) or 0
