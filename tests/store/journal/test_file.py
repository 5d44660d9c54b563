import fcntl
import os
from pathlib import Path

import pytest

from klaudit.errors import JournalUnwritable
from klaudit.store.journal.content import read_session
from klaudit.store.journal.writer import Journal
from tests.store.journal.examples import make_session, write_steps


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
