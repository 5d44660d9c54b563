"""A training goes on to the bit while the store is away, and nothing that it logged is missing afterwards."""

import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

import klaudit
from klaudit.records import KLBudget
from klaudit.store import open_store
from klaudit.workflows.ledger import verify_ledger
from tests.callbacks.test_faults import drop_seconds
from tests.callbacks.trainings import make_trainer
from tests.models.tiny import make_tiny_model
from tests.postgresql_server import PostgreSQLServer

N_STEPS = 24
HELD_S = 60.0 if os.environ.get("KLAUDIT_SOAK") else 3.0

LOCKER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
connection.rollback()
"""


class AtStep(TrainerCallback):
    """Does something before some steps."""

    def __init__(self, acts: dict[int, Callable[[], object]]) -> None:
        self._acts = acts

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._acts.get(state.global_step + 1, lambda: None)()


def train(url: str, output_dir: Path, acts: dict[int, Callable[[], object]]) -> tuple[list[dict[str, float]], klaudit.KLAuditCallback]:
    trainer = make_trainer(make_tiny_model(), output_dir, max_steps=N_STEPS, sample_every=2)
    budget = KLBudget(1e6, "nats_per_sequence", action="stop")
    callback = klaudit.attach(trainer, run="tiny", store=url, budget=budget)
    trainer.add_callback(AtStep(acts))
    return drop_seconds(trainer.train().log_history), callback


@pytest.fixture
def undisturbed(tmp_path: Path) -> list[dict[str, float]]:
    trainer = make_trainer(make_tiny_model(), tmp_path / "alone", max_steps=N_STEPS, sample_every=2)
    return drop_seconds(trainer.train().log_history)


def require_whole(url: str, history: list[dict[str, float]]) -> None:
    with open_store(url) as store:
        run = store.runs.get("tiny")
        assert [(one.step, one.score) for one in store.steps.list(run.id)] == [(one["step"], one["score"]) for one in history]
        assert verify_ledger(store).is_intact


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_an_exclusive_lock_of_another_process(
    store_url: str, tmp_path: Path, undisturbed: list[dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = store_url.removeprefix("sqlite:///")
    lockers: list[subprocess.Popen[str]] = []

    def lock() -> None:
        locker = subprocess.Popen([sys.executable, "-c", LOCKER, path, str(HELD_S)], stdout=subprocess.PIPE, text=True)
        assert locker.stdout is not None
        assert locker.stdout.readline() == "held\n"
        lockers.append(locker)

    began = time.monotonic()
    history, callback = train(store_url, tmp_path / "watched", {4: lock})
    assert lockers[0].wait() == 0
    assert time.monotonic() - began >= HELD_S
    assert repr(history) == repr(undisturbed)
    assert callback.failures == 0
    require_whole(store_url, history)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert "failed and training goes on" not in capsys.readouterr().err


@pytest.mark.timeout(300)
def test_a_store_whose_disk_is_full(
    store_url: str, tmp_path: Path, undisturbed: list[dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    """No file of this process may grow beyond what the journal needs; the store's are larger already."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    acts: dict[int, Callable[[], object]] = {
        4: lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard)),
        18: lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)),
    }
    try:
        history, callback = train(store_url, tmp_path / "watched", acts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert repr(history) == repr(undisturbed)
    assert callback.failures == 0
    assert "the store does not take steps; they wait in" in capsys.readouterr().err
    require_whole(store_url, history)


@pytest.mark.parametrize("at_once", [False, True], ids=["in order", "as in a crash"])
@pytest.mark.timeout(300)
def test_a_postgresql_that_stops_and_starts(
    postgresql_url: str,
    postgresql_server: PostgreSQLServer,
    tmp_path: Path,
    undisturbed: list[dict[str, float]],
    monkeypatch: pytest.MonkeyPatch,
    at_once: bool,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    acts: dict[int, Callable[[], object]] = {5: lambda: postgresql_server.stop(at_once=at_once), 18: postgresql_server.start}
    history, callback = train(postgresql_url, tmp_path / "watched", acts)
    assert repr(history) == repr(undisturbed)
    assert callback.failures == 0
    require_whole(postgresql_url, history)


@pytest.mark.timeout(300)
def test_a_postgresql_that_is_not_there_until_later(
    postgresql_url: str,
    postgresql_server: PostgreSQLServer,
    tmp_path: Path,
    undisturbed: list[dict[str, float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("klaudit.workflows.recorder.run_recorder.LAST_STEPS_TIMEOUT_S", 0.5)
    postgresql_server.stop()
    try:
        history, _ = train(postgresql_url, tmp_path / "watched", {})
    finally:
        postgresql_server.start()
    assert repr(history) == repr(undisturbed)
    end = time.monotonic() + 60
    # The training is over and its process lives: the thread that has not reached the store goes on trying.
    while list((tmp_path / "state").rglob("*.journal")) and time.monotonic() < end:
        time.sleep(0.05)
    require_whole(postgresql_url, history)
