import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from klaudit.audit import Policy
from klaudit.errors import InvalidConfig, RunNotFound, StoreError
from klaudit.records import Finding, KLBudget, Severity
from klaudit.store import Store
from klaudit.workflows.audits import audit_stored_run, keep_findings
from klaudit.workflows.reports import compose_report, save_report
from tests.workflows.recordings import begin, make_step, record_all

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def recorded(store_url: str, store: Store) -> Store:
    """A run named `run` that breaks its budget at step 3."""
    with begin(store_url, budgets=[KLBudget(1.0, "nats_per_sequence")]) as recorder:
        record_all(recorder, [0.1, 0.2, 2.0])
    return store


def test_an_audit_changes_nothing_until_its_findings_are_kept(recorded: Store, store_url: str) -> None:
    run = recorded.runs.get("run")
    budget = KLBudget(0.15, "nats_per_sequence", run_id=run.id)
    recorded.budgets.add(budget)
    audit = audit_stored_run(recorded, "run")
    assert len(audit.findings) == 2
    assert len(recorded.findings.list(run.id)) == 1
    keep_findings(recorded, audit)
    assert tuple(recorded.findings.list(run.id)) == audit.findings


def test_a_run_is_audited_by_id_as_by_name(recorded: Store) -> None:
    run = recorded.runs.get("run")
    assert audit_stored_run(recorded, run.id) == audit_stored_run(recorded, "run")
    with pytest.raises(RunNotFound):
        audit_stored_run(recorded, "nobody")


def test_the_policy_that_is_given_is_the_one_that_judges(recorded: Store) -> None:
    audit = audit_stored_run(recorded, "run", policy=Policy(name="silent", rules={}))
    assert (audit.policy.name, audit.findings) == ("silent", ())


@pytest.mark.parametrize("report_format", ["html", "json", "md"])
def test_a_report_is_the_same_when_it_is_made_again(recorded: Store, report_format: str) -> None:
    first = compose_report(recorded, "run", report_format=report_format, generated_at=NOW)
    assert "KLA101" in first
    assert compose_report(recorded, "run", report_format=report_format, generated_at=NOW) == first


def test_a_report_in_json_has_a_schema_version(recorded: Store) -> None:
    assert json.loads(compose_report(recorded, "run", report_format="json", generated_at=NOW))["schema_version"] == 1


def test_a_format_that_does_not_exist_is_refused(recorded: Store) -> None:
    with pytest.raises(InvalidConfig, match="got 'docx'"):
        compose_report(recorded, "run", report_format="docx", generated_at=NOW)


def test_a_report_is_written_whole_into_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "run.md"
    save_report(path, "# Réport\n")
    assert path.read_text(encoding="utf-8") == "# Réport\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_report_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(StoreError, match=f"cannot write {target}"):
        save_report(target, "text")
    assert list(tmp_path.iterdir()) == [target]
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot write"):
        save_report(tmp_path / "file" / "report.md", "text")


def change_limit(store: Store, url: str, limit: float) -> list[Finding]:
    """What KLA405 says of a run that was over a limit of 1 in 2020, and has another since."""
    with begin(url) as recorder:
        for step, kl in enumerate([0.1, 0.2, 2.0], start=1):
            recorder.log(replace(make_step(step, kl), logged_at=datetime(2020, 1, 1, tzinfo=UTC)))
    old = store.budgets.add(KLBudget(1.0, "nats_per_sequence", match="run"))
    assert not [one for one in audit_stored_run(store, "run").findings if one.code == "KLA405"]
    store.budgets.remove(old.id)
    store.budgets.add(KLBudget(limit, "nats_per_sequence", match="run"))
    return [one for one in audit_stored_run(store, "run").findings if one.code == "KLA405"]


def test_a_limit_that_was_raised_after_its_breach_is_a_finding(store: Store, store_url: str) -> None:
    (finding,) = change_limit(store, store_url, 5.0)
    assert (finding.severity, finding.first_step, finding.value, finding.threshold) == (Severity.CRITICAL, 3, 2.0, 1.0)
    assert "was replaced by 5 nats/sequence, per step while it was exceeded" in finding.message
    assert f"by {store.ledger.actor.label}" in finding.message


def test_a_limit_that_was_lowered_is_none(store: Store, store_url: str) -> None:
    assert change_limit(store, store_url, 0.5) == []
