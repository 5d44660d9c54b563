"""Steps on their way to the store, in memory and in the journal."""

import functools
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from klaudit.records import KLSeries, LoggedStep
from klaudit.store.intake import BATCH
from klaudit.store.journal.entry import Entry, decode_series
from klaudit.store.journal.loss import Loss
from klaudit.store.journal.writer import Journal, JournalPlace
from klaudit.workflows.recorder.reporter import Reporter

MOST_WAITING = 10_000
"""Steps without texts that wait in memory, some 30 MB; more wait in the journal alone."""
TOKENS_A_STEP = 16
"""So many tokens of a text sample take as much memory as a step."""
LONGEST_HOLD_S = 0.05
"""How long the end of a run waits for a step that is being put in, in seconds."""


class StepQueue:
    """What was logged and is not stored yet: one thread puts it in, another takes it out.

    Args:
        journal: that steps go through; None: they wait in memory alone.
        is_prompt: whether each step is in the journal before it is in the queue, and not only once memory is full.
        reporter: is told of the first step that is lost.
    """

    def __init__(self, journal: Journal | None, *, is_prompt: bool, reporter: Reporter) -> None:
        self.series: dict[str, KLSeries] = {}
        """Of steps that are in the journal alone, where they were declared with them."""
        self.loss = Loss()
        """Steps that were put in and that are nowhere."""
        self.last_step: int | None = None
        self.lock = threading.Lock() if journal is None else journal.lock
        """Held while something is put in, and while the journal is trimmed."""
        self._journal = journal
        self._is_prompt = is_prompt
        self._reporter = reporter
        self._items: deque[LoggedStep | Entry] = deque()
        self._weight = 0
        self._spilled: JournalPlace | None = None
        self._unjournaled: set[int] = set()
        self._at_risk = Loss()
        self._has_end = False

    def __len__(self) -> int:
        """Items in memory."""
        return len(self._items)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, in memory or in the journal."""
        return not self._items and self._spilled is None

    @property
    def directory(self) -> Path | None:
        """Of the journal; None: steps wait in memory alone."""
        return None if self._journal is None else self._journal.directory

    def put_step(self, logged: LoggedStep) -> None:
        """Journal one step and let it wait."""
        journal = self._journal
        with self.lock:
            is_full = self._is_full
            place = journal.place if is_full and journal is not None else None
            is_journaled = (is_full or self._is_prompt) and journal is not None and journal.append_step(logged.record, logged.samples)
            self._put(logged.record.step, logged, place, is_journaled=is_journaled)

    def put_numbers(self, entry: Entry, series: KLSeries) -> None:
        """Journal one step of bare numbers, whose KL is of `series`, and let it wait."""
        journal = self._journal
        with self.lock:
            is_full = self._is_full
            place = journal.place if is_full and journal is not None else None
            is_journaled = (is_full or self._is_prompt) and journal is not None and journal.append_numbers(entry, series)
            self._put(entry[1], entry, place, is_journaled=is_journaled)

    def put_entry(self, entry: Entry) -> None:
        """Journal what is no step and let it wait."""
        with self.lock:
            place = None if self._journal is None else self._journal.place
            is_journaled = self._journal is not None and self._journal.append(entry)
            if not is_journaled or not self._is_full:
                self._items.append(entry)
                self._weight += weigh(entry)
            elif self._spilled is None:
                self._spilled = place

    def put_end(self, *, failed: bool) -> None:
        """Put into the journal how the run ended, behind all else."""
        self._has_end = True
        # A handler of a signal may call this in the middle of put_step(), whose thread holds the lock.
        if self._journal is not None and self.lock.acquire(timeout=LONGEST_HOLD_S):
            try:
                self._journal.append(("end", failed))
            finally:
                self.lock.release()

    def read(self) -> list[LoggedStep | Entry]:
        """The next items in memory, BATCH at most; once they are stored, `drop` them."""
        return list(islice(self._items, BATCH))

    def drop(self, n: int) -> None:
        """The first `n` items in memory are stored."""
        with self.lock:
            self._weight -= sum(weigh(self._items.popleft()) for _ in range(n))

    def read_spilled(self) -> tuple[list[Entry], JournalPlace | None]:
        """The next entries that are in the journal alone, and the place behind them; once they are stored, `skip_spilled` to it.

        Without a place nothing is to be skipped: as far as one could tell it was the end.
        """
        assert self._journal is not None
        assert self._spilled is not None
        entries, place = self._journal.read_from(self._spilled, BATCH)
        if not entries:
            with self.lock:
                is_at_end = self._journal.is_at_end(place)
                self._spilled = None if is_at_end else place
            if is_at_end:
                self.series.clear()
            return [], None
        for entry in entries:
            if entry[0] == "series":
                self.series |= decode_series(entry)
        return [entry for entry in entries if entry[0] not in {"series", "end"}], place

    def skip_spilled(self, place: JournalPlace) -> None:
        """What stands in the journal before a place is stored."""
        self._spilled = place

    def lose(self, steps: Sequence[int]) -> None:
        """Some steps can be stored nowhere."""
        with self.lock:
            for step in steps:
                self._lose(step)

    def note_stored(self, steps: Iterable[int]) -> None:
        """Some steps are in the store, and no longer at risk."""
        if self._unjournaled:
            with self.lock:
                self._unjournaled.difference_update(steps)
                self._note_at_risk(functools.reduce(Loss.add, self._unjournaled, self.loss))

    def keep_journal(self) -> None:
        """Make the journal anew where somebody took it away."""
        if self._journal is not None and self._journal.is_displaced():
            self._reporter.warn(f"the journal in {self._journal.directory} was taken away during the training; it is made anew")
            with self.lock:
                self._journal.reopen()

    def trim(self) -> bool:
        """Drop from the journal what is stored; False where something waits still."""
        with self.lock:
            # The line that says how the run ended stays until its end is stored.
            if self.is_empty and self._journal is not None and not self._has_end:
                self._journal.trim()
            return self.is_empty

    def remove(self) -> None:
        """Everything is stored: the journal goes."""
        if self._journal is not None:
            self._journal.remove()

    def abandon(self) -> None:
        """Close this process's view of the journal: for the child of a fork."""
        if self._journal is not None:
            self._journal.abandon()

    @property
    def _is_full(self) -> bool:
        """Whether a step that comes now waits in the journal alone."""
        return self._spilled is not None or self._weight >= MOST_WAITING

    def _put(self, step: int, item: LoggedStep | Entry, place: JournalPlace | None, *, is_journaled: bool) -> None:
        """Put a step where the worker finds it; `place` is where its line stands in the journal, for a queue that is full."""
        if not self._is_full:
            self._items.append(item)
            self._weight += weigh(item)
            if not is_journaled and self._is_prompt and self._journal is not None:
                self._unjournaled.add(step)
                self._note_at_risk(self._at_risk.add(step))
        elif not is_journaled:
            self._lose(step)
        elif self._spilled is None:
            self._spilled = place
        self.last_step = step

    def _lose(self, step: int) -> None:
        self.loss = self.loss.add(step)
        if self.loss.n == 1:
            self._reporter.warn(
                f"step {step} is lost: neither the store nor a journal takes it. Steps that are lost are counted, and become a finding"
            )
        self._note_at_risk(self._at_risk.add(step))

    def _note_at_risk(self, at_risk: Loss) -> None:
        """Put down what is lost, and what would be if the process died now."""
        self._at_risk = at_risk
        if self._journal is not None:
            self._journal.note_at_risk(at_risk)


def weigh(item: LoggedStep | Entry) -> int:
    """What an item takes of the memory that steps may wait in, in steps without texts."""
    if not isinstance(item, LoggedStep) or not item.samples:
        return 1
    return 1 + sum(len(sample.tokens) for sample in item.samples) // TOKENS_A_STEP
