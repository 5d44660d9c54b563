import fcntl
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaudit.errors import InvalidJournal, JournalUnwritable
from klaudit.records import KLBudget, KLReading, KLSeries, Run, StepRecord, TextSample, TokenScore
from klaudit.records.session import Session
from klaudit.store.journal import (
    Journal,
    Loss,
    claim_journal,
    decode_series,
    decode_step,
    describe_process_start,
    encode_step,
    find_journals,
    is_journal_held,
    is_process_alive,
    list_journal_directories,
    read_journal,
    read_session,
    remove_leftovers,
)

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
K1 = KLSeries(estimator="k1", unit="nats_per_sequence", temperature=0.7, source_key="objective/kl")
UPDATE = KLSeries(kind="update", estimator="k2", unit="nats_per_token")


def make_session(**known: object) -> Session:
    run = Run(id="r1", name="demo", started_at=NOW, series={"kl": K1}, beta=math.inf, config={"lr": 1e-5, "nested": {"a": [1, "x"]}})
    session = Session("s1", run, NOW, host="here", pid=os.getpid(), budgets=(KLBudget(1.0, "nats_per_sequence", owner="me"),))
    return replace(session, **known)  # type: ignore[arg-type]


def make_step(step: int, kl: float = 0.1) -> StepRecord:
    readings = {"kl_update": KLReading(UPDATE, 0.01, None, 16, 24.0)}
    return StepRecord(step, KLReading(K1, kl, 0.01, 16), NOW, beta=0.05, score=-math.inf, readings=readings, metrics={"entropy": 2.0})


SAMPLE = TextSample(3, "The film was", " good\n\x00\ud800", (TokenScore(" good", -0.1, -2.0, 0.5),), 0, 1, 0.4)


def write_steps(journal: Journal, *steps: int) -> list[bool]:
    with journal.lock:
        return [journal.append_step(make_step(step), ()) for step in steps]


def read_steps(path: Path) -> list[int]:
    return [entry[1] for entry in read_journal(path).entries if entry[0] == "step"]


def test_what_was_journaled_comes_back_as_it_was(tmp_path: Path) -> None:
    journal = Journal([tmp_path], make_session())
    with journal.lock:
        assert journal.append_step(make_step(3, math.nan), [SAMPLE])
    content = read_journal(tmp_path / "s1.journal")
    assert content.session == make_session()
    assert content.n_damaged == 0
    series, step = content.entries
    logged = decode_step(step, segment=0, series=decode_series(series))
    assert repr(logged.record) == repr(make_step(3, math.nan))
    assert logged.samples == (SAMPLE,)


@given(
    kl=st.floats(),
    metrics=st.dictionaries(st.text(), st.floats(), max_size=4),
    beta=st.none() | st.floats(),
    moment=st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(fold=0)),
)
def test_a_step_survives_its_line_to_the_bit(kl: float, metrics: dict[str, float], beta: float | None, moment: datetime) -> None:
    record = StepRecord(1, KLReading(K1, kl), moment, beta=beta, metrics=metrics)
    assert repr(decode_step(encode_step(record, ()), segment=0, series={"kl": K1}).record) == repr(record)


def test_series_are_written_once_and_again_when_they_change(tmp_path: Path) -> None:
    journal = Journal([tmp_path], make_session())
    write_steps(journal, 1, 2)
    with journal.lock:
        journal.append_step(replace(make_step(3), kl=KLReading(replace(K1, estimator="k3"), 0.1)), ())
    assert [entry[0] for entry in read_journal(tmp_path / "s1.journal").entries] == ["series", "step", "step", "series", "step"]


def test_a_torn_last_line_is_no_step_and_no_damage(tmp_path: Path) -> None:
    journal = Journal([tmp_path], make_session())
    write_steps(journal, 1, 2)
    path = tmp_path / "s1.journal"
    whole = path.read_bytes()
    for cut in range(1, len(whole) - whole.rindex(b"\n", 0, -1)):
        path.write_bytes(whole[:-cut])
        content = read_journal(path)
        assert (read_steps(path), content.n_damaged) == ([1], 0)


def test_a_damaged_line_inside_is_counted(tmp_path: Path) -> None:
    journal = Journal([tmp_path], make_session())
    write_steps(journal, 1, 2, 3)
    path = tmp_path / "s1.journal"
    lines = path.read_bytes().split(b"\n")
    lines[4] = lines[4].replace(b"0.1", b"0.2", 1)
    path.write_bytes(b"\n".join(lines))
    assert (read_steps(path), read_journal(path).n_damaged) == ([1, 3], 1)


