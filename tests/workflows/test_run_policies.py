"""By which policy a run was audited, and by which it is audited again."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import klaudit
from klaudit.audit import PRESETS, Policy, read_policy
from klaudit.cli.main import run as run_command
from klaudit.records import KLBudget, KLSeries, Run
from klaudit.store import Store, open_store
from klaudit.workflows.audits import audit_stored_run, find_run_policy, keep_findings
from klaudit.workflows.backtest import backtest_runs
from klaudit.workflows.ledger import verify_ledger
from klaudit.workflows.loading import load_run
from klaudit.workflows.recorder.start import start_recording
from klaudit.workflows.replays import keep_replayed_findings
from klaudit.workflows.reports import compose_report
from tests.workflows.recordings import FULL, begin, make_step, record_all

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
BUDGET = KLBudget(1.0, "nats_per_sequence")
LAB = 'name = "lab"\nversion = "3"\nextends = "strict"\n[rules.KLA101]\nseverity = "info"\n'


@pytest.fixture
def lab(tmp_path: Path) -> Policy:
    path = tmp_path / "lab.toml"
    path.write_text(LAB)
    return read_policy(path)


def record(url: str, policy: Policy, kls: list[float], *, resumed_from_step: int | None = None) -> str:
    run = Run(id="", name="run", started_at=NOW, batch_size=16, series={"kl": FULL})
    with start_recording(url, run=run, budgets=(BUDGET,), policy=policy, resumed_from_step=resumed_from_step) as recording:
        record_all(recording, kls, first_step=(resumed_from_step or 0) + 1)
    return recording.run.id


def list_bodies(store: Store, kind: str) -> list[Mapping[str, Any]]:
    return [entry.body for entry in store.ledger.list() if entry.kind == kind]


def test_the_policy_of_the_live_audit_is_kept_with_the_run_and_judges_it_again(store_url: str, store: Store, lab: Policy) -> None:
    run_id = record(store_url, lab, [0.1, 2.0, 0.1])
    (body,) = list_bodies(store, "policy_set")
    assert body == {
        "segment": 0,
        "name": "lab",
        "version": "3",
        "extends": "strict",
        "rules": {"KLA101": {"severity": "info"}},
        "digest": lab.digest,
    }
    assert find_run_policy(store, run_id).digest == lab.digest
    audit = audit_stored_run(store, "run")
    assert audit.policy.digest == lab.digest
    assert tuple(store.findings.list(run_id)) == audit.findings
    assert [one.severity for one in audit.findings if one.code == "KLA101"] == ["info"]
    assert verify_ledger(store).is_intact


def test_a_run_that_nobody_gave_a_policy_has_the_default(store_url: str, store: Store) -> None:
    run_id = load_run(store, Run(id="", name="loaded", started_at=NOW, status="finished", series={"kl": FULL}), [make_step(1, 0.1)]).run.id
    assert list_bodies(store, "policy_set") == []
    assert find_run_policy(store, run_id) is PRESETS["default"]


def test_the_last_segment_says_by_which_policy_a_run_is_audited(store_url: str, store: Store, lab: Policy) -> None:
    record(store_url, PRESETS["default"], [0.1, 0.1])
    run_id = record(store_url, lab, [0.1], resumed_from_step=2)
    assert [(one["segment"], one["name"]) for one in list_bodies(store, "policy_set")] == [(0, "default"), (1, "lab")]
    assert find_run_policy(store, run_id).digest == lab.digest


def test_every_audit_that_is_kept_is_in_the_ledger_with_its_policy(store_url: str, store: Store, lab: Policy) -> None:
    record(store_url, lab, [0.1, 2.0, float("nan")])
    (live,) = list_bodies(store, "audited")
    assert live == {
        "policy": {"name": "lab", "version": "3", "digest": lab.digest},
        "n_steps": 3,
        "verdict": "fail",
        "n_findings": audit_stored_run(store, "run").count_findings(),
    }
    assert live["n_findings"]["critical"] >= 1
    keep_findings(store, audit_stored_run(store, "run"))
    assert list_bodies(store, "audited") == [live, live]
    load_run(store, Run(id="", name="loaded", started_at=NOW, status="finished", series={"kl": FULL}), [make_step(1, 0.1)])
    loaded = list_bodies(store, "audited")[2]
    assert (loaded["policy"], loaded["verdict"]) == (PRESETS["default"].describe(), "pass")
    assert verify_ledger(store).is_intact


def test_an_audit_by_another_policy_is_not_kept(store_url: str, store: Store, tmp_path: Path, lab: Policy) -> None:
    record(store_url, lab, [0.1, 0.1])
    for policy, n_audits in (("research", 1), (str(tmp_path / "lab.toml"), 2)):
        assert run_command(["audit", "run", "--policy", policy, "--store", store_url]) == 0
        assert len(list_bodies(store, "audited")) == n_audits
    assert run_command(["audit", "run", "--store", store_url]) == 0
    assert len(list_bodies(store, "audited")) == 3


def test_a_run_that_is_being_trained_is_audited_by_its_trainer_alone(store_url: str, store: Store) -> None:
    with begin(store_url) as recording:
        record_all(recording, [0.1])
        keep_findings(store, audit_stored_run(store, "run"))
        assert list_bodies(store, "audited") == []
    assert len(list_bodies(store, "audited")) == 1


def test_a_dead_trainers_run_is_audited_by_its_own_policy_although_it_never_reached_the_store(
    tmp_path: Path, store_url: str, lab: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("klaudit.workflows.recorder.worker.POLL_S", 3600.0)
    store_file = Path(store_url.removeprefix("sqlite:///"))
    away = store_file.rename(tmp_path / "away.db")
    store_file.mkdir()
    run = Run(id="", name="run", started_at=NOW, batch_size=16, series={"kl": FULL})
    recording = start_recording(store_url, run=run, budgets=(BUDGET,), policy=lab, in_use="rename")
    for step, kl in enumerate([0.1, 2.0], start=1):
        recording.log(make_step(step, kl))
    recording.step_outside()
    store_file.rmdir()
    away.rename(store_file)
    with open_store(store_url) as store:
        assert [one.n_steps for one in store.replayed] == [2]
        keep_replayed_findings(store)
        (audited,) = list_bodies(store, "audited")
        assert audited["policy"] == lab.describe()
        assert [one.severity for one in store.findings.list(store.runs.get("run").id) if one.code == "KLA101"] == ["info"]


def test_a_report_is_by_the_runs_own_policy_or_by_the_one_that_is_given(store_url: str, store: Store, lab: Policy) -> None:
    record(store_url, lab, [0.1, 2.0])
    own = compose_report(store, "run", report_format="json", generated_at=NOW)
    given = compose_report(store, "run", report_format="json", generated_at=NOW, policy=PRESETS["research"])
    assert (lab.digest in own, lab.digest in given, PRESETS["research"].digest in given) == (True, False, True)


def test_a_loop_keeps_the_policy_that_it_was_given(store_url: str, store: Store, lab: Policy, tmp_path: Path) -> None:
    kl = KLSeries(estimator="k1", unit="nats_per_sequence")
    with klaudit.start_run("loop", kl=kl, store=store_url, policy=tmp_path / "lab.toml") as run:
        run.log(step=1, kl=0.1)
    assert find_run_policy(store, store.runs.get("loop").id).digest == lab.digest


def test_a_failing_audit_does_not_keep_a_run_from_ending(store_url: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = begin(store_url)
    record_all(recording, [0.1])

    def fail(_self: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("klaudit.audit.AuditEngine.conclude", fail)
    recording.close()
    assert store.runs.get("run").status == "finished"
    assert list_bodies(store, "audited") == []


def test_a_back_test_reads_every_run_and_tells_how_far_it_is(store_url: str, store: Store, lab: Policy) -> None:
    record(store_url, lab, [0.1] * 5 + [2.0])
    later = Run(id="", name="loaded", started_at=NOW + timedelta(hours=1), status="finished", series={"kl": FULL})
    load_run(store, later, [make_step(1, 0.1)])
    before = store.ledger.head()
    told: list[tuple[int, int]] = []
    found = backtest_runs(store, policy=lab, against=PRESETS["default"], on_progress=lambda *done: told.append(done))
    assert [(one.run.name, one.policy.n_steps) for one in found.runs] == [("run", 6), ("loaded", 1)]
    budget_alarms = [[one.finding.code for one in trial.firings].count("KLA101") for trial in (found.runs[0].policy, found.runs[0].against)]
    assert budget_alarms == [0, 1]
    assert told[0] == (0, 7)
    assert store.ledger.head() == before


def test_a_policy_of_a_newer_klaudit_judges_as_far_as_it_is_known(store_url: str, store: Store, lab: Policy) -> None:
    run_id = record(store_url, lab, [0.1])
    body = {
        "segment": 0,
        "name": "lab",
        "version": "3",
        "extends": "strict",
        "rules": {"KLA999": {"enabled": False}, "KLA302": {"enabled": False}},
    }
    store.ledger.note("policy_set", body, run_id=run_id)
    found = find_run_policy(store, run_id)
    assert found.rules["KLA302"] == replace(PRESETS["strict"].rules["KLA302"], enabled=False)


def test_the_ledger_tells_people_of_policies_and_audits(
    store_url: str, store: Store, lab: Policy, capsys: pytest.CaptureFixture[str]
) -> None:
    record(store_url, lab, [0.1])
    assert run_command(["ledger", "list", "--store", store_url]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"segment 0, policy lab 3, {lab.digest}" in told
    assert f"pass after 1 step, policy lab 3, {lab.digest}" in told
