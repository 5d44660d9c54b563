"""Nothing that goes wrong in klaudit reaches the training."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import klaudit
from klaudit.ppo.trainer import PPOTrainer
from klaudit.records import KLBudget
from tests.callbacks.trainings import make_trainer
from tests.models.tiny import make_tiny_model

ANY_DRIFT = 1e-6
"""A limit in nats per sequence that every second step of a tiny model is over."""


def drop_seconds(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: number for name, number in entry.items() if not name.startswith("seconds_")} for entry in history]


class BeforeStep(TrainerCallback):
    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._act()


def remove_store(trainer: PPOTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def remove() -> None:
        for path in tmp_path.glob("klaudit.db*"):
            if path.is_file():
                path.unlink()

    trainer.add_callback(BeforeStep(remove))


def drop_table(trainer: PPOTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drop() -> None:
        with closing(sqlite3.connect(tmp_path / "klaudit.db", isolation_level=None)) as connection:
            connection.execute("DROP TABLE IF EXISTS steps")

    trainer.add_callback(BeforeStep(drop))


def break_recorder(trainer: PPOTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("klaudit.workflows.recorder.run_recorder.RunRecorder.log", fail)


def break_storing(trainer: PPOTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("klaudit.store.steps.StepRepository.add_all", fail)


def break_journal(trainer: PPOTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("a disk on fire")

    monkeypatch.setattr("klaudit.store.journal.writer.Journal.append_step", fail)


def break_engine(trainer: PPOTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("klaudit.audit.engine.AuditEngine.observe", fail)


def break_beginning(trainer: PPOTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "klaudit.db").write_text("this never was a database, and it is long enough to be told from one " * 20)


def break_nothing(trainer: PPOTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the experiment."""


FAULTS: list[tuple[Callable[..., None], str | None]] = [
    (break_nothing, None),
    (remove_store, "was taken away during the training"),
    (drop_table, "does not take steps; they wait in"),
    (break_recorder, "failed and training goes on"),
    (break_storing, "failed and training goes on"),
    (break_journal, "failed and training goes on"),
    (break_engine, "failed and training goes on"),
    (break_beginning, "the store cannot be used yet, and steps wait in"),
]


@pytest.mark.parametrize(("spoil", "told"), FAULTS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_training_is_the_same_to_the_bit_whatever_happens_to_klaudit(
    tmp_path: Path,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[..., None],
    told: str | None,
) -> None:
    alone, watched = make_tiny_model(), make_tiny_model()
    expected = make_trainer(alone, tmp_path / "alone", sample_every=1).train()
    trainer = make_trainer(watched, tmp_path / "watched", sample_every=1)
    monkeypatch.setattr("klaudit.workflows.recorder.run_recorder.LAST_STEPS_TIMEOUT_S", 0.5)
    callback = klaudit.attach(trainer, run="tiny-run", store=store_url, budget=KLBudget(ANY_DRIFT, "nats_per_sequence"))
    spoil(trainer, tmp_path, monkeypatch)
    state = trainer.train()
    assert repr(drop_seconds(state.log_history)) == repr(drop_seconds(expected.log_history))
    assert all(torch.equal(a, b) for a, b in zip(alone.model.parameters(), watched.model.parameters(), strict=True))
    assert (callback.failures > 0) is (told == "failed and training goes on")
    said = capsys.readouterr().err
    assert (told or "run 'tiny-run'") in said
    assert said.count("failed and training goes on") <= 1
