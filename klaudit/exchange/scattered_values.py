"""Numbers that were logged one by one, brought together by step.

Trackers keep a row or an event for every single number, in whatever order a trainer logged them. Here they wait in a temporary database,
which grows on disk and not in memory, until they can be read step by step.
"""

import math
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from klaudit.exchange.interpretation import LARGEST_STEP, MOST_KEYS
from klaudit.exchange.metric_map import is_step
from klaudit.exchange.places import EARLIEST, LATEST
from klaudit.exchange.reader import LoggedValues, refuse, shorten

ROWS_AT_ONCE = 10_000


class ScatteredValues:
    """What was logged of one run. A number whose step goes back begins a new segment, as a resume does; one logged again replaces the first."""

    def __init__(self, where: str) -> None:
        """`where` the run stands, for errors."""
        self.n_replaced = 0
        self._where = where
        self._keys: dict[str, int] = {}
        self._last_steps: dict[str, int] = {}
        self._segment = 0
        self._waiting: list[tuple[int, int, int, Any, float | None]] = []
        # An empty name is a database that SQLite deletes when it is closed.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE logged (segment INTEGER, step INTEGER, key INTEGER, value, at, PRIMARY KEY (segment, step, key)) WITHOUT ROWID"
        )

    def add(self, step: Any, key: str, value: Any, *, at: float | None, where: str) -> None:
        """One number.

        Args:
            step: at which it was logged.
            key: it was logged under.
            value: a number, or whatever else was logged.
            at: when, in seconds since 1970.
            where: it stands, for errors.

        Raises:
            InvalidImportFile: a step that is no whole number from 0 to 2^63 - 1, or more than 10,000 keys.
        """
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= LARGEST_STEP:
            raise refuse(where, f"expected a whole number from 0 to 2^63 - 1; got {shorten(repr(step))}", field="step")
        last = self._last_steps.get(key)
        if last is not None and step < last:
            self.begin_segment()
        self.n_replaced += step == last
        self._last_steps[key] = step
        index = self._keys.setdefault(key, len(self._keys))
        if index >= MOST_KEYS:
            raise refuse(where, f"expected at most {MOST_KEYS} names in a run; got {shorten(key)!r} beyond them")
        self._waiting.append((self._segment, step, index, _to_column(value), at))
        if len(self._waiting) >= ROWS_AT_ONCE:
            self._flush()

    def begin_segment(self) -> None:
        """What follows was logged after a resume."""
        self._segment += 1
        self._last_steps.clear()

    @property
    def last_step(self) -> int:
        """The largest step of the segment so far; -1 before the first."""
        return max(self._last_steps.values(), default=-1)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was logged."""
        return not self._keys

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know."""
        return (f"numbers that were logged again at the same step: {self.n_replaced}; the later ones are kept",) if self.n_replaced else ()

    def read(self) -> Iterator[LoggedValues]:
        """The numbers of each step, in order of segment and step; those of an evaluation or of the end of training apart from the others."""
        self._flush()
        names = list(self._keys)
        asides = {name for name in names if not is_step({name: None})}
        place, values, moment = (0, -1), dict[str, Any](), None
        for segment, step, key, value, at in self._database.execute("SELECT * FROM logged ORDER BY segment, step, key"):
            if (segment, step) != place:
                yield from self._group(place, values, asides, moment)
                place, values, moment = (segment, step), {}, None
            # SQLite holds no NaN.
            values[names[key]] = math.nan if value is None else value
            moment = at if moment is None else max(moment, at or moment)
        yield from self._group(place, values, asides, moment)
        self._database.close()

    def _group(self, place: tuple[int, int], values: Mapping[str, Any], asides: set[str], at: float | None) -> Iterator[LoggedValues]:
        segment, step = place
        moment = datetime.fromtimestamp(at, UTC) if at is not None and EARLIEST < at < LATEST else None
        for group in ({key: values[key] for key in values.keys() - asides}, {key: values[key] for key in values.keys() & asides}):
            if group:
                ordered = {key: group[key] for key in values if key in group}
                yield LoggedValues(step=step, values=ordered, where=f"{self._where} step {step}", logged_at=moment, segment=segment)

    def _flush(self) -> None:
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR REPLACE INTO logged VALUES (?, ?, ?, ?, ?)", self._waiting)
        self._database.execute("COMMIT")
        self._waiting.clear()


def _to_column(value: Any) -> Any:
    """A value as SQLite can hold it; of what is no number enough for a message."""
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, int):
        return value if -LARGEST_STEP <= value <= LARGEST_STEP else shorten(value)
    text = value if isinstance(value, str) else repr(value)
    return shorten(text).encode("utf-8", errors="replace").decode()
