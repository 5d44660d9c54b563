"""The journal that this process writes."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from klaudit.errors import JournalUnwritable
from klaudit.records import PRIMARY, KLSeries, StepRecord, TextSample
from klaudit.records.session import Session
from klaudit.store.journal.directories import ELSEWHERE_SUFFIX, SUFFIX
from klaudit.store.journal.entry import Entry, encode_series, encode_session, encode_step
from klaudit.store.journal.file import JournalFile
from klaudit.store.journal.line import FIRST_LINE_LENGTH, render_line
from klaudit.store.journal.loss import Loss


class Journal:
    """The journal that this process writes. Any thread may append; a fork must call `abandon`.

    Args:
        directories: in which its file may lie; the first that takes it, the next when that one fails.
        session: who writes.
        usual: where whoever opens the store looks first; directories that are others are noted there.

    Raises:
        JournalUnwritable: none of the directories takes a file.
    """

    def __init__(self, directories: Sequence[Path], session: Session, *, usual: Sequence[Path] = ()) -> None:
        self._directories = tuple(directories)
        self._pointers = [directory / f"{session.id}{ELSEWHERE_SUFFIX}" for directory in usual if directory not in self._directories]
        self._header = render_line(encode_session(session))
        self._session_id = session.id
        self._lock = Lock()
        self._files: list[JournalFile] = []
        self._n_tried = 0
        self._series: dict[str, KLSeries] = {}
        self._at_risk = Loss()
        refusals = self._open_next()
        self._n_tried_first = self._n_tried
        if not self._files:
            raise JournalUnwritable(
                f"expected a directory that takes the journal of this run; {'; '.join(refusals) or 'none was given'}. Free some space, or name "
                "another with KLAUDIT_JOURNAL"
            )
        self._write_pointers()

    @property
    def directory(self) -> Path:
        """Where it lies now."""
        return self._files[-1].path.parent

    @property
    def lock(self) -> Lock:
        """Held while a line goes out; who holds it sees a journal that stands still."""
        return self._lock

    def append_step(self, record: StepRecord, samples: Sequence[TextSample]) -> bool:
        """Write one step, and the series of its readings where they are new; False when no directory takes it. For a holder of `lock`."""
        series = {key: one.series for key, one in record.readings.items()}
        series[PRIMARY] = record.kl.series
        return self._declare(series) and self._append(render_line(encode_step(record, samples)))

    def append_numbers(self, entry: Entry, series: KLSeries) -> bool:
        """Write one step of bare numbers, whose KL is of `series`; False when no directory takes it. For a holder of `lock`."""
        is_declared = self._series.get(PRIMARY) is series or self._declare({PRIMARY: series})
        return is_declared and self._append(render_line(entry))

    def append(self, entry: Entry) -> bool:
        """Write one entry; False when no directory takes it. For a holder of `lock`."""
        return self._append(render_line(entry))

    def note_at_risk(self, loss: Loss) -> None:
        """Put down how many logged steps are neither here nor in the store; overwrites in place, so that a full disk does not matter."""
        if loss != self._at_risk:
            self._at_risk = loss
            for file in self._files:
                file.write_first_line(loss)

    def trim(self) -> None:
        """Drop every entry, because the store holds it, and go back to the first directory. For a holder of `lock`."""
        while len(self._files) > 1:
            self._files.pop().remove()
        self._files[0].truncate(self._head_length)
        self._n_tried = self._n_tried_first
        self._series.clear()

    def read_from(self, place: "JournalPlace", limit: int) -> tuple[list[Entry], "JournalPlace"]:
        """The next entries behind a place, at most `limit`, and the place behind them; none where it is the end, as far as one can tell.

        Needs no lock: what stands before the end does not change. Only for whoever calls `trim`, since that does.

        Raises:
            OSError: the disk does not give it back.
        """
        # Before any length: a file that has a later one is complete.
        files = tuple(self._files)
        entries: list[Entry] = []
        while len(entries) < limit and place.file < len(files):
            offset, end = max(place.offset, self._head_length), files[place.file].length
            found, offset = files[place.file].read(offset, end, limit - len(entries))
            entries += found
            is_last = place.file + 1 == len(files)
            place = JournalPlace(place.file, offset) if offset < end or is_last else JournalPlace(place.file + 1, 0)
            if offset >= end and is_last:
                break
        return entries, place

    def is_at_end(self, place: "JournalPlace") -> bool:
        """Whether nothing stands behind a place. For a holder of `lock`."""
        last = len(self._files) - 1
        return place.file > last or (place.file == last and max(place.offset, self._head_length) >= self._files[last].length)

    @property
    def place(self) -> "JournalPlace":
        """Where the next line will go."""
        return JournalPlace(len(self._files) - 1, self._files[-1].length)

    def is_displaced(self) -> bool:
        """Whether somebody deleted or moved one of its files; what is written there would be found by nobody."""
        return any(file.is_displaced() for file in self._files)

    def reopen(self) -> bool:
        """Make files anew that were deleted or moved, with all that they hold, so that every place stays; False when no directory takes one.

        For a holder of `lock`. What could not be made anew goes on as it is: this process can still read and write it.
        """
        for number, file in enumerate(self._files):
            if file.is_displaced() and (anew := self._copy(file)) is not None:
                self._files[number] = anew
                file.close()
        self._write_pointers()
        return not self.is_displaced()

    def remove(self) -> None:
        """Everything is stored: the files go."""
        with self._lock:
            while self._files:
                self._files.pop().remove()
            for pointer in self._pointers:
                with contextlib.suppress(OSError):
                    pointer.unlink()

    def leave(self) -> None:
        """Close the files and let them lie for whoever opens the store next."""
        with self._lock:
            self.abandon()

    def abandon(self) -> None:
        """Close this process's view of the files, without a lock: for the child of a fork, where somebody else may hold it for ever."""
        for file in self._files:
            file.close()

    def _declare(self, series: Mapping[str, KLSeries]) -> bool:
        changed = {key: one for key, one in series.items() if self._series.get(key) is not one and self._series.get(key) != one}
        if changed and not self._append(render_line(encode_series(changed))):
            return False
        self._series.update(series)
        return True

    def _append(self, line: bytes) -> bool:
        if not self._files:
            return False
        if self._files[-1].write(line):
            return True
        return not self._open_next() and bool(self._files) and self._files[-1].write(line)

    def _open_next(self) -> list[str]:
        """Open a file in the first directory behind the present one that takes it; gives why each of the others did not."""
        refusals = []
        while self._n_tried < len(self._directories):
            directory = self._directories[self._n_tried]
            self._n_tried += 1
            try:
                self._files.append(JournalFile(directory / f"{self._session_id}{SUFFIX}", self._header))
            except OSError as error:
                refusals.append(f"{directory}: {error.strerror or error}")
            else:
                self._files[-1].write_first_line(self._at_risk)
                self._series.clear()
                return []
        return refusals or ["no directory is left"]

    def _copy(self, file: "JournalFile") -> "JournalFile | None":
        """The same file at its path, or in another of the directories; None where that fails."""
        for directory in dict.fromkeys((file.path.parent, *self._directories)):
            with contextlib.suppress(OSError):
                anew = JournalFile(directory / f"{self._session_id}{SUFFIX}", self._header)
                if anew.append_from(file, self._head_length):
                    anew.write_first_line(self._at_risk)
                    return anew
                anew.remove()
        return None

    def _write_pointers(self) -> None:
        """Note in the usual directory where the journal lies; behind the journal, since a note of none is taken away."""
        content = json.dumps([os.fspath(directory) for directory in self._directories])
        for pointer in self._pointers:
            with contextlib.suppress(OSError):
                pointer.parent.mkdir(parents=True, exist_ok=True)
                pointer.write_text(content)

    @property
    def _head_length(self) -> int:
        return FIRST_LINE_LENGTH + len(self._header)


@dataclass(frozen=True, slots=True)
class JournalPlace:
    """A place in a journal that may go over several files."""

    file: int
    offset: int
