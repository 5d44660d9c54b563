"""Files that appear whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def write_whole(path: Path) -> Iterator[TextIO]:
    """A text file to write to; it takes its name when the block ends well, and leaves nothing behind when it does not.

    Raises:
        OSError: the place cannot be written to.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
