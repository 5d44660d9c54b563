"""Files that appear whole or not at all."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO


@contextmanager
def write_whole(path: Path) -> Iterator[TextIO]:
    """A text file to write to; it takes its name when the block ends well, and leaves nothing behind when it does not.

    Raises:
        OSError: the place cannot be written to.
    """
    with write_whole_bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="\n") as text:
        yield text


@contextmanager
def write_whole_bytes(path: Path) -> Iterator[BinaryIO]:
    """The same for a file that is not text.

    Raises:
        OSError: the place cannot be written to.
    """
    if path.exists() and not path.is_file():
        # A device or a pipe, which must not give its place to a file; a directory refuses.
        with path.open("wb") as file:
            yield file
        return
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
