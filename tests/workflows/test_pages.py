import math
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from klaudit.errors import RunNotFound, StoreError
from klaudit.records import (
    PRIMARY,
    DriftMeasurement,
    Finding,
    KLBudget,
    KLReading,
    KLSeries,
    LoggedStep,
    ReferenceModel,
    Run,
    Segment,
    Severity,
    StepRecord,
    TextSample,
)
from klaudit.report.views import RunLedger, view_run
from klaudit.store import Store, open_store
from klaudit.workflows.pages import Pages, open_pages
from tests.workflows.recordings import begin, make_step, record_all


@pytest.fixture
def pages(store_url: str) -> Pages:
    with begin(store_url, budgets=[KLBudget(1.0, "nats_per_sequence")]) as recorder:
        recorder.log(make_step(1, 0.1), samples=[TextSample(1, "p", "c", ())])
        record_all(recorder, [0.2, 2.0], first_step=2)
    return open_pages(store_url)


def test_pages_read_what_was_recorded(pages: Pages) -> None:
    run = pages.find_run("run")
    assert len(pages.show_runs().rows) == 1
    assert pages.list_sample_steps(run.id) == [1]
    assert len(pages.show_samples(run.id, step=1)) == 1
    assert [marker.code for marker in pages.show_run(run.id).markers] == ["KLA101"]
    assert pages.show_drift(run.id).run_id == run.id


def test_findings_come_with_what_their_rule_says_of_itself(pages: Pages) -> None:
    run = pages.find_run("run")
    (finding,) = [one for one in pages.show_findings(run.id).findings if one.code == "KLA101"]
    assert (finding.run_name, finding.rule, finding.threshold) == ("run", "Budget exceeded", "1 nats/sequence")
    assert "owner of the run promised" in finding.why
    assert finding.charts[0].levels == (("limit 1 nats/sequence", 1.0),)
    assert pages.list_findings() == pages.show_findings(run.id)


