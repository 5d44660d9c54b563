from pathlib import Path

import pytest

from klaudit.records import LoggedStep
from klaudit.store.journal.content import read_journal
from klaudit.store.journal.writer import Journal
from klaudit.workflows.recorder.queue import StepQueue, weigh
from klaudit.workflows.recorder.reporter import Silence
from tests.store.journal.examples import SAMPLE, make_session, make_step


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klaudit.workflows.recorder.queue.MOST_WAITING", 3)


def put(queue: StepQueue, *steps: int) -> None:
    for step in steps:
        queue.put_step(LoggedStep(make_step(step)))


def read_steps(path: Path) -> list[int]:
    return [entry[1] for entry in read_journal(path).entries if entry[0] == "step"]


def test_what_memory_does_not_hold_is_read_back_from_the_journal_in_order(tmp_path: Path) -> None:
    queue = StepQueue(Journal([tmp_path], make_session()), is_prompt=True, reporter=Silence())
    put(queue, 1, 2, 3, 4)
    queue.put_entry(("checkpoint", 4, "/somewhere", "", None))
    put(queue, 5)
    assert (len(queue), queue.last_step, queue.is_empty) == (3, 5, False)
    queue.drop(len(queue.read()))
    assert not queue.trim()
    entries, place = queue.read_spilled()
    assert [(entry[0], entry[1]) for entry in entries] == [("step", 4), ("checkpoint", 4), ("step", 5)]
    assert place is not None
    queue.skip_spilled(place)
    assert queue.read_spilled() == ([], None)
    assert queue.is_empty
    assert queue.trim()
    assert read_journal(tmp_path / "s1.journal").entries == ()


def test_the_line_that_says_how_a_run_ended_stays_in_the_journal(tmp_path: Path) -> None:
    queue = StepQueue(Journal([tmp_path], make_session()), is_prompt=True, reporter=Silence())
    queue.put_end(failed=True)
    assert queue.trim()
    assert read_journal(tmp_path / "s1.journal").entries == (("end", True),)


def test_without_a_journal_what_memory_does_not_hold_is_lost_and_counted() -> None:
    queue = StepQueue(None, is_prompt=True, reporter=Silence())
    put(queue, 1, 2, 3, 4, 5)
    assert (len(queue), queue.loss.n, queue.loss.first_step, queue.loss.last_step) == (3, 2, 4, 5)
    queue.drop(3)
    put(queue, 6)
    assert (len(queue), queue.loss.n) == (1, 2)


def test_a_queue_that_is_not_prompt_journals_only_what_memory_does_not_hold(tmp_path: Path) -> None:
    queue = StepQueue(Journal([tmp_path], make_session()), is_prompt=False, reporter=Silence())
    put(queue, 1, 2, 3, 4, 5)
    assert read_steps(tmp_path / "s1.journal") == [4, 5]


def test_texts_weigh_by_their_tokens() -> None:
    assert weigh(LoggedStep(make_step(3))) == 1
    assert weigh(LoggedStep(make_step(3), (SAMPLE,) * 32)) == 3
