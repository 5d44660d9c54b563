"""A finding on its way to somebody."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from klaudit.records.finding import Severity
from klaudit.records.run import require_aware
from klaudit.records.series import require_member

Delivery = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One message to one channel.

    Raises:
        InvalidRecord: a delivery state outside its vocabulary, a time without zone.
    """

    id: str
    """Also what a receiver de-duplicates by."""
    run_id: str
    finding_id: str
    severity: Severity
    step: int
    title: str
    text: str
    channel: str
    """`console` or `webhook`."""
    created_at: datetime
    delivery: Delivery = "pending"
    error: str | None = None
    """Why the channel refused it."""

    def __post_init__(self) -> None:
        require_member("Alert", "delivery", self.delivery, Delivery)
        require_aware("Alert", "created_at", self.created_at)
