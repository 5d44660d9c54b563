"""Steps: one row each, and the way they come back as records."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, tuple_

from klaudit.errors import DuplicateStep, InvalidRecord
from klaudit.ledger import hash_step
from klaudit.records import PRIMARY, UNDECLARED, Finding, KLReading, KLSeries, LoggedStep, StepRecord, TextSample
from klaudit.store.engine import Database
from klaudit.store.findings import write_findings
from klaudit.store.floats import decode_json, join_float, split_float
from klaudit.store.ledger import LedgerRepository
from klaudit.store.rollups import extend_keys, list_values, roll_up, write_rollups
from klaudit.store.samples import to_sample_row
from klaudit.store.series import declare_series, find_undeclared, read_series
from klaudit.store.spoiled import select_as_it_lies
from klaudit.store.summaries import advance_summary, find_place, lock_summary
from klaudit.store.tables import steps, text_samples

_INSERT_STEPS = insert(steps)
_INSERT_SAMPLES = insert(text_samples)

# Times and JSON are decoded here: SQLAlchemy's way through its column types takes as long as all else that a row needs.
_SELECT_STEPS = select_as_it_lies(steps)

_PLACES = 500
"""Steps that one query asks for by number."""


class StepRepository:
    """Steps of the runs of one store."""

    def __init__(self, database: Database, ledger: LedgerRepository) -> None:
        self._database = database
        self._ledger = ledger

    def add(self, run_id: str, record: StepRecord, samples: Sequence[TextSample] = (), *, findings: Sequence[Finding] = ()) -> None:
        """Store one step as `add_all` does; that it is there already is an error.

        Raises:
            DuplicateStep: the run has that step in that segment; the stored one stays.
            RunNotFound: no run has this id.
            InvalidRecord: samples of another step, or a reading whose series is not the one declared under its key.
        """
        self._write(run_id, [LoggedStep(record, tuple(samples))], findings, may_be_there=False)

    def add_all(self, run_id: str, logged: Sequence[LoggedStep], *, findings: Sequence[Finding] = ()) -> int:
        """Store those of some steps that are not there yet, in one commit; those that are there stay as they are, so that a batch may be sent again.

        With them go their text samples, the series of readings that the run had not declared, the findings that they made or revised,
        the run's roll-ups and summary.

        Returns:
            How many were new.

        Raises:
            RunNotFound: no run has this id.
            InvalidRecord: samples of another step, or a reading whose series is not the one declared under its key; nothing was written.
        """
        return self._write(run_id, logged, findings, may_be_there=True)

    def _write(self, run_id: str, logged: Sequence[LoggedStep], findings: Sequence[Finding], *, may_be_there: bool) -> int:
        if not logged and not findings:
            return 0
        prepared: dict[tuple[int, int], tuple[LoggedStep, dict[str, Any], bytes]] = {}
        for one in logged:
            _require_samples_of(one.record, one.samples)
            prepared.setdefault(find_place(one.record), (one, _to_step_row(run_id, one.record), hash_step(run_id, one.record)))
        with self._database.writing() as connection:
            summary = lock_summary(connection, run_id)
            stored = _find_stored(connection, summary, prepared)
            if stored and not may_be_there:
                raise DuplicateStep(_describe_duplicate(run_id, *min(stored)))
            new = [prepared[place] for place in sorted(prepared.keys() - stored)]
            if new:
                self._insert(connection, summary, [one for one, _, _ in new], [row for _, row, _ in new])
            if findings:
                write_findings(connection, run_id, findings)
            if new:
                n_samples = sum(len(one.samples) for one, _, _ in new)
                records, leaves = [one.record for one, _, _ in new], [leaf for _, _, leaf in new]
                self._ledger.append_batch(connection, run_id, records, leaves=leaves, n_samples=n_samples)
        return len(new)

    def _insert(self, connection: Connection, summary: RowMapping, logged: Sequence[LoggedStep], rows: Sequence[Mapping[str, Any]]) -> None:
        run_id, records = summary["run_id"], [one.record for one in logged]
        series = read_series(connection, run_id)
        if undeclared := find_undeclared(series, records):
            declare_series(connection, run_id, undeclared, self._ledger)
            series |= undeclared
        connection.execute(_INSERT_STEPS, rows)
        if samples := [to_sample_row(run_id, sample) for one in logged for sample in one.samples]:
            connection.execute(_INSERT_SAMPLES, samples)
        values = [list_values(record) for record in records]
        keys = extend_keys(summary["rollup_keys"], values)
        places = [(one.segment, one.step, own) for one, own in zip(records, values, strict=True)]
        write_rollups(connection, roll_up(run_id, places, keys))
        advance_summary(connection, summary, records=records, values=values, series=series, keys=keys)

    def list(
        self,
        run_id: str,
        *,
        segment: int | None = None,
        after: tuple[int, int] | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[StepRecord]:
        """Steps in order of segment and step.

        Args:
            run_id: of the run.
            segment: only this one.
            after: the (segment, step) behind which to begin.
            limit: at most so many.
            newest_first: in the opposite order; `after` is still what comes later.
        """
        rows, series = self._read_rows(run_id, segment=segment, after=after, limit=limit, newest_first=newest_first)
        return [from_step_row(row, series) for row in rows]

    def iterate(self, run_id: str, *, page: int = 2_000) -> Iterator[StepRecord]:
        """Every step in order of segment and step: read page by page, each decoded as it is asked for, so that few are held at once."""
        after: tuple[int, int] | None = None
        while True:
            rows, series = self._read_rows(run_id, after=after, limit=page)
            if not rows:
                return
            for row in rows:
                record = from_step_row(row, series)
                yield record
            after = find_place(record)

    def _read_rows(
        self,
        run_id: str,
        *,
        segment: int | None = None,
        after: tuple[int, int] | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> tuple[Sequence[Sequence[Any]], Mapping[str, KLSeries]]:
        """What `list` gives, not yet decoded, and the run's series."""
        order = (steps.c.segment.desc(), steps.c.step.desc()) if newest_first else (steps.c.segment, steps.c.step)
        query = _SELECT_STEPS.where(steps.c.run_id == run_id).order_by(*order).limit(limit)
        if segment is not None:
            query = query.where(steps.c.segment == segment)
        if after is not None:
            query = query.where(tuple_(steps.c.segment, steps.c.step) > after)
        with self._database.reading() as connection:
            series = read_series(connection, run_id)
            return connection.execute(query).all(), series

    def read(self, run_id: str, places: Collection[tuple[int, int]]) -> Sequence[StepRecord]:
        """Those of some steps that are there, in order.

        Args:
            run_id: of the run.
            places: segment and step of each.
        """
        by_segment: dict[int, list[int]] = {}
        for segment, step in sorted(places):
            by_segment.setdefault(segment, []).append(step)
        found: list[StepRecord] = []
        with self._database.reading() as connection:
            series = read_series(connection, run_id)
            for segment, numbers in by_segment.items():
                for first in range(0, len(numbers), _PLACES):
                    where = (steps.c.run_id == run_id, steps.c.segment == segment, steps.c.step.in_(numbers[first : first + _PLACES]))
                    query = _SELECT_STEPS.where(*where).order_by(steps.c.step)
                    found += [from_step_row(row, series) for row in connection.execute(query).all()]
        return found

    def count(self, run_id: str) -> int:
        """How many steps the run has, over all segments."""
        with self._database.reading() as connection:
            return connection.scalar(select(func.count()).select_from(steps).where(steps.c.run_id == run_id)) or 0

    def last(self, run_id: str, *, segment: int | None = None) -> StepRecord | None:
        """The last step of a segment, or of the last one; None before the first."""
        with self._database.reading() as connection:
            return read_last_step(connection, run_id, read_series(connection, run_id), segment=segment)


