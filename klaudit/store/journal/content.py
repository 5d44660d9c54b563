"""What a journal holds, for whoever did not write it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from klaudit.errors import InvalidJournal
from klaudit.records.session import Session
from klaudit.store.journal.entry import Entry, decode_session
from klaudit.store.journal.line import read_first_line, read_line
from klaudit.store.journal.loss import Loss


@dataclass(frozen=True, slots=True)
class JournalContent:
    """What a journal's file holds."""

    session: Session
    entries: tuple[Entry, ...]
    """Behind the session's own."""
    at_risk: Loss
    n_damaged: int
    """Lines inside that are not what was written; the last, torn one is none."""


def read_journal(path: Path) -> JournalContent:
    """Everything a journal's file holds.

    Raises:
        InvalidJournal: its beginning is not what a journal begins with.
    """
    session, at_risk = read_session(path)
    entries = list(read_entries(path))
    kept = tuple(entry for entry in entries if entry is not None)
    return JournalContent(session, kept, at_risk, n_damaged=len(entries) - len(kept))


def read_session(path: Path) -> tuple[Session, Loss]:
    """Who wrote a journal, and how many steps are neither in it nor in the store.

    Raises:
        InvalidJournal: its beginning is not what a journal begins with.
    """
    with path.open("rb") as file:
        at_risk = read_first_line(path, file.readline().rstrip(b"\n"))
        line = file.readline()
    entry = read_line(line) if line.endswith(b"\n") else None
    if entry is None or entry[0] != "session":
        raise InvalidJournal(
            f"{path}: expected a journal that names its session in its second line; it is damaged there. Nothing of it was taken"
        )
    return decode_session(entry), at_risk


def read_entries(path: Path) -> Iterator[Entry | None]:
    """The entries of a journal behind its session, one after the other; None for a line that is not what was written."""
    with path.open("rb") as file:
        for line in islice(file, 2, None):
            # What follows the last line feed is a torn line.
            if line.endswith(b"\n"):
                yield read_line(line)
