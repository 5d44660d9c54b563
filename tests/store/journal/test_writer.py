import math
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from klaudit.errors import JournalUnwritable
from klaudit.records import KLReading
from klaudit.store.journal.claim import claim_journal
from klaudit.store.journal.content import read_journal
from klaudit.store.journal.directories import find_journals
from klaudit.store.journal.entry import decode_series, decode_step
from klaudit.store.journal.loss import Loss
from klaudit.store.journal.writer import Journal
from tests.store.journal.examples import K1, SAMPLE, make_session, make_step, read_steps, write_steps


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


def test_series_are_written_once_and_again_when_they_change(tmp_path: Path) -> None:
    journal = Journal([tmp_path], make_session())
    write_steps(journal, 1, 2)
    with journal.lock:
        journal.append_step(replace(make_step(3), kl=KLReading(replace(K1, estimator="k3"), 0.1)), ())
    assert [entry[0] for entry in read_journal(tmp_path / "s1.journal").entries] == ["series", "step", "step", "series", "step"]


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
    monkeypatch.setattr("klaudit.store.journal.file._CHUNK", 100)
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