@pytest.mark.parametrize("content", [b"", b"\n", b"a letter to somebody\n", b"klaudit-journal/1 at risk\n", b"\x80\x04pickle\n"])
def test_what_is_no_journal_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s1.journal"
    path.write_bytes(content)
    with pytest.raises(InvalidJournal, match=r"s1\.journal"):
        read_journal(path)


def test_a_full_disk_leaves_no_half_line_and_the_next_directory_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    journal = Journal([first, second], make_session())
    assert write_steps(journal, 1) == [True]
    write = os.pwrite

    def fill(descriptor: int, data: bytes, offset: int) -> int:
        if Path(f"/proc/self/fd/{descriptor}").resolve().parent == first and offset:
            write(descriptor, data[:5], offset)
            raise OSError(28, "No space left on device")
        return write(descriptor, data, offset)

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", fill)
        assert write_steps(journal, 2, 3) == [True, True]
    assert journal.directory == second
    assert (read_steps(first / "s1.journal"), read_steps(second / "s1.journal")) == ([1], [2, 3])
    assert read_journal(first / "s1.journal").n_damaged == 0
    with journal.lock:
        journal.trim()
    assert journal.directory == first
    assert write_steps(journal, 4) == [True]
    assert (read_steps(first / "s1.journal"), second.exists(), find_journals([second])) == ([4], True, [])


def test_where_no_directory_takes_a_line_the_caller_is_told_and_the_count_stays_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal([tmp_path], make_session())
    write_steps(journal, 1)
    write = os.pwrite

    def fill(descriptor: int, data: bytes, offset: int) -> int:
        if offset:
            raise OSError(28, "No space left on device")
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", fill)
    assert write_steps(journal, 2, 3) == [False, False]
    journal.note_at_risk(Loss().add(3).add(2))
    content = read_journal(tmp_path / "s1.journal")
    assert (content.at_risk, read_steps(tmp_path / "s1.journal")) == (Loss(2, 2, 3), [1])


def test_a_directory_that_takes_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalUnwritable, match=r"file: File exists.*KLAUDIT_JOURNAL"):
        Journal([tmp_path / "file"], make_session())
    assert Journal([tmp_path / "file", tmp_path / "free"], make_session()).directory == tmp_path / "free"


def test_entries_are_read_back_from_a_place_over_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal([tmp_path / "first", tmp_path / "second"], make_session())
    write_steps(journal, 1)
    place = journal.place
    write_steps(journal, 2)
    write = os.pwrite

    def fill(descriptor: int, data: bytes, offset: int) -> int:
        if Path(f"/proc/self/fd/{descriptor}").resolve().parent.name == "first" and offset:
            raise OSError(28, "No space left on device")
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", fill)
    write_steps(journal, 3, 4)
    seen = []
    while True:
        entries, place = journal.read_from(place, 1)
        if not entries:
            break
        seen += [entry[1] for entry in entries if entry[0] == "step"]
    assert seen == [2, 3, 4]
    with journal.lock:
        assert journal.is_at_end(place)
    write_steps(journal, 5)
    with journal.lock:
        assert not journal.is_at_end(place)
    entries, place = journal.read_from(place, 10)
    assert [entry[1] for entry in entries] == [5]
    with journal.lock:
        assert journal.is_at_end(place)


def test_entries_are_read_while_others_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klaudit.store.journal._CHUNK", 100)
    journal = Journal([tmp_path], make_session())
    place = journal.place
    writer = threading.Thread(target=lambda: [write_steps(journal, step) for step in range(2_000)])
    writer.start()
    seen: list[int] = []
    while True:
        entries, place = journal.read_from(place, 7)
        seen += [entry[1] for entry in entries if entry[0] == "step"]
        if not entries and not writer.is_alive():
            with journal.lock:
                if journal.is_at_end(place):
                    break
    assert seen == list(range(2_000))


def test_a_journal_is_locked_and_begun_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], bool]] = []
    real = Path.rename

    def look(self: Path, target: Path) -> Path:
        with self.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(([one.name for one in tmp_path.iterdir()], read_session(self)[0] == make_session()))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", look)
    Journal([tmp_path], make_session())
    assert seen == [(["s1.new"], True)]
    assert [one.name for one in tmp_path.iterdir()] == ["s1.journal"]


