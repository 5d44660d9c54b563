from pathlib import Path

import pytest

from klaudit.errors import InvalidJournal
from klaudit.store.journal.content import read_journal
from klaudit.store.journal.writer import Journal
from tests.store.journal.examples import make_session, read_steps, write_steps


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
