"""Alerts and how far they got."""

from sqlalchemy import insert, select, update

from klaudit.errors import InvalidRecord
from klaudit.records import Alert, Severity
from klaudit.records.alert import Delivery
from klaudit.store.engine import Database
from klaudit.store.presence import require_run
from klaudit.store.tables import alerts


class AlertRepository:
    """Alerts of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, alert: Alert) -> None:
        """Store an alert of a stored finding.

        Raises:
            RunNotFound: no run has its run id.
            InvalidRecord: its id is taken, or its finding is not stored.
        """

        def explain() -> InvalidRecord:
            return InvalidRecord(f"expected a new alert of a stored finding; got id {alert.id!r} of finding {alert.finding_id!r}")

        row = {column.name: getattr(alert, column.name) for column in alerts.columns} | {"severity": alert.severity.value}
        with self._database.writing(explain) as connection:
            require_run(connection, alert.run_id)
            connection.execute(insert(alerts), row)

    def set_delivery(self, alert_id: str, delivery: Delivery, error: str | None = None) -> None:
        """Say whether a channel took an alert, and why not.

        Raises:
            InvalidRecord: no alert has this id.
        """
        with self._database.writing() as connection:
            if connection.execute(update(alerts).where(alerts.c.id == alert_id).values(delivery=delivery, error=error)).rowcount == 0:
                raise InvalidRecord(f"expected the id of an alert; got {alert_id!r}; Store.alerts.list gives them")

    def list(self, run_id: str | None = None) -> list[Alert]:
        """Alerts of a run, or all of them, the oldest first."""
        query = select(alerts).order_by(alerts.c.created_at, alerts.c.id)
        if run_id is not None:
            query = query.where(alerts.c.run_id == run_id)
        with self._database.reading() as connection:
            return [Alert(**{**row, "severity": Severity(row["severity"])}) for row in connection.execute(query).mappings()]
