import math
import threading
from pathlib import Path

import pytest

from klaudit.alerts import WebhookChannel
from klaudit.errors import InvalidRecord
from klaudit.records import KLBudget, KLReading, KLSeries, Severity, StepRecord, TextSample
from klaudit.store import Store
from klaudit.store.sessions import find_free_name
from klaudit.workflows.audits import audit_stored_run
from tests.alerts.receiver import Receiver
from tests.workflows.recordings import FULL, NOW, REFUSED, Collector, begin, make_step, record_all

BUDGET = KLBudget(1.0, "nats_per_sequence", owner="me")


def test_a_run_that_was_recorded_is_there_with_steps_segment_and_budget(store_url: str, store: Store) -> None:
    with begin(store_url, budgets=[BUDGET]) as recorder:
        record_all(recorder, [0.0, 0.1, 0.2])
        recorder.add_checkpoint(step=3, path="/somewhere/checkpoint-3")
    run = store.runs.get("run")
    assert (run.status, run.batch_size, run.series) == ("finished", 16, {"kl": FULL})
    assert [(step.step, step.segment, step.kl.value) for step in store.steps.list(run.id)] == [(1, 0, 0.0), (2, 0, 0.1), (3, 0, 0.2)]
    (segment,) = store.runs.segments(run.id)
    assert segment.ended_at is not None
    assert [(one.limit, one.owner, one.run_id) for one in store.budgets.for_run(run)] == [(1.0, "me", run.id)]
    assert [(one.step, one.path) for one in store.checkpoints.list(run.id)] == [(3, "/somewhere/checkpoint-3")]


def test_a_run_that_fails_is_marked(store_url: str, store: Store) -> None:
    def train() -> None:
        with begin(store_url) as recorder:
            record_all(recorder, [0.1])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert store.runs.get("run").status == "failed"


def test_a_run_that_is_being_recorded_is_running(store_url: str, store: Store) -> None:
    with begin(store_url):
        assert store.runs.get("run").status == "running"


def test_a_second_start_under_a_name_is_a_new_run_and_the_old_one_stays_as_it_is(store_url: str, store: Store) -> None:
    with begin(store_url, budgets=[BUDGET]) as recorder:
        record_all(recorder, [0.1, 0.2])
    before = (store.runs.get("run"), store.steps.list(recorder.run.id))
    with begin(store_url) as second, begin(store_url) as third:
        record_all(second, [5.0, 6.0, 7.0])
        assert (second.run.name, third.run.name) == ("run-2", "run-3")
    assert (store.runs.get("run"), store.steps.list(recorder.run.id)) == before
    assert store.steps.count(second.run.id) == 3
    assert second.budgets == ()


def test_a_resumed_run_goes_on_in_its_next_segment(store_url: str, store: Store) -> None:
    with begin(store_url, budgets=[BUDGET]) as first:
        record_all(first, [0.1, 0.2, 0.3, 0.4])
    with begin(store_url, budgets=[BUDGET], resumed_from_step=2) as second:
        assert (second.run.id, second.segment) == (first.run.id, 1)
        assert store.runs.get("run").status == "running"
        record_all(second, [0.3, 0.5], first_step=3)
    assert [(step.segment, step.step) for step in store.steps.list(first.run.id)] == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 3), (1, 4)]
    assert [one.resumed_from_step for one in store.runs.segments(first.run.id)] == [None, 2]
    assert len(store.budgets.for_run(second.run)) == 1
    assert store.runs.get("run").status == "finished"


def test_a_resume_without_an_old_run_is_a_new_one(store_url: str) -> None:
    with begin(store_url, resumed_from_step=20) as recorder:
        assert (recorder.run.name, recorder.segment) == ("run", 0)


