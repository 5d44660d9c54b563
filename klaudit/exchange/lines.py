"""Lines of a text file, one at a time, however long the file is."""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from klaudit.errors import InvalidImportFile
from klaudit.exchange.reader import GZIP_MAGIC, refuse, refuse_unreadable

LONGEST_LINE = 10 << 20
"""Bytes; no trainer logs a longer one, and a longer one would have to be held in memory."""
BLOCK_BYTES = 1 << 18
NEWLINE = 0x0A
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
AT_NEWLINES = re.compile(rb"\n")
AT_RETURNS_TOO = re.compile(rb"\n|\r(?!\n)")
"""Progress bars go back to the start of their line and write over it."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end."""

    number: int
    text: str


def read_blocks(path: Path, *, on_progress: Callable[[int, int], None]) -> Iterator[bytes]:
    """A file's content in blocks, unzipped where it is a gzip file, without a byte order mark.

    Raises:
        InvalidImportFile: it cannot be read, or not unzipped to its end.
    """
    try:
        with path.open("rb") as file:
            is_compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            source: IO[bytes] = gzip.GzipFile(fileobj=file) if is_compressed else file  # type: ignore[assignment]
            n_bytes = path.stat().st_size
            first = source.read(BLOCK_BYTES).removeprefix(BYTE_ORDER_MARK)
            while block := first or source.read(BLOCK_BYTES):
                first = b""
                yield block
                on_progress(min(file.tell(), n_bytes), n_bytes)
                # What is written behind the end meanwhile belongs to the next import: a reader must come to an end.
                if file.tell() > n_bytes:
                    break
    except (OSError, EOFError, zlib.error) as error:
        raise refuse_unreadable(path, error) from error


def read_lines(
    path: Path, *, on_progress: Callable[[int, int], None], is_console: bool = False, keeps_ends: bool = False
) -> Iterator[Line]:
    """The lines of a file that are not blank, numbered as an editor does.

    Args:
        path: of the file, which may be a gzip file.
        on_progress: called with bytes read and bytes in all.
        is_console: what a terminal was shown: a carriage return ends a line too, and bytes that are no UTF-8 do not matter.
        keeps_ends: leave the ends where they are, and blank lines too, for a CSV in whose cells lines may end.

    Raises:
        InvalidImportFile: a line over 10 MiB, or one that is not UTF-8; the message names it.
    """
    number, rest = 1, b""
    pattern = AT_RETURNS_TOO if is_console else AT_NEWLINES
    for block in read_blocks(path, on_progress=on_progress):
        start, content = 0, rest + block
        # What was searched before and holds no end is not searched again.
        for end in pattern.finditer(content, max(0, len(rest) - 1)):
            yield from _decode(path, number, content[start : end.end()], is_console=is_console, keeps_ends=keeps_ends)
            start = end.end()
            number += content[end.start()] == NEWLINE
        rest = content[start:]
        if len(rest) > LONGEST_LINE:
            raise _refuse_length(path, number)
    yield from _decode(path, number, rest, is_console=is_console, keeps_ends=keeps_ends)


def _decode(path: Path, number: int, content: bytes, *, is_console: bool, keeps_ends: bool) -> Iterator[Line]:
    if len(content) > LONGEST_LINE:
        raise _refuse_length(path, number)
    try:
        text = content.decode("utf-8", errors="replace" if is_console else "strict")
    except UnicodeDecodeError as error:
        raise refuse(f"{path} line {number}", f"expected text in UTF-8; {error.reason} at byte {error.start} of the line") from error
    if keeps_ends:
        if text:
            yield Line(number, text)
    elif text.strip():
        yield Line(number, text.strip("\r\n"))


def _refuse_length(path: Path, number: int) -> InvalidImportFile:
    return refuse(f"{path} line {number}", f"expected lines of at most {LONGEST_LINE >> 20} MiB; this one is longer")
