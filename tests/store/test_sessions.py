import errno
import fcntl
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from klaudit.errors import NameTaken, RunNotFound, StoreUnreachable
from klaudit.records import Run, Segment
from klaudit.records.session import Session
from klaudit.store import Store, open_store
from klaudit.store.journal.directories import list_journal_directories
from klaudit.store.journal.entry import Entry
from klaudit.store.journal.writer import Journal
from klaudit.store.process import describe_process_start
from klaudit.store.runs import RunRepository
from klaudit.store.sessions import PLACINGS, begin_session, end_session, is_segment_live
from tests.store.examples import FULL, MOMENT, make_run, make_sample, make_step

NOT_UTF8 = "/models/\udcff"


def make_session(name: str = "s1", **known: Any) -> Session:
    run = Run(id=f"run-of-{name}", name=name, started_at=MOMENT, batch_size=16, series={"kl": FULL})
    return replace(Session(name, run, MOMENT, host=socket.gethostname(), pid=os.getpid()), **known)


def leave_journal(
    url: str, *entries: Entry, session: Session | None = None, given: tuple[Path, ...] = (), steps: range = range(1, 4)
) -> Path:
    """What a dead trainer leaves: its steps with some entries in the middle."""
    directories = list_journal_directories(url, given)
    journal = Journal(directories, session or make_session(), usual=list_journal_directories(url))
    with journal.lock:
        for step in steps:
            if step == steps.stop - 1:
                assert all(journal.append(entry) for entry in entries)
            assert journal.append_step(make_step(step), [make_sample(step)])
    journal.leave()
    return journal.directory / f"{(session or make_session()).id}.journal"


def list_steps(store: Store, name: str = "s1") -> list[int]:
    return [one.step for one in store.steps.list(store.runs.get(name).id)]


