"""Runs and their segments."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, and_, delete, func, insert, or_, select, update

from klaudit.errors import NameTaken, RunNotFound
from klaudit.records import PRIMARY, KLReading, KLSeries, ReferenceModel, Run, RunSummary, Segment, StepRecord
from klaudit.records.run import RunStatus
from klaudit.store.engine import Database
from klaudit.store.floats import join_float, split_float
from klaudit.store.presence import describe_missing_run, require_run
from klaudit.store.series import SeriesRepository
from klaudit.store.steps import from_step_row
from klaudit.store.tables import findings, runs, segments, steps

PLAIN_FIELDS = (
    "id",
    "name",
    "status",
    "started_at",
    "finished_at",
    "algorithm",
    "framework",
    "policy",
    "batch_size",
    "planned_steps",
    "config",
)


class RunRepository:
    """Runs of one store."""

    def __init__(self, database: Database, series: SeriesRepository) -> None:
        self._database = database
        self._series = series

    def add(self, run: Run) -> None:
        """Store a run and its series.

        Raises:
            NameTaken: a run of that name, or that id, is there already.
        """

        def explain() -> NameTaken:
            return NameTaken(f"expected a new name for a run; {run.name!r} (id {run.id}) is taken. Give another, or resume that run")

        with self._database.writing(explain) as connection:
            connection.execute(insert(runs), _to_run_row(run))
            self._series.declare(connection, run.id, run.series)

    def get(self, id_or_name: str) -> Run:
        """The run with that id or that name.

        Raises:
            RunNotFound: none, with the nearest names; or one run's id is another's name.
        """
        with self._database.reading() as connection:
            found = connection.execute(select(runs).where(or_(runs.c.id == id_or_name, runs.c.name == id_or_name))).mappings().all()
            if len(found) > 1:
                ids = " and ".join(sorted(row["id"] for row in found))
                raise RunNotFound(f"expected one run; {id_or_name!r} is the id of one and the name of another: {ids}. Rename one")
            if not found:
                raise RunNotFound(describe_missing_run(connection, id_or_name))
            return _from_run_row(found[0], self._series.read(connection, found[0]["id"]))

    def list(self) -> list[RunSummary]:
        """Every run, the latest first; four queries, however many runs there are."""
        with self._database.reading() as connection:
            rows = connection.execute(select(runs).order_by(runs.c.started_at.desc(), runs.c.id)).mappings().all()
            series = self._series.read_all(connection)
            counts = _count_findings(connection)
            ends = {row["run_id"]: row for row in connection.execute(_select_ends()).mappings()}
        return [_summarize(_from_run_row(row, series.get(row["id"], {})), ends.get(row["id"]), counts.get(row["id"], {})) for row in rows]

    def names_like(self, prefix: str) -> Sequence[str]:
        """Names of runs that begin with `prefix`, sorted."""
        with self._database.reading() as connection:
            names = connection.scalars(select(runs.c.name).where(runs.c.name.startswith(prefix, autoescape=True)))
            return sorted(name for name in names if name.startswith(prefix))

    def set_status(self, run_id: str, status: RunStatus, finished_at: datetime | None = None) -> None:
        """Say how a run stands.

        Raises:
            RunNotFound: no run has this id.
        """
        with self._database.writing() as connection:
            require_run(connection, run_id)
            connection.execute(update(runs).where(runs.c.id == run_id).values(status=status, finished_at=finished_at))

    def set_series(self, run_id: str, series: Mapping[str, KLSeries]) -> None:
        """Declare what some KLs of a run are; other keys stay as they are.

        Raises:
            RunNotFound: no run has this id.
        """
        with self._database.writing() as connection:
            require_run(connection, run_id)
            self._series.declare(connection, run_id, series)
        self._series.forget(run_id)

    def set_trainer(self, run_id: str, *, framework: str, algorithm: str) -> None:
        """Say what trains a run; known once its first step was logged.

        Raises:
            RunNotFound: no run has this id.
        """
        with self._database.writing() as connection:
            require_run(connection, run_id)
            connection.execute(update(runs).where(runs.c.id == run_id).values(framework=framework, algorithm=algorithm))

    def delete(self, run_id: str) -> None:
        """Remove a run with everything that belongs to it.

        Raises:
            RunNotFound: no run has this id.
        """
        with self._database.writing() as connection:
            require_run(connection, run_id)
            connection.execute(delete(runs).where(runs.c.id == run_id))
        self._series.forget(run_id)

    def add_segment(self, segment: Segment) -> None:
        """Store that a stretch of a run began.

        Raises:
            RunNotFound: no run has its run id.
            NameTaken: the run has a segment of that index.
        """

        def explain() -> NameTaken:
            return NameTaken(f"expected a new segment of run {segment.run_id}; segment {segment.index} is there already")

        with self._database.writing(explain) as connection:
            require_run(connection, segment.run_id)
            connection.execute(insert(segments), _to_segment_row(segment))

    def end_segment(self, run_id: str, index: int, ended_at: datetime) -> None:
        """Store when a stretch of a run ended.

        Raises:
            RunNotFound: no run has this id.
        """
        with self._database.writing() as connection:
            require_run(connection, run_id)
            where = (segments.c.run_id == run_id, segments.c.segment == index)
            connection.execute(update(segments).where(*where).values(ended_at=ended_at))

    def segments(self, run_id: str) -> Sequence[Segment]:
        """Stretches of a run, in order."""
        query = select(segments).where(segments.c.run_id == run_id).order_by(segments.c.segment)
        with self._database.reading() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return [Segment(index=row.pop("segment"), **row) for row in rows]


def _select_ends() -> Select[Any]:
    """The last step of each run, with how many there are; one pass over the primary key's index."""
    whole = (
        select(
            steps.c.run_id,
            func.count().label("n_steps"),
            func.max(steps.c.segment).label("last_segment"),
        )
        .group_by(steps.c.run_id)
        .subquery()
    )
    last = steps.alias("last")
    last_step = (
        select(func.max(last.c.step)).where(last.c.run_id == whole.c.run_id, last.c.segment == whole.c.last_segment).scalar_subquery()
    )
    at_end = and_(steps.c.run_id == whole.c.run_id, steps.c.segment == whole.c.last_segment, steps.c.step == last_step)
    return select(whole.c.n_steps, steps).select_from(whole.join(steps, at_end))