def test_a_journal_that_somebody_else_holds_already_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hold(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as held:
        held.setattr(fcntl, "flock", hold)
        with pytest.raises(JournalUnwritable, match="temporarily unavailable"):
            Journal([tmp_path], make_session())
    journal = Journal([tmp_path], make_session())
    with pytest.raises(JournalUnwritable, match="File exists"):
        Journal([tmp_path], make_session())
    assert write_steps(journal, 1) == [True]


def refuse_locks(*_: object) -> None:
    raise OSError(95, "Operation not supported")


@pytest.mark.parametrize(
    ("started", "age_s", "is_free"),
    [("own", 7200.0, False), ("an earlier", 0.0, True), ("of another boot", 0.0, False), ("of another boot", 7200.0, True)],
)
def test_where_there_are_no_locks_the_process_tells_whether_a_journal_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: str, age_s: float, is_free: bool
) -> None:
    own = describe_process_start(os.getpid())
    known = {"own": own, "an earlier": f"{own}0", "of another boot": f"other/{own}"}[started]
    monkeypatch.setattr(fcntl, "flock", refuse_locks)
    journal = Journal([tmp_path], make_session(host=socket.gethostname(), process_started=known))
    journal.leave()
    path = tmp_path / "s1.journal"
    os.utime(path, (time.time() - age_s,) * 2)
    assert is_journal_held(path) is not is_free
    with claim_journal(path) as is_ours:
        assert is_ours is is_free


def test_files_that_nobody_lived_to_name_and_notes_of_journals_that_are_gone_are_taken_away(tmp_path: Path) -> None:
    old, young, mounted = tmp_path / "old.new", tmp_path / "young.new", tmp_path / "disk"
    mounted.mkdir()
    for path in (old, young):
        path.write_text("")
    os.utime(old, (time.time() - 7200,) * 2)
    (tmp_path / "gone.elsewhere").write_text(json.dumps([str(mounted)]))
    (tmp_path / "unmounted.elsewhere").write_text(json.dumps([str(mounted), str(tmp_path / "no disk")]))
    (tmp_path / "torn.elsewhere").write_text('["/some')
    remove_leftovers([tmp_path, tmp_path / "none"])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["disk", "torn.elsewhere", "unmounted.elsewhere", "young.new"]
    assert find_journals([tmp_path]) == []


def test_a_note_in_the_usual_directory_comes_and_goes_with_the_journal(tmp_path: Path) -> None:
    usual, chosen = tmp_path / "usual", tmp_path / "chosen"
    journal = Journal([chosen], make_session(), usual=[usual])
    assert find_journals([usual]) == find_journals([usual, chosen]) == [chosen / "s1.journal"]
    journal.remove()
    assert [*usual.iterdir(), *chosen.iterdir()] == []
    Journal([usual], make_session(), usual=[usual])
    assert [one.name for one in usual.iterdir()] == ["s1.journal"]


def test_a_usual_directory_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal([tmp_path / "chosen"], make_session(), usual=[tmp_path / "file"])
    assert write_steps(journal, 1) == [True]
    journal.remove()


def delete_directory(directory: Path) -> None:
    shutil.rmtree(directory)


def move_directory(directory: Path) -> None:
    directory.rename(directory.with_name("moved"))