def refuse(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


TWICE: Entry = (
    "step",
    2,
    MOMENT.isoformat(),
    (0.1, None, 16, None, None),
    0.05,
    0.5,
    {},
    {},
    [("a", "b", [], 0, None), ("a", "c", [], 0, None)],
)
HUGE: Entry = ("step", 2, MOMENT.isoformat(), (0.1, None, 2**70, None, None), 0.05, 0.5, {}, {}, [])
NO_NUMBERS: Entry = ("numbers", 2, 0, "much", None, None, None, {})
CHECKPOINT: Entry = ("checkpoint", 2, NOT_UTF8, MOMENT.isoformat(), None)


@pytest.mark.parametrize(
    ("entry", "steps", "n_lost"),
    [(TWICE, [1, 2, 3], 0), (HUGE, [1, 3], 1), (NO_NUMBERS, [1, 3], 1), (CHECKPOINT, [1, 3], 0)],
    ids=["two texts of one index", "a number of 70 bits", "no number", "a path that is not UTF-8"],
)
def test_one_bad_entry_does_not_keep_the_others_out(store_url: str, entry: Entry, steps: list[int], n_lost: int) -> None:
    path = leave_journal(store_url, entry, session=make_session(), steps=range(1, 4, 2))
    with open_store(store_url) as store:
        assert list_steps(store) == steps
        (replayed,) = store.replayed
        assert (replayed.n_steps, replayed.n_lost) == (len(steps), n_lost)
        (segment,) = store.runs.segments(replayed.run.id)
        assert (segment.n_lost, segment.lost_first_step) == (n_lost, 2 if n_lost else None)
        assert segment.lost_reason == ("the store cannot hold them" if n_lost else None)
        assert any("could not be stored as they are" in line for line in store.warnings)
        assert store.samples.steps_with_samples(replayed.run.id) == [1, 3]
    assert not path.exists()


def test_a_damaged_line_of_series_costs_no_step(store_url: str) -> None:
    path = leave_journal(store_url)
    lines = path.read_bytes().split(b"\n")
    assert b'"series"' in lines[2]
    path.write_bytes(b"\n".join([*lines[:2], lines[2].replace(b"full", b"fall"), *lines[3:]]))
    with open_store(store_url) as store:
        assert list_steps(store) == [1, 2, 3]
        (segment,) = store.runs.segments(store.runs.get("s1").id)
        assert (segment.n_lost, segment.lost_reason) == (1, "damaged lines in the journal")
        assert store.runs.get("s1").series["kl"] == FULL


@pytest.mark.parametrize(
    "entry",
    [(*HUGE[:3], (0.1, None, 16, None, None, "more"), *HUGE[4:]), (*HUGE, "more"), ("numbers", 2), ("weather", "rain")],
    ids=["a reading with one more column", "a step with one more", "numbers with less", "another kind"],
)
def test_entries_of_a_newer_klaudit_wait_for_it_and_hold_up_no_other_journal(store_url: str, entry: Entry) -> None:
    path = leave_journal(store_url, entry)
    other = leave_journal(store_url, session=make_session("s2"))
    with open_store(store_url) as store:
        assert list_steps(store, "s2") == [1, 2, 3]
        assert any("newer klaudit" in line and str(path) in line for line in store.warnings)
    assert (path.exists(), other.exists()) == (True, False)


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no"), ValueError("one column more"), TypeError("no")])
def test_an_error_of_one_journal_is_told_and_the_others_are_taken(
    store_url: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = leave_journal(store_url)
    leave_journal(store_url, session=make_session("s2", started_at=MOMENT + timedelta(hours=1)))
    real = Path.unlink

    def fail(self: Path, *, missing_ok: bool = False) -> None:
        if self == path:
            raise error
        real(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", fail)
    with open_store(store_url) as store:
        assert (list_steps(store), list_steps(store, "s2")) == ([1, 2, 3], [1, 2, 3])
        assert any(str(path) in line for line in store.warnings)


def test_a_journal_that_its_writer_removes_meanwhile_is_none(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_journal(store_url)
    monkeypatch.setattr("klaudit.store.replay.read_session", refuse(FileNotFoundError(errno.ENOENT, "gone")))
    with open_store(store_url) as store:
        assert (store.replayed, store.warnings) == ((), ())


def test_what_is_no_journal_and_cannot_be_put_aside_is_told(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = leave_journal(store_url)
    path.write_bytes(b"a letter to somebody\n")
    with monkeypatch.context() as locked:
        locked.setattr(Path, "replace", refuse(PermissionError(errno.EACCES, "no")))
        with open_store(store_url) as store:
            assert any("could not be put aside" in line for line in store.warnings)
    with open_store(store_url) as store:
        assert any("was put aside as s1.unreadable" in line for line in store.warnings)


def test_a_store_that_does_not_answer_is_asked_once_and_not_for_every_journal(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [leave_journal(store_url, session=make_session(f"s{number}")) for number in range(5)]
    asked = []

    def fail(*_: object, **__: object) -> None:
        asked.append(1)
        raise StoreUnreachable("locked")

    with monkeypatch.context() as locked:
        locked.setattr("klaudit.store.replay.begin_session", fail)
        with open_store(store_url) as store:
            assert len(store.warnings) == 1
    assert (len(asked), [path.exists() for path in paths]) == (1, [True] * 5)
    with open_store(store_url) as store:
        assert len(store.replayed) == 5


def test_a_store_whose_opening_is_broken_off_is_closed(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr("klaudit.store.opening.replay_journals", refuse(KeyboardInterrupt()))  # type: ignore[arg-type]
    monkeypatch.setattr(Store, "close", lambda _: closed.append("closed"))
    with pytest.raises(KeyboardInterrupt):
        open_store(store_url)
    assert closed == ["closed"]


def test_journals_of_somebody_else_are_told_of(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = leave_journal(store_url)
    real = os.open

    def fail(name: Any, *rest: Any, **options: Any) -> int:
        if Path(name) == path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(name, *rest, **options)

    monkeypatch.setattr(os, "open", fail)
    with open_store(store_url) as store:
        assert store.warnings == (f"1 journals in {path.parent} belong to somebody else and cannot be read: run this as that user",)
        assert store.list_waiting() == ()
    assert path.exists()


def test_two_stores_that_share_a_given_directory_keep_their_journals_apart(store_url: str, tmp_path: Path) -> None:
    other_url = f"sqlite:///{tmp_path}/other.db"
    open_store(other_url, create=True).close()
    path = leave_journal(store_url, given=(tmp_path / "shared",))
    with open_store(other_url, journals=[tmp_path / "shared"]) as other:
        assert (other.replayed, other.runs.list()) == ((), [])
    assert path.exists()
    with open_store(store_url, journals=[tmp_path / "shared"]) as store:
        assert list_steps(store) == [1, 2, 3]


def test_a_journal_in_a_directory_given_in_code_is_found_by_whoever_opens_the_store(store_url: str, tmp_path: Path) -> None:
    path = leave_journal(store_url, given=(tmp_path / "missing" / "file", tmp_path / "elsewhere"))
    (usual,) = list_journal_directories(store_url)
    assert [one.name for one in usual.iterdir()] == ["s1.elsewhere"]
    with open_store(store_url, read_only=True) as store:
        assert [(one.n_steps, one.is_live) for one in store.list_waiting()] == [(3, False)]
    with open_store(store_url) as store:
        assert list_steps(store) == [1, 2, 3]
    assert (path.exists(), list(usual.iterdir())) == (False, [])


def test_a_reader_does_not_keep_an_opener_from_a_dead_journal(store_url: str) -> None:
    path = leave_journal(store_url)
    with path.open("rb") as reader, path.open("rb") as second:
        fcntl.flock(reader, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)
        second.close()
        with open_store(store_url, read_only=True) as looking:
            assert [one.is_live for one in looking.list_waiting()] == [False]
        release = threading.Timer(0.02, reader.close)
        release.start()
        with open_store(store_url) as store:
            assert list_steps(store) == [1, 2, 3]
        release.join()


def test_a_live_writer_is_seen_to_live(store_url: str) -> None:
    journal = Journal(list_journal_directories(store_url), make_session())
    with journal.lock:
        journal.append_step(make_step(1), ())
    with open_store(store_url) as store:
        assert [one.is_live for one in store.list_waiting()] == [True]
        assert store.replayed == ()
    journal.remove()


def _resume(url: str, name: str, gate: Any, said: Any) -> None:
    with open_store(url) as store:
        gate.wait()
        try:
            said.put(begin_session(store, make_session(name, run=make_run(9, name="run-1"), resumed_from_step=3, in_use="rename")).run.name)
        except Exception as error:
            said.put(repr(error))
        gate.wait()


def test_two_trainers_that_resume_one_run_at_once_get_a_run_each(store_url: str) -> None:
    with open_store(store_url) as store:
        store.runs.add(make_run())
    context = multiprocessing.get_context("spawn")
    gate, said = context.Barrier(2), context.Queue()
    trainers = [context.Process(target=_resume, args=(store_url, f"s{number}", gate, said)) for number in range(2)]
    for one in trainers:
        one.start()
    names = sorted(said.get(timeout=60) for _ in trainers)
    for one in trainers:
        one.join()
    assert names == ["run-1", "run-1-2"]


@pytest.mark.parametrize("n_conflicts", [1, PLACINGS - 1, PLACINGS])
def test_a_place_that_another_takes_in_between_is_looked_for_again(store: Store, n_conflicts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    conflicts = iter(range(n_conflicts))
    real = RunRepository.add_segment

    def fail(self: RunRepository, segment: Segment) -> None:
        if next(conflicts, None) is not None:
            raise NameTaken("taken")
        real(self, segment)

    monkeypatch.setattr(RunRepository, "add_segment", fail)
    if n_conflicts == PLACINGS:
        with pytest.raises(NameTaken):
            begin_session(store, make_session())
        assert store.runs.list() == []
    else:
        assert begin_session(store, make_session()).segment == 0
        assert [one.run.name for one in store.runs.list()] == ["s1"]


def test_a_run_that_must_be_there_and_was_deleted_is_made_for_a_session_with_steps(store_url: str) -> None:
    session = make_session(resume="must")
    with open_store(store_url) as store:
        with pytest.raises(RunNotFound, match='resume="must"'):
            begin_session(store, session)
        assert begin_session(store, session, anew=True).run.name == "s1"
        store.runs.delete(store.runs.get("s1").id)
    leave_journal(store_url, session=session)
    with open_store(store_url) as store:
        assert list_steps(store) == [1, 2, 3]


def test_a_run_that_must_be_there_and_is_is_gone_on_with_by_its_replay(store_url: str) -> None:
    with open_store(store_url) as store:
        store.runs.add(make_run(name="s1"))
    leave_journal(store_url, session=make_session(resume="must"))
    with open_store(store_url) as store:
        assert [one.run.name for one in store.runs.list()] == ["s1"]
        assert list_steps(store) == [1, 2, 3]


def test_a_process_of_another_container_or_boot_is_told_by_its_lease() -> None:
    started = describe_process_start(os.getpid())
    assert started is not None
    boot, namespace, moment = started.split("/")
    now = datetime.now(UTC)
    segment = Segment("r", 0, now, host=socket.gethostname(), pid=os.getpid(), process_started=started, lease_until=now)
    assert is_segment_live(segment, at=now + timedelta(days=1))
    for elsewhere in (f"{boot}/pid:[1]/{moment}", f"other/{namespace}/{moment}"):
        moved = replace(segment, process_started=elsewhere)
        assert is_segment_live(moved, at=now - timedelta(seconds=1))
        assert not is_segment_live(moved, at=now)


def test_the_last_segment_alone_ends_the_run(store: Store) -> None:
    first = begin_session(store, make_session())
    second = begin_session(store, make_session("s2", run=first.run, resume="must"))
    assert (second.run.id, second.segment) == (first.run.id, 1)
    end_session(store, first, failed=True, at=MOMENT)
    assert [one.ended_at for one in store.runs.segments(first.run.id)] == [MOMENT, None]
    assert store.runs.get(first.run.id).status == "running"
    end_session(store, second, failed=False, at=MOMENT)
    end_session(store, second, failed=True, at=MOMENT + timedelta(days=1))
    run = store.runs.get(first.run.id)
    assert (run.status, run.finished_at) == ("finished", MOMENT)
    store.runs.delete(run.id)
    with pytest.raises(RunNotFound):
        end_session(store, second, failed=False, at=MOMENT)
