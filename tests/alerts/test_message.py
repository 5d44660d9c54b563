from dataclasses import replace
from datetime import UTC, datetime

from klaudit.alerts import compose_alert
from klaudit.records import Finding, Severity

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
FINDING = Finding(
    id="f1",
    run_id="run-1",
    code="KLA101",
    rule="budget_exceeded",
    rule_version=1,
    severity=Severity.WARNING,
    first_step=30,
    detected_step=34,
    last_step=36,
    message="KL was 2.41 nats/sequence.",
    remedy="Raise beta.",
)


def test_an_alert_says_what_where_and_what_to_do() -> None:
    alert = compose_alert(FINDING, run_name="demo", channel="console", created_at=NOW)
    assert alert.title == "warning: KLA101 budget_exceeded in run demo at step 34"
    assert alert.text == "KL was 2.41 nats/sequence. Raise beta."
    assert (alert.run_id, alert.finding_id, alert.severity, alert.step, alert.delivery) == ("run-1", "f1", Severity.WARNING, 34, "pending")


def test_the_same_message_has_the_same_id_whenever_it_is_sent() -> None:
    later = NOW.replace(year=2027)
    longer = replace(FINDING, last_step=50)
    first = compose_alert(FINDING, run_name="demo", channel="console", created_at=NOW)
    assert compose_alert(longer, run_name="demo", channel="console", created_at=later).id == first.id


def test_another_severity_or_channel_is_another_message() -> None:
    grown = replace(FINDING, severity=Severity.CRITICAL)
    ids = {
        compose_alert(finding, run_name="demo", channel=channel, created_at=NOW).id
        for finding in (FINDING, grown)
        for channel in ("console", "webhook")
    }
    assert len(ids) == 4
