"""One file of a journal, as its writer has it."""

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from klaudit.store.journal.directories import NEW_SUFFIX
from klaudit.store.journal.entry import Entry
from klaudit.store.journal.line import read_line, render_first_line
from klaudit.store.journal.loss import Loss

_CHUNK = 1 << 20


class JournalFile:
    """One file of a journal; lines go out at `length`, so that a write that failed half-way leaves nothing behind."""

    def __init__(self, path: Path, header: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        self.path = path.with_suffix(NEW_SUFFIX)
        self.length = 0
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:  # a file system without locks: liveness is told by the process id then
                pass
            self._write_head(render_first_line(Loss()) + header)
            self.path = self.path.rename(path)
        except BaseException:
            self.remove()
            raise

    def write(self, data: bytes) -> bool:
        """Put a line behind the others; False where the disk did not take it, and nothing of it is left."""
        try:
            written = os.pwrite(self._descriptor, data, self.length)
            if written == len(data):
                self.length += written
                return True
            os.ftruncate(self._descriptor, self.length)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.length)
        return False

    def _write_head(self, head: bytes) -> None:
        if not self.write(head):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_first_line(self, loss: Loss) -> None:
        """Put down a loss in place of the one before."""
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, render_first_line(loss), 0)

    def truncate(self, length: int) -> None:
        """Drop what stands behind a length, in bytes."""
        if length == self.length:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, length)
            self.length = length

    def read(self, offset: int, end: int, limit: int) -> tuple[list[Entry], int]:
        """Up to `limit` entries between two places, which this process wrote itself, and the place behind them."""
        entries: list[Entry] = []
        rest = b""
        at = offset
        while len(entries) < limit and (chunk := os.pread(self._descriptor, min(_CHUNK, end - at), at)):
            at += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                offset += len(line) + 1
                if (entry := read_line(line)) is not None:
                    entries.append(entry)
                if len(entries) == limit:
                    return entries, offset
        # What somebody cut off comes back no more.
        return entries, end

    def append_from(self, file: "JournalFile", offset: int) -> bool:
        """Write what another file holds from a place on; False where the disk is full or does not give it back."""
        while offset < file.length:
            try:
                chunk = os.pread(file._descriptor, min(_CHUNK, file.length - offset), offset)
            except OSError:
                return False
            if not chunk or not self.write(chunk):
                return False
            offset += len(chunk)
        return True

    def is_displaced(self) -> bool:
        """Whether somebody deleted or moved it."""
        return self._descriptor >= 0 and not lies_at(self._descriptor, self.path)

    def close(self) -> None:
        """Let it lie."""
        # Forgotten, because the number may soon mean another file: in the child of a fork this is called again by its own child.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def remove(self) -> None:
        """Take it away."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.close()


def lies_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at a path; where the system does not tell, it is."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