def test_findings_of_all_runs_come_newest_run_first_and_say_what_they_leave_out(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(store_url, create=True) as store:
        for at, name in enumerate(("old", "new")):
            began = datetime(2026, 11, 20 + at, tzinfo=UTC)
            store.runs.add(Run(name, name, began, status="finished", finished_at=began))
            store.runs.add_segment(Segment(name, 0, began, ended_at=began))
            store.findings.upsert(
                name, [Finding(f"{name}-{one}", name, "KLA201", "kl_jump", 2, Severity.INFO, one, one, one, "m", "r") for one in (1, 2)]
            )
    pages = open_pages(store_url)
    assert [one.id for one in pages.list_findings().findings] == ["new-1", "new-2", "old-1", "old-2"]
    monkeypatch.setattr("klaudit.workflows.pages.MOST_FINDINGS", 3)
    view = pages.list_findings()
    assert ([one.id for one in view.findings], view.n_left_out) == (["new-1", "new-2"], 2)


def test_what_was_judged_is_told_of_a_run_that_is_not_too_long(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pages.find_run("run")
    judged = pages.show_judged(run.id)
    assert judged is not None
    assert judged.statement.startswith("3 steps judged by the policy default, KL measured on 3 of them (100%)")
    assert ("KLA201", "KL jump") in {(code, rule) for code, rule, _ in judged.silent}
    monkeypatch.setattr("klaudit.workflows.pages.LONG_RUN", 2)
    assert pages.show_judged(run.id) is None


def test_the_state_of_a_run_changes_with_every_step(pages: Pages, store_url: str) -> None:
    run = pages.find_run("run")
    before = pages.read_state(run.id)
    assert (before.status, before.n_steps) == ("finished", 3)
    with begin(store_url, resumed_from_step=3) as recorder:
        record_all(recorder, [0.3], first_step=4)
        during = pages.read_state(run.id)
    assert (during.status, during.n_steps) == ("running", 4)
    assert pages.read_state(run.id).status == "finished"


def test_pages_cannot_change_the_store(pages: Pages) -> None:
    store: Store = pages._store
    with pytest.raises(StoreError):
        store.runs.delete(pages.find_run("run").id)
    assert pages.find_run("run").name == "run"


def test_a_run_that_is_not_there_is_named(pages: Pages) -> None:
    for read in (pages.find_run, pages.read_state, pages.show_run, pages.show_drift):
        with pytest.raises(RunNotFound, match="nobody"):
            read("nobody")


MOMENT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
FULL = KLSeries(estimator="full", unit="nats_per_sequence", aggregation="batch_mean")
LONG = 6_000


def make_long_step(step: int) -> StepRecord:
    kl = {3_210: 40.0, 3_300: math.nan}.get(step, step / LONG)
    metrics = {"entropy": math.inf if step == 4_444 else 2.0}
    return StepRecord(
        step=step, kl=KLReading(FULL, kl, 0.5), logged_at=MOMENT + timedelta(seconds=step), beta=0.05, score=0.5, metrics=metrics
    )


@pytest.fixture
def long_pages(store_url: str) -> Pages:
    with open_store(store_url, create=True) as store:
        store.runs.add(Run("long", "long", MOMENT, series={PRIMARY: FULL}))
        finding = Finding(
            id="finding-1",
            run_id="long",
            code="KLA202",
            rule="kl_spike",
            rule_version=1,
            severity=Severity.WARNING,
            first_step=1_001,
            detected_step=1_003,
            last_step=1_007,
            message="KL jumped",
            remedy="Look at it",
        )
        store.steps.add_all("long", [LoggedStep(make_long_step(step)) for step in range(LONG)], findings=[finding])
        measurement = DriftMeasurement("c", ReferenceModel("r"), FULL, 0.5, 0.25, 0.75, 32, 24.0, MOMENT, run_id="long", step=500)
        store.drift.add_all([measurement])
    return open_pages(store_url)


def test_a_long_run_is_drawn_from_its_roll_ups_and_nothing_that_matters_is_lost(long_pages: Pages) -> None:
    view = long_pages.show_run("long")
    curve = view.governing
    assert curve is not None
    shown = dict(zip(curve.steps, curve.values, strict=True))
    assert curve.statement.startswith(f"showing {curve.n_shown:,} of 6,000 points; lowest and highest of every 64 steps")
    assert shown[3_210] == 40.0
    assert {1_001, 1_003, 1_007, LONG - 1} <= shown.keys()
    assert [(gap.first_step, gap.last_step, gap.kind) for gap in curve.gaps] == [(3_300, 3_300, "NaN")]
    entropy = view.curve("entropy")
    assert entropy is not None
    assert [gap.kind for gap in entropy.gaps] == ["Infinity"]
    assert [(marker.code, marker.value) for marker in view.markers] == [("KLA202", 1_003 / LONG)]
    assert (view.n_steps, view.n_segments) == (LONG, 1)


def test_a_long_runs_headline_is_that_of_its_last_step(long_pages: Pages) -> None:
    store: Store = long_pages._store
    run = store.runs.get("long")
    whole = view_run(run, steps=store.steps.list("long"), findings=store.findings.list("long"))
    assert long_pages.show_run("long").headline == whole.headline
    assert long_pages.show_run("long").statement == whole.statement


def test_the_drift_of_a_long_run_stands_beside_what_was_logged(long_pages: Pages) -> None:
    view = long_pages.show_drift("long")
    (point,) = view.points
    assert point.logged is not None
    assert (point.logged.logged_step, point.logged.value) == (501, 501 / LONG)
    assert view.logged is not None
    assert dict(zip(view.logged.steps, view.logged.values, strict=True))[3_209] == 40.0
    assert "lowest and highest of every 64 steps" in view.logged.statement


def test_a_path_budget_in_another_unit_is_summed_over_every_step(store_url: str, long_pages: Pages) -> None:
    update = replace(FULL, kind="update", unit="nats_per_token")
    with open_store(store_url) as store:
        store.runs.set_series("long", {"kl_update": update})
        reading = KLReading(update, 0.25, mean_length=10.0)
        store.steps.add("long", replace(make_long_step(LONG), readings={"kl_update": reading}))
        store.budgets.add(KLBudget(100.0, unit="nats_per_sequence", scope="path", run_id="long"))
    (use,) = long_pages.show_run("long").budgets
    assert use.value == 2.5


def test_what_the_ledger_holds_of_a_run_is_read_on_from_where_it_was(pages: Pages, store_url: str) -> None:
    run = pages.find_run("run")
    before = pages.read_ledger(run.id, after=RunLedger())
    with begin(store_url, resumed_from_step=3) as recorder:
        record_all(recorder, [0.3], first_step=4)

    after = pages.read_ledger(run.id, after=before)
    assert (before.n_steps, after.n_steps) == (3, 4)
    assert after == pages.read_ledger(run.id, after=RunLedger())
    assert pages.show_capture(run.id, ledger=after).ledger_statement == "The ledger covers all 4 steps."


def test_a_run_that_is_being_recorded_shows_life_and_one_whose_process_is_gone_does_not(pages: Pages, store_url: str) -> None:
    run = pages.find_run("run")
    with begin(store_url, resumed_from_step=3) as recorder:
        record_all(recorder, [0.3], first_step=4)
        assert pages.read_state(run.id).silence is None
        assert [one.ended for one in pages.show_capture(run.id, ledger=RunLedger()).segments][1:] == ["being written"]
        assert pages.show_runs().n_running == 1

    sign = datetime.now(UTC) - timedelta(minutes=5)
    with open_store(store_url) as store:
        store.runs.set_status(run.id, "running")
        writer = Segment(run.id, 2, sign, host=socket.gethostname(), pid=2**22 + 7, heartbeat_at=sign, lease_until=sign)
        store.runs.add_segment(writer)
    assert "no sign of life since" in (pages.read_state(run.id).silence or "")
    assert pages.show_runs().n_running == 0
    assert pages.show_runs().rows[0].silence == pages.read_state(run.id).silence
