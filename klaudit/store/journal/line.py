"""Lines of a journal: the first, of a fixed length, and those that hold an entry each, with a checksum."""

import json
import re
import zlib
from pathlib import Path

from pydantic_core import to_json

from klaudit.errors import InvalidJournal
from klaudit.store.journal.entry import Entry
from klaudit.store.journal.loss import Loss

FORMAT = "klaudit-journal/1"
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=float)
_AT_RISK = "{format} at risk {n:012d} from {first:020d} to {last:020d}\n"
_FIRST_LINE = re.compile(rb"klaudit-journal/1 at risk (\d{12}) from (\d{20}) to (\d{20})")
FIRST_LINE_LENGTH = len(_AT_RISK.format(format=FORMAT, n=0, first=0, last=0))


def render_line(entry: Entry) -> bytes:
    """An entry's line."""
    try:
        # A third of the time that Python's own encoder takes, and the trainer waits for it.
        text = to_json(entry, inf_nan_mode="constants")
    except ValueError:  # what UTF-8 or this encoder does not know: half of a surrogate pair, a number of another library
        text = _ENCODER.encode(entry).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def read_line(line: bytes) -> Entry | None:
    """The entry of a line; None where it is not what was written."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        return tuple(json.loads(text))
    except (ValueError, TypeError):
        return None


def render_first_line(loss: Loss) -> bytes:
    """A journal's first line."""
    return _AT_RISK.format(format=FORMAT, n=loss.n, first=loss.first_step or 0, last=loss.last_step or 0).encode()


def read_first_line(path: Path, line: bytes) -> Loss:
    """How many steps are neither in the journal nor in the store.

    Raises:
        InvalidJournal: not the first line of a journal.
    """
    found = _FIRST_LINE.fullmatch(line)
    if found is None:
        raise InvalidJournal(f"{path}: expected a file that begins with {FORMAT!r}; got {line[:40]!r}. Nothing of it was taken")
    n, first, last = map(int, found.groups())
    return Loss(n, first, last) if n else Loss()
