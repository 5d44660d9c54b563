from dataclasses import replace
from datetime import timedelta

import pytest

from klaudit.errors import InvalidRecord
from klaudit.store import Store
from tests.store.examples import MOMENT, make_alert, make_finding, make_run


@pytest.fixture
def store_with_finding(store_with_run: Store) -> Store:
    store_with_run.findings.upsert("id-1", [make_finding()])
    return store_with_run


def test_alerts_come_back_the_oldest_first_by_run_or_all(store_with_finding: Store) -> None:
    store_with_finding.runs.add(make_run(2))
    store_with_finding.findings.upsert("id-2", [make_finding("id-2", key="finding-2")])
    late = replace(make_alert(), created_at=MOMENT + timedelta(seconds=1))
    other = make_alert("id-2", key="alert-2", finding_id="finding-2")
    store_with_finding.alerts.add(late)
    store_with_finding.alerts.add(other)
    assert store_with_finding.alerts.list() == [other, late]
    assert store_with_finding.alerts.list("id-1") == [late]


def test_an_alert_says_how_far_it_got(store_with_finding: Store) -> None:
    store_with_finding.alerts.add(make_alert())
    store_with_finding.alerts.set_delivery("alert-1", "failed", "HTTP 500")
    assert store_with_finding.alerts.list() == [replace(make_alert(), delivery="failed", error="HTTP 500")]
    store_with_finding.alerts.set_delivery("alert-1", "delivered")
    assert store_with_finding.alerts.list() == [replace(make_alert(), delivery="delivered", error=None)]


def test_an_alert_needs_a_stored_finding_and_an_id_of_its_own(store_with_finding: Store) -> None:
    store_with_finding.alerts.add(make_alert())
    for refused in (make_alert(), make_alert(key="alert-2", finding_id="nobody's")):
        with pytest.raises(InvalidRecord, match="a new alert of a stored finding"):
            store_with_finding.alerts.add(refused)
    with pytest.raises(InvalidRecord, match="got 'alert-9'"):
        store_with_finding.alerts.set_delivery("alert-9", "delivered")
    assert store_with_finding.alerts.list() == [make_alert()]
