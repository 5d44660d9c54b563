"""Where an alert goes."""

import http.client
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

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


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET without its body: somebody's login page would count as delivery."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing."""
        return


@dataclass(frozen=True, slots=True)
class WebhookChannel:
    """One HTTP POST of JSON; `text` is the field that Slack-compatible receivers show.

    Raises:
        InvalidConfig: the URL is not http or https, or has no host.
    """

    url: str
    timeout_s: float = 10.0
    name: ClassVar[str] = "webhook"

    def __post_init__(self) -> None:
        if not is_web_address(self.url):
            raise InvalidConfig("the webhook must be an http:// or https:// URL with a host; got another (not shown: it may hold a secret)")

    def __repr__(self) -> str:
        """Without the path: webhook URLs carry their secret there."""
        parts = urllib.parse.urlsplit(self.url)
        return f"WebhookChannel({parts.scheme}://{parts.hostname}/...)"

    def deliver(self, alert: Alert) -> None:
        """One attempt.

        Raises:
            AlertNotDelivered: no answer within `timeout_s`, or an HTTP status of 300 and above.
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
            with urllib.request.build_opener(NoRedirects).open(request, timeout=self.timeout_s):
                return
        except urllib.error.HTTPError as error:
            raise AlertNotDelivered(f"{self!r} answered {error.code}") from None
        except OSError as error:
            raise AlertNotDelivered(f"{self!r} did not answer: {getattr(error, 'reason', error)}") from error
        except (http.client.HTTPException, ValueError) as error:
            # Their messages repeat the URL.
            raise AlertNotDelivered(f"{self!r} could not be asked, or did not answer in HTTP: {type(error).__name__}") from None


def is_web_address(url: str) -> bool:
    """Whether it is an http or https URL with a host, and a port that is a number where it has one."""
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
