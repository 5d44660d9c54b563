"""Where an alert goes."""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import ClassVar, Protocol

from klaudit.errors import AlertNotDelivered, InvalidConfig
from klaudit.records import Alert


class Channel(Protocol):
    """Something that takes alerts."""

    name: ClassVar[str]

    def deliver(self, alert: Alert) -> None:
        """Hand the alert over; returning means that it was taken.

        Raises:
            AlertNotDelivered: it was not.
        """


@dataclass(frozen=True, slots=True)
class ConsoleChannel:
    """Standard error of the training process."""

    name: ClassVar[str] = "console"

    def deliver(self, alert: Alert) -> None:
        """Print two lines."""
        print(f"klaudit {alert.title}\n  {alert.text}", file=sys.stderr, flush=True)  # noqa: T201 - printing is what this channel does


@dataclass(frozen=True, slots=True)
class WebhookChannel:
    """One HTTP POST of JSON; `text` is the field that Slack-compatible receivers show.

    Raises:
        InvalidConfig: the URL is not http or https.
    """

    url: str
    timeout_s: float = 10.0
    name: ClassVar[str] = "webhook"

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidConfig(
                f"the webhook must be an http:// or https:// URL; got one with scheme {parts.scheme!r} and host {parts.hostname!r}"
            )

    def __repr__(self) -> str:
        """Without the path: webhook URLs carry their secret there."""
        parts = urllib.parse.urlsplit(self.url)
        return f"WebhookChannel({parts.scheme}://{parts.hostname}/...)"

    def deliver(self, alert: Alert) -> None:
        """One attempt.

        Raises:
            AlertNotDelivered: no answer within `timeout_s`, or an HTTP status of 400 and above.
        """
        payload = {
            "schema_version": 1,
            "event_id": alert.id,
            "run_id": alert.run_id,
            "finding_id": alert.finding_id,
            "severity": str(alert.severity),
            "step": alert.step,
            "title": alert.title,
            "text": f"{alert.title}\n{alert.text}",
            "created_at": alert.created_at.isoformat(),
        }
        request = urllib.request.Request(self.url, json.dumps(payload).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s):
                return
        except urllib.error.HTTPError as error:
            raise AlertNotDelivered(f"{self!r} answered {error.code}") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise AlertNotDelivered(f"{self!r} did not answer: {reason}") from error
