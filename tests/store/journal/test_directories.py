import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from klaudit.store.journal.directories import find_journals, list_journal_directories, remove_leftovers


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