def put_a_file_there(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_text("")


@pytest.mark.parametrize(("take_away", "where"), [(delete_directory, "first"), (move_directory, "first"), (put_a_file_there, "second")])
def test_a_journal_that_is_taken_away_is_made_anew_with_all_that_it_held(
    tmp_path: Path, take_away: Callable[[Path], None], where: str
) -> None:
    journal = Journal([tmp_path / "first", tmp_path / "second"], make_session(), usual=[tmp_path / "usual"])
    write_steps(journal, 1)
    place = journal.place
    write_steps(journal, 2)
    journal.note_at_risk(Loss().add(7))
    assert not journal.is_displaced()
    take_away(tmp_path / "first")
    assert journal.is_displaced()
    with journal.lock:
        assert journal.reopen()
    assert not journal.is_displaced()
    write_steps(journal, 3)
    content = read_journal(tmp_path / where / "s1.journal")
    assert (read_steps(tmp_path / where / "s1.journal"), content.at_risk, content.n_damaged) == ([1, 2, 3], Loss(1, 7, 7), 0)
    assert [entry[1] for entry in journal.read_from(place, 10)[0]] == [2, 3]
    with claim_journal(tmp_path / where / "s1.journal") as is_ours:
        assert not is_ours


def test_a_journal_that_no_directory_takes_again_goes_on_for_this_process(tmp_path: Path) -> None:
    journal = Journal([tmp_path / "first"], make_session())
    write_steps(journal, 1)
    place = journal.place
    put_a_file_there(tmp_path / "first")
    with journal.lock:
        assert not journal.reopen()
    assert write_steps(journal, 2) == [True]
    assert [entry[1] for entry in journal.read_from(place, 10)[0]] == [2]


def test_a_descriptor_is_closed_once(tmp_path: Path) -> None:
    journal = Journal([tmp_path], make_session())
    journal.abandon()
    with (tmp_path / "another").open("wb") as another:
        journal.abandon()
        os.fstat(another.fileno())
        assert write_steps(journal, 1) == [False]
        assert not journal.is_displaced()
        another.flush()
    assert (tmp_path / "another").read_bytes() == b""


HOLD = """
import sys, time
from pathlib import Path
from tests.store.test_journal import make_session
from klaudit.store.journal import Journal
journal = Journal([Path(sys.argv[1])], make_session())
print("held", flush=True)
time.sleep(60)
"""


def test_a_journal_is_claimed_when_its_writer_is_dead_and_not_before(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "held\n"
    path = tmp_path / "s1.journal"
    with claim_journal(path) as is_ours:
        assert not is_ours
    writer.kill()
    writer.wait()
    with claim_journal(path) as is_ours, claim_journal(path) as is_somebody_elses:
        assert (is_ours, is_somebody_elses) == (True, False)
    with claim_journal(tmp_path / "gone.journal") as is_ours:
        assert not is_ours


def test_a_process_is_told_from_a_later_one_with_its_number() -> None:
    started = describe_process_start(os.getpid())
    assert started is not None
    assert is_process_alive(os.getpid(), started)
    assert is_process_alive(os.getpid(), f"other/{started}") is None
    assert not is_process_alive(os.getpid(), started + "0")
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert not is_process_alive(child.pid, None)


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        ("sqlite:////data/klaudit.db", "/data/klaudit.db.journal"),
        ("sqlite:////data/file.db?timeout=3", "/data/file.db.journal"),
        ("postgresql://me:secret@host/one", None),
    ],
)
def test_a_journal_lies_beside_an_sqlite_file_and_else_in_the_users_state_directory(
    url: str, directory: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (found,) = list_journal_directories(url)
    if directory is None:
        assert found.parent == tmp_path / "klaudit" / "journal"
        assert found != list_journal_directories(url.replace("/one", "/two"))[0]
        assert (found,) == list_journal_directories(url.replace("secret", "other"))
    else:
        assert str(found) == directory


def test_a_store_in_memory_has_no_journal_and_given_directories_win(tmp_path: Path) -> None:
    assert list_journal_directories("sqlite://") == ()
    assert list_journal_directories("sqlite://", [tmp_path]) == ()
    given = list_journal_directories("sqlite:///a.db", [str(tmp_path), tmp_path / "b"])
    assert [one.parent for one in given] == [tmp_path, tmp_path / "b"]


@pytest.mark.parametrize("url", ["sqlite:///b.db", "sqlite:////a.db", "postgresql://me@host/a", "postgresql://me@host/b"])
def test_stores_that_share_a_given_directory_have_a_folder_each(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (own,) = list_journal_directories("sqlite:///a.db", [tmp_path])
    assert list_journal_directories(url, [tmp_path]) != (own,)
    assert list_journal_directories(f"sqlite:///{tmp_path}/a.db?timeout=3", [tmp_path]) == (own,)
    assert list_journal_directories(f"sqlite:///file:{tmp_path}/a.db?uri=true", [tmp_path]) == (own,)


MAKERS: list[Callable[[Path], Path]] = [lambda path: path / "a.journal", lambda path: path / "missing" / "b.journal"]


@pytest.mark.parametrize("make", MAKERS)
def test_a_directory_that_cannot_be_read_has_no_journals(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    expected = []
    if path.parent.exists():
        path.write_text("")
        expected = [path]
    assert find_journals([path.parent]) == expected
