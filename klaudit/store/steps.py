"""Steps: one row each, and the way they come back as records."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import RowMapping, func, insert, select, tuple_

from klaudit.errors import DuplicateStep, InvalidRecord, KlauditError, RunNotFound
from klaudit.records import PRIMARY, UNDECLARED, Finding, KLReading, KLSeries, StepRecord, TextSample
from klaudit.store.engine import Database
from klaudit.store.findings import write_findings
from klaudit.store.floats import join_float, split_float
from klaudit.store.samples import to_sample_row
from klaudit.store.series import SeriesRepository
from klaudit.store.tables import runs, steps, text_samples

_INSERT_STEP = insert(steps)
_INSERT_SAMPLES = insert(text_samples)


class StepRepository:
    """Steps of the runs of one store."""

    def __init__(self, database: Database, series: SeriesRepository) -> None:
        self._database = database
        self._series = series

    def add(self, run_id: str, record: StepRecord, samples: Sequence[TextSample] = (), *, findings: Sequence[Finding] = ()) -> None:
        """Store one step with its text samples, the findings that it made or revised, and the series of readings that the run had not declared; one commit.

        Raises:
            DuplicateStep: the run has that step in that segment; the stored one stays.
            RunNotFound: no run has this id.
            InvalidRecord: samples of another step, or a reading whose series is not the one declared under its key.
        """
        _require_samples_of(record, samples)
        row = _to_step_row(run_id, record)
        undeclared = self._series.find_undeclared(run_id, record)
        with self._database.writing(lambda: self._explain(run_id, record)) as connection:
            connection.execute(_INSERT_STEP, row)
            if undeclared:
                self._series.declare(connection, run_id, undeclared)
            if samples:
                connection.execute(_INSERT_SAMPLES, [to_sample_row(run_id, one) for one in samples])
            if findings:
                write_findings(connection, run_id, findings)
        if undeclared:
            self._series.remember(run_id, undeclared)

    def list(
        self, run_id: str, *, segment: int | None = None, after: tuple[int, int] | None = None, limit: int | None = None
    ) -> list[StepRecord]:
        """Steps in order of segment and step.

        Args:
            segment: only this one.
            after: the (segment, step) behind which to begin.
            limit: at most so many.
        """
        query = select(steps).where(steps.c.run_id == run_id).order_by(steps.c.segment, steps.c.step).limit(limit)
        if segment is not None:
            query = query.where(steps.c.segment == segment)
        if after is not None:
            query = query.where(tuple_(steps.c.segment, steps.c.step) > after)
        with self._database.reading() as connection:
            series = self._series.read(connection, run_id)
            return [from_step_row(row, series) for row in connection.execute(query).mappings()]

    def count(self, run_id: str) -> int:
        """How many steps the run has, over all segments."""
        with self._database.reading() as connection:
            return connection.scalar(select(func.count()).select_from(steps).where(steps.c.run_id == run_id)) or 0

    def last(self, run_id: str) -> StepRecord | None:
        """The last step of the last segment; None before the first."""
        query = select(steps).where(steps.c.run_id == run_id).order_by(steps.c.segment.desc(), steps.c.step.desc()).limit(1)
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().first()
            return None if row is None else from_step_row(row, self._series.read(connection, run_id))

    def _explain(self, run_id: str, record: StepRecord) -> KlauditError | None:
        self._series.forget(run_id)
        where = (steps.c.run_id == run_id, steps.c.segment == record.segment, steps.c.step == record.step)
        with self._database.reading() as connection:
            if connection.execute(select(steps.c.step).where(*where)).first() is not None:
                return DuplicateStep(
                    f"expected a new step of run {run_id}; segment {record.segment} has step {record.step} already, and it stays as it is. "
                    "A trainer that starts again needs a new run, one that resumes a new segment"
                )
            if connection.execute(select(runs.c.id).where(runs.c.id == run_id)).first() is None:
                return RunNotFound(f"expected the id of a run; got {run_id!r}. Add the run before its steps")
        return None


def from_step_row(row: RowMapping, series: Mapping[str, KLSeries]) -> StepRecord:
    """The record that a row of `steps` holds, its readings joined to the run's series."""
    kl = KLReading(
        series=series.get(PRIMARY, UNDECLARED),
        value=join_float(row["kl"], row["kl_kind"]),
        standard_error=join_float(row["kl_se"], row["kl_se_kind"]),
        n_sequences=row["n_sequences"],
        mean_length=join_float(row["mean_length"], row["mean_length_kind"]),
        not_measured=row["kl_not_measured"],
    )
    return StepRecord(
        step=row["step"],
        kl=kl,
        logged_at=row["logged_at"],
        segment=row["segment"],
        beta=join_float(row["beta"], row["beta_kind"]),
        score=join_float(row["score"], row["score_kind"]),
        readings={key: _decode_reading(one, series.get(key, UNDECLARED)) for key, one in row["readings"].items()},
        metrics=row["metrics"],
    )


def _to_step_row(run_id: str, record: StepRecord) -> dict[str, Any]:
    kl = record.kl
    return {
        "run_id": run_id,
        "segment": record.segment,
        "step": record.step,
        "logged_at": record.logged_at,
        **split_float("kl", kl.value),
        **split_float("kl_se", kl.standard_error),
        "kl_not_measured": kl.not_measured,
        **split_float("beta", record.beta),
        **split_float("score", record.score),
        "n_sequences": kl.n_sequences,
        **split_float("mean_length", kl.mean_length),
        "readings": {key: _encode_reading(one) for key, one in record.readings.items()},
        "metrics": _to_numbers(record),
    }


def _to_numbers(record: StepRecord) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in record.metrics.items()}
    except (TypeError, ValueError) as exc:
        raise InvalidRecord(f"step {record.step}: expected metrics that are numbers; got {dict(record.metrics)!r}") from exc


def _encode_reading(reading: KLReading) -> dict[str, Any]:
    columns = {
        "value": reading.value,
        "se": reading.standard_error,
        "n": reading.n_sequences,
        "mean_length": reading.mean_length,
        "not_measured": reading.not_measured,
    }
    return {name: value for name, value in columns.items() if value is not None}


def _decode_reading(columns: Mapping[str, Any], series: KLSeries) -> KLReading:
    return KLReading(
        series=series,
        value=columns.get("value"),
        standard_error=columns.get("se"),
        n_sequences=columns.get("n"),
        mean_length=columns.get("mean_length"),
        not_measured=columns.get("not_measured"),
    )


def _require_samples_of(record: StepRecord, samples: Sequence[TextSample]) -> None:
    strangers = [one for one in samples if (one.segment, one.step) != (record.segment, record.step)]
    if strangers:
        came = f"segment {strangers[0].segment}, step {strangers[0].step}"
        raise InvalidRecord(f"expected text samples of segment {record.segment}, step {record.step}; got one of {came}")
    if len({one.index for one in samples}) != len(samples):
        raise InvalidRecord(f"expected text samples with an index each; got {[one.index for one in samples]}")