def read_last_step(connection: Connection, run_id: str, series: Mapping[str, KLSeries], *, segment: int | None = None) -> StepRecord | None:
    """The last step of a run's segment, or of its last one; None before the first."""
    query = _SELECT_STEPS.where(steps.c.run_id == run_id).order_by(steps.c.segment.desc(), steps.c.step.desc()).limit(1)
    if segment is not None:
        query = query.where(steps.c.segment == segment)
    row = connection.execute(query).first()
    return None if row is None else from_step_row(row, series)


def from_step_row(row: Sequence[Any], series: Mapping[str, KLSeries]) -> StepRecord:
    """The record that a row of `steps` holds, its readings joined to the run's series.

    Args:
        row: every column in the order of the table, times and JSON as the text that they are.
        series: of the run, by key.

    Raises:
        ValueError: a column that cannot be decoded; or another of `klaudit.store.spoiled.UNREADABLE`.
    """
    # fmt: off
    (
        _, segment, step, logged_at, kl, kl_kind, error, error_kind, not_measured, beta, beta_kind, score, score_kind,
        n_sequences, length, length_kind, readings, metrics,
    ) = row
    # fmt: on
    return StepRecord(
        step,
        KLReading(
            series.get(PRIMARY, UNDECLARED),
            join_float(kl, kl_kind),
            join_float(error, error_kind),
            n_sequences,
            join_float(length, length_kind),
            not_measured,
        ),
        datetime.fromisoformat(logged_at),
        segment,
        join_float(beta, beta_kind),
        join_float(score, score_kind),
        {key: _decode_reading(one, series.get(key, UNDECLARED)) for key, one in decode_json(readings).items()},
        decode_json(metrics),
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
    get = columns.get
    return KLReading(series, get("value"), get("se"), get("n"), get("mean_length"), get("not_measured"))


def _find_stored(connection: Connection, summary: RowMapping, places: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
    """Which of the places have a step; nothing is read where all come after the run's last."""
    if not places or summary["last_step"] is None or min(places) > (summary["last_segment"], summary["last_step"]):
        return set()
    stored: set[tuple[int, int]] = set()
    for segment in {segment for segment, _ in places}:
        numbers = [step for one, step in places if one == segment]
        where = (steps.c.run_id == summary["run_id"], steps.c.segment == segment, steps.c.step.between(min(numbers), max(numbers)))
        stored |= {(segment, step) for step in connection.scalars(select(steps.c.step).where(*where))} & set(places)
    return stored


def _describe_duplicate(run_id: str, segment: int, step: int) -> str:
    return (
        f"expected a new step of run {run_id}; segment {segment} has step {step} already, and it stays as it is. "
        "A trainer that starts again needs a new run, one that resumes a new segment"
    )


def _require_samples_of(record: StepRecord, samples: Sequence[TextSample]) -> None:
    strangers = [one for one in samples if (one.segment, one.step) != (record.segment, record.step)]
    if strangers:
        came = f"segment {strangers[0].segment}, step {strangers[0].step}"
        raise InvalidRecord(f"expected text samples of segment {record.segment}, step {record.step}; got one of {came}")
    if len({one.index for one in samples}) != len(samples):
        raise InvalidRecord(f"expected text samples with an index each; got {[one.index for one in samples]}")
