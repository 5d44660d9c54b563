"""Findings: one row an episode, revised as it goes on."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, insert, select, update

from klaudit.errors import InvalidRecord
from klaudit.records import Finding, Severity
from klaudit.store.engine import Database
from klaudit.store.floats import join_float, split_float
from klaudit.store.presence import require_run
from klaudit.store.tables import findings

PLAIN_FIELDS = (
    "id",
    "run_id",
    "segment",
    "code",
    "rule",
    "rule_version",
    "status",
    "series",
    "first_step",
    "detected_step",
    "last_step",
    "unit",
    "message",
    "remedy",
    "evidence",
)

_INSERT = insert(findings)
_REVISE = update(findings).where(findings.c.id == bindparam("revised_id"))


class FindingRepository:
    """Findings about the runs of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def upsert(self, run_id: str, revised: Sequence[Finding]) -> None:
        """Store findings of one run, new ones and revisions of those that are there; all or none.

        Raises:
            RunNotFound: no run has this id.
            InvalidRecord: a finding of another run, or one whose `detected_step` is not the stored one.
        """
        if not revised:
            return
        with self._database.writing() as connection:
            require_run(connection, run_id)
            write_findings(connection, run_id, revised)

    def list(self, run_id: str) -> list[Finding]:
        """Findings about a run, sorted by first step, code and id."""
        query = select(findings).where(findings.c.run_id == run_id).order_by(findings.c.first_step, findings.c.code, findings.c.id)
        with self._database.reading() as connection:
            return [_from_finding_row(row) for row in connection.execute(query).mappings()]


def write_findings(connection: Connection, run_id: str, revised: Sequence[Finding]) -> None:
    """Insert or revise within a transaction of the caller's.

    Raises:
        InvalidRecord: a finding of another run, or one whose `detected_step` is not the stored one.
    """
    query = select(findings.c.id, findings.c.run_id, findings.c.detected_step).where(findings.c.id.in_([one.id for one in revised]))
    stored = {row.id: (row.run_id, row.detected_step) for row in connection.execute(query)}
    for one in revised:
        if one.run_id != run_id or stored.get(one.id, (run_id, one.detected_step)) != (run_id, one.detected_step):
            raise InvalidRecord(
                f"expected finding {one.id} to stay with run {run_id} and the step that it was detected at; "
                f"got run {one.run_id}, step {one.detected_step}. A new episode needs a new id (identify_finding)"
            )
        row = _to_finding_row(one)
        if one.id in stored:
            connection.execute(_REVISE, row | {"revised_id": one.id})
        else:
            connection.execute(_INSERT, row)
            stored[one.id] = (run_id, one.detected_step)


def _to_finding_row(finding: Finding) -> dict[str, Any]:
    return {
        **{name: getattr(finding, name) for name in PLAIN_FIELDS},
        "severity": finding.severity.value,
        **split_float("value", finding.value),
        **split_float("threshold", finding.threshold),
    }


def _from_finding_row(row: RowMapping) -> Finding:
    return Finding(
        **{name: row[name] for name in PLAIN_FIELDS},
        severity=Severity(row["severity"]),
        value=join_float(row["value"], row["value_kind"]),
        threshold=join_float(row["threshold"], row["threshold_kind"]),
    )
