import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from klaudit.alerts import ConsoleChannel, WebhookChannel
from klaudit.errors import AlertNotDelivered, InvalidConfig
from klaudit.records import Alert, Severity
from tests.alerts.receiver import Receiver

ALERT = Alert(
    id="a1b2",
    run_id="run-1",
    finding_id="finding-1",
    severity=Severity.CRITICAL,
    step=34,
    title="critical: KLA101 budget_exceeded in run demo at step 34",
    text="KL was 2.41 nats/sequence. Raise beta.",
    channel="webhook",
    created_at=datetime(2026, 11, 22, 10, tzinfo=UTC),
)
SECRET = "/services/T00/B00/s3cret"


@contextmanager
def unused_port() -> Iterator[int]:
    """A port that is held and refuses, so that nothing else can answer there."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_a_webhook_posts_the_alert_once(receiver: Receiver) -> None:
    WebhookChannel(receiver.url + SECRET).deliver(ALERT)
    ((request, headers, _),) = receiver.requests
    assert request == f"POST {SECRET}"
    assert headers["Content-Type"] == "application/json"
    assert receiver.payloads == [
        {
            "schema_version": 1,
            "event_id": "a1b2",
            "run_id": "run-1",
            "finding_id": "finding-1",
            "severity": "critical",
            "step": 34,
            "title": ALERT.title,
            "text": f"{ALERT.title}\n{ALERT.text}",
            "created_at": "2026-11-22T10:00:00+00:00",
        }
    ]


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_an_answer_that_is_an_error_is_no_delivery_and_is_not_tried_again(receiver: Receiver, status: int) -> None:
    receiver.status = status
    with pytest.raises(AlertNotDelivered, match=f"answered {status}"):
        WebhookChannel(receiver.url + SECRET).deliver(ALERT)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_because_it_would_lose_the_alert(receiver: Receiver, status: int) -> None:
    receiver.status, receiver.headers = status, {"Location": receiver.url + "/login"}
    with pytest.raises(AlertNotDelivered, match=f"answered {status}"):
        WebhookChannel(receiver.url + SECRET).deliver(ALERT)
    assert [request for request, _, _ in receiver.requests] == [f"POST {SECRET}"]


def test_a_webhook_that_hangs_is_given_up(receiver: Receiver) -> None:
    receiver.may_answer.clear()
    with pytest.raises(AlertNotDelivered, match="did not answer") as caught:
        WebhookChannel(receiver.url + SECRET, timeout_s=0.05).deliver(ALERT)
    assert "s3cret" not in str(caught.value)


def test_a_webhook_that_refuses_is_named_without_its_secret() -> None:
    with unused_port() as port, pytest.raises(AlertNotDelivered, match=r"http://127\.0\.0\.1/\.\.\.") as caught:
        WebhookChannel(f"http://127.0.0.1:{port}{SECRET}").deliver(ALERT)
    assert "s3cret" not in str(caught.value)


def test_what_does_not_speak_http_is_no_delivery() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(AlertNotDelivered, match="did not answer in HTTP: BadStatusLine"):
            WebhookChannel(f"http://127.0.0.1:{server.getsockname()[1]}{SECRET}").deliver(ALERT)
        thread.join()


def test_a_path_that_no_request_can_hold_is_no_delivery_and_stays_secret() -> None:
    with pytest.raises(AlertNotDelivered) as caught:
        WebhookChannel("http://127.0.0.1/with a blank s3cret").deliver(ALERT)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "s3cret", "ftp://host/s3cret", "file:///etc/s3cret", "http://", "https:///s3cret", "http://host:s3cret/", "http://[::1/s3cret"],
)
def test_a_webhook_must_be_a_web_address(url: str) -> None:
    with pytest.raises(InvalidConfig, match="http:// or https:// URL with a host") as caught:
        WebhookChannel(url)
    assert "s3cret" not in str(caught.value)


def test_a_webhook_does_not_show_its_secret() -> None:
    assert repr(WebhookChannel(f"https://user:pass@hooks.example{SECRET}")) == "WebhookChannel(https://hooks.example/...)"


def test_the_console_shows_title_and_text_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    ConsoleChannel().deliver(ALERT)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"klaudit {ALERT.title}\n  {ALERT.text}\n"
