from dataclasses import replace

import pytest

from klaudit.errors import InvalidRecord
from klaudit.records import Severity
from klaudit.store import Store
from tests.store.examples import make_finding, make_run


def test_findings_come_back_by_first_step_code_and_id(store_with_run: Store) -> None:
    late = replace(make_finding(key="a"), first_step=5)
    other_rule = replace(make_finding(key="b"), code="KLA101")
    plain = make_finding(key="c")
    store_with_run.findings.upsert("id-1", [late, plain, other_rule])
    assert repr(store_with_run.findings.list("id-1")) == repr([other_rule, plain, late])


def test_an_episode_that_goes_on_is_one_finding_revised(store_with_run: Store) -> None:
    store_with_run.findings.upsert("id-1", [make_finding(last_step=7)])
    grown = replace(make_finding(last_step=9), severity=Severity.CRITICAL, first_step=2, status="ended", value=float("nan"))
    store_with_run.findings.upsert("id-1", [grown, make_finding(key="second")])
    assert repr(store_with_run.findings.list("id-1")) == repr([grown, make_finding(key="second")])


def test_the_step_of_detection_never_changes_and_nothing_is_written(store_with_run: Store) -> None:
    store_with_run.findings.upsert("id-1", [make_finding()])
    with pytest.raises(InvalidRecord, match="the step that it was detected at; got run id-1, step 6"):
        store_with_run.findings.upsert("id-1", [make_finding(key="new"), replace(make_finding(), detected_step=6)])
    assert repr(store_with_run.findings.list("id-1")) == repr([make_finding()])


def test_a_finding_never_moves_to_another_run(store_with_run: Store) -> None:
    store_with_run.runs.add(make_run(2))
    store_with_run.findings.upsert("id-1", [make_finding()])
    with pytest.raises(InvalidRecord, match="finding finding-1 to stay with run id-2"):
        store_with_run.findings.upsert("id-2", [make_finding()])
    with pytest.raises(InvalidRecord, match="finding finding-1 to stay with run id-2"):
        store_with_run.findings.upsert("id-2", [make_finding("id-2")])
    assert store_with_run.findings.list("id-2") == []


def test_no_findings_are_no_work(store: Store) -> None:
    store.findings.upsert("nobody", [])
    assert store.findings.list("nobody") == []