def test_a_step_is_never_overwritten(store_url: str, store: Store) -> None:
    with begin(store_url) as recorder:
        record_all(recorder, [0.1])
        with pytest.raises(InvalidRecord, match="after 1; got 1"):
            recorder.log(make_step(1, 9.9))
    assert [step.kl.value for step in store.steps.list(recorder.run.id)] == [0.1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_comes_back_as_what_it_is(store_url: str, store: Store, value: float) -> None:
    with begin(store_url) as recorder:
        step = StepRecord(1, KLReading(FULL, value, 0.1, 16), NOW, score=value, metrics={"entropy": value})
        recorder.log(step)
    (stored,) = store.steps.list(recorder.run.id)
    assert repr((stored.kl.value, stored.score, stored.metrics["entropy"])) == repr((value, value, value))


def test_texts_of_a_resumed_run_are_kept_under_its_segment(store_url: str, store: Store) -> None:
    with begin(store_url) as first:
        record_all(first, [0.1])
    with begin(store_url, resumed_from_step=1) as second:
        second.log(make_step(2, 0.2, segment=1), samples=[TextSample(2, "The film was", " good", ())])
    (sample,) = store.samples.list(first.run.id)
    assert (sample.segment, sample.step, sample.completion) == (1, 2, " good")


# A slow rise through the budget, a jump, a NaN and a fall: KLA101, KLA201 and KLA303 all have something to say.
EVENTFUL = [*(0.05 * step for step in range(1, 25)), 9.0, math.nan, 9.5, 1.4, 0.4, 0.3, 0.2, 0.1]


def test_findings_made_live_are_those_of_an_audit_afterwards(store_url: str, store: Store) -> None:
    with begin(store_url, budgets=[BUDGET]) as recorder:
        record_all(recorder, EVENTFUL)
    live = store.findings.list(recorder.run.id)
    assert {finding.code for finding in live} == {"KLA101", "KLA201", "KLA303"}
    assert tuple(live) == audit_stored_run(store, "run").findings


def test_findings_of_a_resumed_run_are_those_of_an_audit_afterwards(store_url: str, store: Store) -> None:
    with begin(store_url, budgets=[BUDGET]) as first:
        record_all(first, EVENTFUL)
    with begin(store_url, resumed_from_step=20) as second:
        record_all(second, EVENTFUL, first_step=21)
    live = store.findings.list(first.run.id)
    assert {finding.segment for finding in live} == {0, 1}
    assert tuple(live) == audit_stored_run(store, "run").findings


def test_a_series_that_is_declared_late_governs_from_then_on(store_url: str, store: Store) -> None:
    k1 = KLSeries(estimator="k1", unit="nats_per_sequence")
    with begin(store_url, budgets=[BUDGET]) as recorder:
        recorder.declare_series({"kl": k1})
        for step in (1, 2, 3):
            reading = KLReading(k1, 0.1, 0.01, 16)
            better = {"kl_full": KLReading(FULL, 5.0, 0.1, 16)} if step > 1 else {}
            if step == 2:
                recorder.declare_series({"kl": k1, "kl_full": FULL})
            recorder.log(StepRecord(step, reading, NOW, readings=better))
    (finding,) = store.findings.list(recorder.run.id)
    assert (finding.code, finding.series, finding.detected_step) == ("KLA101", "kl_full", 2)


def test_a_breach_is_told_once_and_once_more_when_it_grows(store_url: str, store: Store) -> None:
    collector = Collector()
    with begin(store_url, budgets=[BUDGET], channels=[collector]) as recorder:
        # 1.05 +- 0.1 may be noise; 1.5 +- 0.1 is not.
        for step, kl in enumerate([0.5, 1.05, 1.06, 1.5, 1.6, 1.7, 0.2, 0.2, 0.2], start=1):
            record_all(recorder, [kl], first_step=step)
    assert [(alert.severity, alert.step) for alert in collector.alerts] == [(Severity.WARNING, 2), (Severity.CRITICAL, 2)]
    stored = store.alerts.list(recorder.run.id)
    assert [(alert.severity, alert.delivery) for alert in stored] == [(Severity.WARNING, "delivered"), (Severity.CRITICAL, "delivered")]
    assert len({alert.id for alert in stored}) == 2


def test_every_channel_is_told(store_url: str, store: Store, receiver: Receiver) -> None:
    with begin(store_url, budgets=[BUDGET], channels=[Collector(), WebhookChannel(receiver.url)]) as recorder:
        record_all(recorder, [2.0])
    stored = {alert.channel: alert for alert in store.alerts.list(recorder.run.id)}
    assert set(stored) == {"collector", "webhook"}
    assert [payload["event_id"] for payload in receiver.payloads] == [stored["webhook"].id]


def test_a_resumed_run_does_not_tell_of_its_past_again(store_url: str) -> None:
    before, after = Collector(), Collector()
    with begin(store_url, budgets=[BUDGET], channels=[before]) as first:
        record_all(first, [2.0, 2.1])
    with begin(store_url, channels=[after], resumed_from_step=2) as second:
        record_all(second, [0.1], first_step=3)
    assert len(before.alerts) == 1
    assert after.alerts == []


@pytest.mark.parametrize(("refusal", "error"), [(REFUSED, "nobody home"), (RuntimeError("a bug"), "RuntimeError: a bug")])
def test_an_alert_that_was_refused_is_recorded_as_failed_and_the_run_goes_on(
    store_url: str, store: Store, refusal: Exception, error: str
) -> None:
    with begin(store_url, budgets=[BUDGET], channels=[Collector(refusal)]) as recorder:
        record_all(recorder, [2.0, 2.1, 2.2])
    assert [(alert.delivery, alert.error) for alert in store.alerts.list(recorder.run.id)] == [("failed", error)]
    assert store.steps.count(recorder.run.id) == 3


def test_a_webhook_that_hangs_does_not_hold_the_trainer(store_url: str, store: Store, receiver: Receiver) -> None:
    receiver.may_answer.clear()
    with begin(store_url, budgets=[BUDGET], channels=[WebhookChannel(receiver.url)]) as recorder:
        record_all(recorder, [2.0, 2.1, 2.2])
        # Every step is stored while the server still has not answered.
        assert store.steps.count(recorder.run.id) == 3
        assert [alert.delivery for alert in store.alerts.list(recorder.run.id)] == ["pending"]
        assert any(thread.name == "klaudit-alert" for thread in threading.enumerate())
        receiver.may_answer.set()
    assert [alert.delivery for alert in store.alerts.list(recorder.run.id)] == ["delivered"]


def test_closing_does_not_wait_for_ever(store_url: str, store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klaudit.workflows.recorder.carrier.LAST_ALERTS_TIMEOUT_S", 0.05)
    receiver.may_answer.clear()
    with begin(store_url, budgets=[BUDGET], channels=[WebhookChannel(receiver.url)]) as recorder:
        record_all(recorder, [2.0])
    assert store.runs.get("run").status == "finished"
    assert [alert.delivery for alert in store.alerts.list(recorder.run.id)] == ["pending"]


def test_what_is_only_worth_knowing_is_told_to_nobody(store_url: str) -> None:
    collector = Collector()
    with begin(store_url, channels=[collector]) as recorder:
        record_all(recorder, [0.1, 0.1, 0.2])
    assert collector.alerts == []


@pytest.mark.parametrize(
    ("taken", "free"), [([], "a"), (["a"], "a-2"), (["a", "a-2", "a-3"], "a-4"), (["a-2"], "a"), (["a", "a-3"], "a-2")]
)
def test_a_free_name_is_the_first_that_is_not_taken(taken: list[str], free: str) -> None:
    assert find_free_name("a", taken=taken) == free


def test_the_store_is_closed_with_the_recorder(store_url: str, tmp_path: Path) -> None:
    with begin(store_url) as recorder:
        record_all(recorder, [0.1])
    # SQLite's write-ahead log goes with the last connection: the run is in one file.
    assert not (tmp_path / "klaudit.db-wal").exists()
