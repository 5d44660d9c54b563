"""Whose a journal is: its writer holds it, and whoever would replay it claims it."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from klaudit.store.journal.content import read_session
from klaudit.store.journal.directories import LEFTOVER_S
from klaudit.store.journal.file import lies_at
from klaudit.store.process import is_session_alive

CLAIM_S = 0.1
"""How long whoever would replay journals waits for those who only look at them, in seconds."""
_RETRY_S = 0.01


@contextlib.contextmanager
def claim_journal(path: Path, *, until: float = 0.0) -> Iterator[bool]:
    """Hold a journal that nobody writes any more; gives False where its writer lives or somebody else replays it.

    Args:
        path: of its file.
        until: how long to wait for those who only look at it, by the monotonic clock.

    Raises:
        OSError: the file is there and may not be opened for writing.
        InvalidJournal: no journal, on a file system without locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        # Another may have replayed and removed it between the two calls.
        yield _lock(descriptor, path, fcntl.LOCK_EX, until=until) and lies_at(descriptor, path)
    finally:
        os.close(descriptor)


def is_journal_held(path: Path) -> bool:
    """Whether its writer lives, or somebody replays it.

    Raises:
        OSError: the file cannot be read.
        InvalidJournal: no journal, on a file system without locks.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return not _lock(descriptor, path, fcntl.LOCK_SH, until=0.0)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, kind: int, *, until: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_RETRY_S)
        except OSError:
            # No locks on this file system: the process id is all there is.
            is_alive = is_session_alive(read_session(path)[0])
            return not (os.fstat(descriptor).st_mtime > time.time() - LEFTOVER_S if is_alive is None else is_alive)
        else:
            return True
