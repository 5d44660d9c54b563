"""Which columns of a file say where a number belongs: step, segment and time."""

import math
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from klaudit.exchange.reader import LoggedValues, ReadOptions, refuse, shorten

STEP_NAMES = ("step", "global_step", "_step", "train/global_step", "trainer/global_step", "iteration", "iter", "update", "Step")
TIME_NAMES = ("time", "timestamp", "_timestamp", "wall_time")
EARLIEST, LATEST = 1e9, 4e9
"""Seconds since 1970 between which a number is taken for a time that nobody declared: 2001 to 2096."""


@dataclass(frozen=True, slots=True)
class Places:
    """The columns of step, segment and time; None where there is none."""

    step: str
    segment: str | None
    time: str | None
    is_time_declared: bool

    def take(self, values: MutableMapping[str, Any], where: str) -> LoggedValues:
        """A row without these columns, and what they say.

        Raises:
            InvalidImportFile: a step or a segment that is no whole number, or a declared time that is none.
        """
        step = read_whole(values.pop(self.step, None), where, self.step)
        segment = None if self.segment is None else read_whole(values.pop(self.segment, None), where, self.segment)
        moment = None
        if self.time is not None:
            moment = read_time(values.get(self.time))
            if moment is not None:
                del values[self.time]
            elif self.is_time_declared:
                came = shorten(repr(values.get(self.time)))
                raise refuse(where, f"expected a time with its zone, or seconds since 1970; got {came}", field=self.time)
        return LoggedValues(step=step, values=values, where=where, logged_at=moment, segment=segment)


def find_places(keys: Iterable[str], options: ReadOptions, where: object) -> Places:
    """The columns that the person names, else those that are named as such columns usually are.

    Raises:
        InvalidImportFile: no column of steps.
    """
    known = dict.fromkeys(keys)
    step = options.columns.get("step") or next((name for name in STEP_NAMES if name in known), None)
    if step is None or step not in known:
        wanted = "a column of steps" if step is None else f"a column {step!r}"
        raise refuse(where, f"expected {wanted}; there are {shorten(', '.join(known), 300)}. Name it with --column step=NAME")
    time = options.columns.get("time") or next((name for name in TIME_NAMES if name in known), None)
    return Places(step, options.columns.get("segment") or ("segment" if "segment" in known else None), time, "time" in options.columns)


def read_whole(value: Any, where: object, field: str) -> int:
    """A whole number, 0 or more; `3.0` is one, as tables with gaps write it.

    Raises:
        InvalidImportFile: anything else.
    """
    number = value
    if isinstance(value, str):
        try:
            number = float(value) if len(value) < 40 else value
            number = int(value) if len(value) < 40 and value.strip().isdigit() else number
        except ValueError:
            pass
    if isinstance(number, float) and number.is_integer() and math.fabs(number) < 2**53:
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise refuse(
            where, f"expected a whole number, 0 or more; got {shorten(repr(value)) if value is not None else 'nothing'}", field=field
        )
    return number


def read_time(value: Any) -> datetime | None:
    """A time with its zone, or seconds since 1970; None for anything else."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo is not None else None
        if isinstance(value, (int, float)) and EARLIEST < value < LATEST:
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError):
        pass
    return None


def drop_missing(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row without its empty cells."""
    return {key: value for key, value in values.items() if value is not None and value != ""}
