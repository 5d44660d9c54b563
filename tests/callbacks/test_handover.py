import sqlite3
import threading

import pytest

import klaudit
from klaudit.callbacks import handover
from klaudit.callbacks.handover import Handover
from klaudit.callbacks.recording import Guard
from klaudit.records import KLSeries
from klaudit.store import Store

K1 = KLSeries(estimator="k1", unit="nats_per_sequence")


def test_jobs_are_done_in_order_and_all_of_them_before_the_end() -> None:
    done: list[int] = []
    worker = Handover(Guard())
    for number in range(1000):
        worker.put(lambda number=number: done.append(number))  # type: ignore[misc]
    worker.close()
    assert done == list(range(1000))


def test_a_job_that_fails_is_counted_and_the_next_one_is_done() -> None:
    guard, done = Guard(), threading.Event()
    worker = Handover(guard)
    worker.put(lambda: 1 / 0)
    worker.put(done.set)
    assert worker.drain()
    assert done.is_set()
    assert guard.failures == 1
    worker.close()


def test_what_finds_no_room_is_lost_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "MOST_WAITING", 2)
    guard, gate, done = Guard(), threading.Event(), []
    worker = Handover(guard)
    worker.put(gate.wait)
    for number in range(10):
        worker.put(lambda number=number: done.append(number))  # type: ignore[misc]
    lost = guard.failures
    gate.set()
    worker.close()
    assert lost >= 7
    assert len(done) + lost == 10


def test_a_store_that_never_answers_ends_the_wait_and_not_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    guard, gate = Guard(), threading.Event()
    worker = Handover(guard)
    worker.put(gate.wait)
    assert not worker.drain(timeout_s=0.05)
    gate.set()
    assert worker.drain()
    worker.close()
    assert guard.failures == 0


def test_a_lock_held_by_somebody_else_does_not_hold_the_trainer(store_url: str, store: Store) -> None:
    run = klaudit.start_run("locked", kl=K1, store=store_url)
    run.log(step=1, kl=0.1)
    assert run.failures == 0
    other = sqlite3.connect(store_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for step in (2, 3, 4):
        run.log(step=step, kl=0.1)
    other.execute("ROLLBACK")
    other.close()
    run.close()
    assert run.failures == 0
    assert [one.step for one in store.steps.list(store.runs.get("locked").id)] == [1, 2, 3, 4]
