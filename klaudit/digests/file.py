"""Digests of texts and files; a file is read in blocks, and the page cache is left as it was found."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path

from klaudit.errors import IncompleteWeights

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

BLOCK_BYTES = 1 << 20


def digest_text(text: str) -> str:
    """`sha256:` and 64 hex digits over a text's UTF-8."""
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def digest_file(path: str | Path, *, on_progress: Progress | None = None) -> str:
    """`sha256:` and 64 hex digits over a file's bytes: what `sha256sum` prints.

    Args:
        path: of the file.
        on_progress: called after each block.

    Raises:
        OSError: the file cannot be read.
        IncompleteWeights: the file changed its length while it was read.
    """
    path = Path(path)
    n_bytes = path.stat().st_size
    digest, n_done = hashlib.sha256(), 0
    for block in read_blocks(path, n_bytes=n_bytes):
        digest.update(block)
        n_done += len(block)
        if on_progress is not None:
            on_progress(n_done, n_bytes)
    return f"sha256:{digest.hexdigest()}"


def read_blocks(path: Path, *, n_bytes: int) -> Iterator[memoryview]:
    """A file's bytes in order; each block is good until the next is asked for.

    What lay in the page cache stays there, for a trainer or an engine may be about to load it; what was fetched for this reading alone
    is dropped again, so that gigabytes of weights push nothing out.

    Args:
        path: of the file.
        n_bytes: its length, taken before.

    Raises:
        OSError: the file cannot be read.
        IncompleteWeights: the file is not `n_bytes` long any more.
    """
    buffer = memoryview(bytearray(BLOCK_BYTES))
    offset = 0
    with path.open("rb", buffering=0) as stream:
        # Reading ahead would make blocks look as if somebody else had wanted them.
        _advise(stream, "POSIX_FADV_RANDOM", 0, 0)
        while offset < n_bytes:
            n_cached = _read_cached(stream, buffer, offset)
            n_read = n_cached or _read(stream, buffer, offset)
            if n_read == 0:
                break
            yield buffer[:n_read]
            if not n_cached:
                _advise(stream, "POSIX_FADV_DONTNEED", offset, n_read)
            offset += n_read
    if offset != n_bytes or path.stat().st_size != n_bytes:
        raise IncompleteWeights(f"{path} had {n_bytes:,} bytes and changed while it was read; digest it again when nothing writes to it")


def _read(stream: FileIO, buffer: memoryview, offset: int) -> int:
    stream.seek(offset)
    return stream.readinto(buffer) or 0


def _read_cached(stream: FileIO, buffer: memoryview, offset: int) -> int:
    """Bytes read without touching the disk; 0 where none lie in memory, or where the file system cannot tell."""
    with suppress(OSError, AttributeError):
        return os.preadv(stream.fileno(), [buffer], offset, os.RWF_NOWAIT)
    return 0


def _advise(stream: FileIO, advice: str, offset: int, length: int) -> None:
    with suppress(OSError, AttributeError):
        os.posix_fadvise(stream.fileno(), offset, length, getattr(os, advice))
