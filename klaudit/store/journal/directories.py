"""Where journals lie."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from klaudit.store.engine import find_file, is_memory, parse_url, render_url

SUFFIX = ".journal"
UNREADABLE_SUFFIX = ".unreadable"
NEW_SUFFIX = ".new"
ELSEWHERE_SUFFIX = ".elsewhere"
LEFTOVER_S = 3600.0
"""How old a file of which nothing tells whether somebody writes it must be before it counts as left behind, in seconds."""


def list_journal_directories(url: str, given: Sequence[str | Path] = ()) -> tuple[Path, ...]:
    """Where a session's journal may lie, best first.

    An SQLite file has its journal beside it, in `FILE.journal/`; another store in the user's state directory. A store in memory has none.

    Args:
        url: of the store.
        given: directories that a person chose; they take the place of the usual one, and several stores may share them: each has a folder.
    """
    parsed = parse_url(url)
    if is_memory(parsed):
        return ()
    file = find_file(parsed)
    shown = render_url(parsed) if file is None else f"sqlite:///{file.resolve()}"
    folder = hashlib.sha256(shown.encode(errors="surrogateescape")).hexdigest()[:12]
    if given:
        return tuple(Path(one).expanduser().absolute() / folder for one in given)
    if file is not None:
        return (file.with_name(f"{file.name}{SUFFIX}"),)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return (Path(state) / "klaudit" / "journal" / folder,)


def find_journals(directories: Sequence[Path]) -> list[Path]:
    """Files of journals, whoever wrote them, there and where notes say that others lie; none where a directory cannot be read."""
    found: list[Path] = []
    for directory in directories:
        with contextlib.suppress(OSError):
            found += sorted(directory.glob(f"*{SUFFIX}"))
            for pointer in sorted(directory.glob(f"*{ELSEWHERE_SUFFIX}")):
                found += [path for path in _follow(pointer) if path.exists()]
    return list(dict.fromkeys(found))


def remove_leftovers(directories: Sequence[Path]) -> None:
    """Take away notes of journals that are gone, and files that a process did not live to make journals of."""
    oldest = time.time() - LEFTOVER_S
    for directory in directories:
        with contextlib.suppress(OSError):
            for pointer in directory.glob(f"*{ELSEWHERE_SUFFIX}"):
                places = _follow(pointer)
                # A directory that is not there may be a disk that is not mounted now.
                if places and all(path.parent.is_dir() and not path.exists() for path in places):
                    pointer.unlink()
            for path in directory.glob(f"*{NEW_SUFFIX}"):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def _follow(pointer: Path) -> list[Path]:
    """Where the journal of a note may lie."""
    try:
        return [Path(directory) / f"{pointer.stem}{SUFFIX}" for directory in json.loads(pointer.read_bytes())]
    except (OSError, ValueError, TypeError):
        return []
