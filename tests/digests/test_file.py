import ctypes
import hashlib
import mmap
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaudit.digests import digest_file, digest_text
from klaudit.digests.file import BLOCK_BYTES

MEGABYTE = 1 << 20


@pytest.mark.parametrize("n_bytes", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 5])
def test_the_digest_of_a_file_is_what_sha256sum_prints(tmp_path: Path, n_bytes: int) -> None:
    content = os.urandom(n_bytes)
    (tmp_path / "file").write_bytes(content)
    told: list[tuple[int, int]] = []
    digest = digest_file(tmp_path / "file", on_progress=lambda done, of: told.append((done, of)))
    assert digest == "sha256:" + hashlib.sha256(content).hexdigest()
    assert [of for _, of in told] == [n_bytes] * len(told)
    assert [done for done, _ in told][-1:] == ([n_bytes] if n_bytes else [])


def find_cached_pages(path: Path) -> bytes:
    """One byte a page of a file: 1 where it lies in memory."""
    size = path.stat().st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), size) as mapped:
        start = ctypes.c_ubyte.from_buffer(mapped)
        try:
            assert ctypes.CDLL(None, use_errno=True).mincore(ctypes.byref(start), ctypes.c_size_t(size), pages) == 0, ctypes.get_errno()
        finally:
            del start
    return bytes(page & 1 for page in pages)


def test_the_page_cache_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(8 * MEGABYTE))
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        with suppress(OSError):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        # What somebody else reads stays, and nothing is added.
        for offset in range(0, 4 * MEGABYTE, MEGABYTE):
            os.pread(stream.fileno(), MEGABYTE, offset)
    before = find_cached_pages(path)
    digest_file(path)
    assert find_cached_pages(path) == before


@given(st.text())
def test_the_digest_of_a_text_is_that_of_its_bytes(text: str) -> None:
    assert digest_text(text) == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_half_a_surrogate_is_no_reason_to_fail() -> None:
    assert digest_text("\ud800") != digest_text("\udc00")
