"""Findings on their way to somebody, while a run is being trained."""

import queue
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from klaudit.alerts import Channel, compose_alert
from klaudit.errors import AlertNotDelivered
from klaudit.records import Alert, Finding, Severity
from klaudit.store import Store


class AlertSender:
    """Tells every channel of a finding, each delivery in a thread of its own. For one thread."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._channels = tuple(channels)
        self._told: dict[str, Severity] = {}
        self._outcomes: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
        self._deliveries: list[threading.Thread] = []

    def skip(self, findings: Iterable[Finding]) -> None:
        """Nobody is told of these, because somebody was before."""
        self._told |= {finding.id: finding.severity for finding in findings}

    def send(self, store: Store, finding: Finding, *, run_name: str) -> None:
        """One message when a finding appears and one each time that it grows, and none for what is only worth knowing.

        Raises:
            StoreError: the alert could not be stored, and was not sent.
        """
        before = self._told.get(finding.id)
        if finding.severity is Severity.INFO or (before is not None and finding.severity.rank <= before.rank):
            return
        for channel in self._channels:
            alert = compose_alert(finding, run_name=run_name, channel=channel.name, created_at=datetime.now(UTC))
            store.alerts.add(alert)
            delivery = threading.Thread(target=self._deliver, args=(channel, alert), name="klaudit-alert", daemon=True)
            try:
                delivery.start()
            except RuntimeError:  # the interpreter is ending, and takes no new threads
                self._deliver(channel, alert)
            else:
                self._deliveries.append(delivery)
        self._told[finding.id] = finding.severity

    def note_deliveries(self, store: Store) -> None:
        """Store what became of the alerts that were sent."""
        self._deliveries = [one for one in self._deliveries if one.is_alive()]
        while True:
            try:
                alert_id, error = self._outcomes.get_nowait()
            except queue.Empty:
                return
            store.alerts.set_delivery(alert_id, "delivered" if error is None else "failed", error)

    def wait(self, timeout_s: float) -> None:
        """Wait for alerts that are still on their way, `timeout_s` seconds at most."""
        until = time.monotonic() + timeout_s
        for delivery in self._deliveries:
            delivery.join(timeout=max(0.0, until - time.monotonic()))

    def _deliver(self, channel: Channel, alert: Alert) -> None:
        """In a thread of its own: a webhook that hangs must not hold the store."""
        try:
            channel.deliver(alert)
        except AlertNotDelivered as error:
            self._outcomes.put((alert.id, str(error)))
        except Exception as error:
            # A channel may be anybody's; an alert that nobody got must not stay pending.
            self._outcomes.put((alert.id, f"{type(error).__name__}: {error}"))
        else:
            self._outcomes.put((alert.id, None))