def _count_findings(connection: Connection) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    query = select(findings.c.run_id, findings.c.severity, func.count()).group_by(findings.c.run_id, findings.c.severity)
    for run_id, severity, count in connection.execute(query):
        counts.setdefault(run_id, {})[severity] = count
    return counts


def _summarize(run: Run, end: RowMapping | None, n_findings: Mapping[str, int]) -> RunSummary:
    last = None if end is None else from_step_row(end, run.series)
    return RunSummary(
        run=run,
        n_steps=0 if end is None else end["n_steps"],
        last_step=None if last is None else last.step,
        last_logged_at=None if last is None else last.logged_at,
        last_kl=None if last is None else _find_governing_reading(run, last),
        last_beta=None if last is None else last.beta,
        last_score=None if last is None else last.score,
        n_findings=n_findings,
    )


def _find_governing_reading(run: Run, record: StepRecord) -> KLReading:
    key = run.governing_key or PRIMARY
    return record.reading(key) or KLReading.absent(run.series[key], f"step {record.step} has no {key}")


def _to_run_row(run: Run) -> dict[str, Any]:
    return {
        **{name: getattr(run, name) for name in PLAIN_FIELDS},
        **split_float("beta", run.beta),
        "reference_name": None if run.reference is None else run.reference.name,
        "reference_digest": None if run.reference is None else run.reference.digest,
    }


def _from_run_row(row: RowMapping, series: Mapping[str, KLSeries]) -> Run:
    return Run(
        **{name: row[name] for name in PLAIN_FIELDS},
        beta=join_float(row["beta"], row["beta_kind"]),
        reference=None if row["reference_name"] is None else ReferenceModel(row["reference_name"], row["reference_digest"]),
        series=series,
    )


def _to_segment_row(segment: Segment) -> dict[str, Any]:
    return {
        "run_id": segment.run_id,
        "segment": segment.index,
        "started_at": segment.started_at,
        "ended_at": segment.ended_at,
        "host": segment.host,
        "pid": segment.pid,
        "resumed_from_step": segment.resumed_from_step,
    }
