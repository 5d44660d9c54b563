"""Runs and their segments."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, or_, select, update

from klaudit.errors import NameTaken, RunNotFound
from klaudit.ledger.bodies import describe_run, describe_segment, digest_identity
from klaudit.records import KLSeries, ReferenceModel, Run, RunSummary, Segment
from klaudit.records.ledger import LedgerDraft
from klaudit.records.moment import format_moment
from klaudit.records.run import RunStatus
from klaudit.store.engine import Database
from klaudit.store.floats import join_float, split_float
from klaudit.store.ledger import LedgerRepository, settle_json
from klaudit.store.presence import describe_missing_run, require_run
from klaudit.store.series import declare_series, read_all_series, read_series
from klaudit.store.shards import delete_shards_of_run
from klaudit.store.steps import read_last_step
from klaudit.store.summaries import count_lost, create_summary, govern_summary, lock_summary, to_summary
from klaudit.store.tables import findings, run_summaries, runs, segments

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
    "identity",
)

_SUMMARY_COLUMNS = [column for column in run_summaries.columns if column.name != "run_id"]


class RunRepository:
    """Runs of one store."""

    def __init__(self, database: Database, ledger: LedgerRepository) -> None:
        self._database = database
        self._ledger = ledger

    def add(self, run: Run) -> None:
        """Store a run and its series.

        Raises:
            NameTaken: a run of that name, or that id, is there already.
        """

        def explain() -> NameTaken:
            return NameTaken(f"expected a new name for a run; {run.name!r} (id {run.id}) is taken. Give another, or resume that run")

        with self._database.writing(explain) as connection:
            connection.execute(insert(runs), _to_run_row(run))
            self._ledger.append(connection, [LedgerDraft("run_opened", describe_run(_settle(run)), run.id)])
            declare_series(connection, run.id, run.series, self._ledger)
            create_summary(connection, run.id, run.series)

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
            return from_run_row(found[0], read_series(connection, found[0]["id"]))

    def list(self) -> list[RunSummary]:
        """Every run, the latest first; three queries, however many runs there are, and none that reads a step."""
        query = select(runs, *_SUMMARY_COLUMNS).join_from(runs, run_summaries).order_by(runs.c.started_at.desc(), runs.c.id)
        with self._database.reading() as connection:
            rows = connection.execute(query).mappings().all()
            series = read_all_series(connection)
            counts = _count_findings(connection)
        return [to_summary(from_run_row(row, series.get(row["id"], {})), row, counts.get(row["id"], {})) for row in rows]

    def summarize(self, run_id: str) -> RunSummary:
        """One line of the list.

        Raises:
            RunNotFound: no run has this id.
        """
        query = select(runs, *_SUMMARY_COLUMNS).join_from(runs, run_summaries).where(runs.c.id == run_id)
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().first()
            if row is None:
                raise RunNotFound(describe_missing_run(connection, run_id))
            counts = _count_findings(connection, run_id)
            return to_summary(from_run_row(row, read_series(connection, run_id)), row, counts.get(run_id, {}))

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
            summary = lock_summary(connection, run_id)
            declare_series(connection, run_id, series, self._ledger)
            declared = read_series(connection, run_id)
            govern_summary(connection, summary, last=read_last_step(connection, run_id, declared), series=declared)

    def set_trainer(self, run_id: str, *, framework: str, algorithm: str) -> None:
        """Say what trains a run; known once its first step was logged.

        Raises:
            RunNotFound: no run has this id.
        """
        with self._database.writing() as connection:
            require_run(connection, run_id)
            connection.execute(update(runs).where(runs.c.id == run_id).values(framework=framework, algorithm=algorithm))
            self._ledger.append(connection, [LedgerDraft("trainer_declared", {"framework": framework, "algorithm": algorithm}, run_id)])

    def set_identity(self, run_id: str, identity: Mapping[str, Any]) -> None:
        """Say what trains and is trained, as JSON; what was said before is replaced.

        Raises:
            RunNotFound: no run has this id.
        """
        with self._database.writing() as connection:
            require_run(connection, run_id)
            connection.execute(update(runs).where(runs.c.id == run_id).values(identity=identity))
            digest = digest_identity(settle_json(identity))
            self._ledger.append(connection, [LedgerDraft("identity_declared", {"identity_digest": digest}, run_id)])

    def delete(self, run_id: str) -> None:
        """Remove a run with everything that belongs to it.

        Raises:
            RunNotFound: no run has this id.
        """
        with self._database.writing() as connection:
            # The summary's lock first, as whoever adds steps takes it: the other way round the two would wait for each other.
            summary = lock_summary(connection, run_id)
            name = connection.scalar(select(runs.c.name).where(runs.c.id == run_id))
            delete_shards_of_run(connection, run_id)
            connection.execute(delete(runs).where(runs.c.id == run_id))
            self._ledger.append(connection, [LedgerDraft("run_deleted", {"name": name, "n_steps": summary["n_steps"]}, run_id)])

    def add_segment(self, segment: Segment) -> None:
        """Store that a stretch of a run began.

        Raises:
            RunNotFound: no run has its run id.
            NameTaken: the run has a segment of that index, or another segment its session.
        """

        def explain() -> NameTaken:
            return NameTaken(
                f"expected a new segment of run {segment.run_id}; segment {segment.index} is there already, or its session has another"
            )

        with self._database.writing(explain) as connection:
            require_run(connection, segment.run_id)
            connection.execute(insert(segments), _to_segment_row(segment))
            self._ledger.append(connection, [LedgerDraft("segment_began", describe_segment(segment), segment.run_id)])

    def end_segment(self, run_id: str, index: int, ended_at: datetime) -> None:
        """Store when a stretch of a run ended.

        Raises:
            RunNotFound: no run has this id.
        """
        with self._database.writing() as connection:
            require_run(connection, run_id)
            where = (segments.c.run_id == run_id, segments.c.segment == index)
            if connection.execute(update(segments).where(*where).values(ended_at=ended_at)).rowcount:
                body = {"segment": index, "ended_at": format_moment(ended_at)}
                self._ledger.append(connection, [LedgerDraft("segment_ended", body, run_id)])

    def find_session(self, session: str) -> Segment | None:
        """The segment that a session writes; None before it began one."""
        query = select(segments).where(segments.c.session == session)
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else from_segment_row(row)

    def renew_lease(self, run_id: str, segment: int, *, now: datetime, until: datetime) -> bool:
        """Say that the writer of a segment lives; False where the segment has ended or is not there.

        Args:
            run_id: of the run.
            segment: that it writes.
            now: the heartbeat.
            until: no other writer may go on with the run before.
        """
        where = (segments.c.run_id == run_id, segments.c.segment == segment, segments.c.ended_at.is_(None))
        with self._database.writing() as connection:
            return connection.execute(update(segments).where(*where).values(heartbeat_at=now, lease_until=until)).rowcount == 1

    def set_reference_digest(self, run_id: str, segment: int, digest: str) -> None:
        """Say what the reference of a segment is, once that is computed, and of the run where it has a name alone; what has a digest keeps it.

        Raises:
            RunNotFound: no run has this id.
        """
        where = (segments.c.run_id == run_id, segments.c.segment == segment, segments.c.reference_digest.is_(None))
        with self._database.writing() as connection:
            require_run(connection, run_id)
            if connection.execute(update(segments).where(*where).values(reference_digest=digest)).rowcount:
                named = (runs.c.id == run_id, runs.c.reference_name.is_not(None), runs.c.reference_digest.is_(None))
                is_of_files = digest.startswith("sha256:")
                is_first = is_of_files and connection.execute(update(runs).where(*named).values(reference_digest=digest)).rowcount == 1
                body = {"segment": segment, "reference_digest": digest, "is_the_runs": is_first}
                self._ledger.append(connection, [LedgerDraft("reference_declared", body, run_id)])

    def set_loss(
        self, run_id: str, segment: int, *, n_lost: int, reason: str | None, first_step: int | None = None, last_step: int | None = None
    ) -> None:
        """Say how many logged steps of a segment could not be kept, and why.

        Raises:
            RunNotFound: no run has this id.
        """
        loss = {"n_lost": n_lost, "lost_first_step": first_step, "lost_last_step": last_step, "lost_reason": reason}
        where = (segments.c.run_id == run_id, segments.c.segment == segment)
        with self._database.writing() as connection:
            lock_summary(connection, run_id)
            if connection.execute(update(segments).where(*where).values(loss)).rowcount:
                count_lost(connection, run_id)
                body = {"segment": segment, **loss}
                self._ledger.append(connection, [LedgerDraft("steps_lost", body, run_id)])

    def segments(self, run_id: str) -> Sequence[Segment]:
        """Stretches of a run, in order."""
        query = select(segments).where(segments.c.run_id == run_id).order_by(segments.c.segment)
        with self._database.reading() as connection:
            return [from_segment_row(row) for row in connection.execute(query).mappings()]


def _count_findings(connection: Connection, run_id: str | None = None) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    query = select(findings.c.run_id, findings.c.severity, func.count()).group_by(findings.c.run_id, findings.c.severity)
    if run_id is not None:
        query = query.where(findings.c.run_id == run_id)
    for owner, severity, count in connection.execute(query):
        counts.setdefault(owner, {})[severity] = count
    return counts


def _settle(run: Run) -> Run:
    return replace(run, config=settle_json(run.config), identity=settle_json(run.identity))


def _to_run_row(run: Run) -> dict[str, Any]:
    return {
        **{name: getattr(run, name) for name in PLAIN_FIELDS},
        **split_float("beta", run.beta),
        "reference_name": None if run.reference is None else run.reference.name,
        "reference_digest": None if run.reference is None else run.reference.digest,
    }


def from_run_row(row: RowMapping, series: Mapping[str, KLSeries]) -> Run:
    """The run that a row of `runs` holds, joined to its series."""
    return Run(
        **{name: row[name] for name in PLAIN_FIELDS},
        beta=join_float(row["beta"], row["beta_kind"]),
        reference=None if row["reference_name"] is None else ReferenceModel(row["reference_name"], row["reference_digest"]),
        series=series,
    )


def _to_segment_row(segment: Segment) -> dict[str, Any]:
    return {column.name: getattr(segment, "index" if column.name == "segment" else column.name) for column in segments.columns}


def from_segment_row(row: RowMapping) -> Segment:
    """The segment that a row of `segments` holds."""
    columns = dict(row)
    return Segment(index=columns.pop("segment"), **columns)
