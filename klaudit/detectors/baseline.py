"""What a series was like before: in its first steps, or lately."""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from typing import Any

from klaudit.errors import InvalidRecord

MAD_TO_SD = 1.4826
"""Median absolute deviation to standard deviation, for Gaussian noise (1 / 0.67449)."""


class FirstValues:
    """Median and robust spread of the first `n` finite values: the level that later ones are held against. State is JSON."""

    def __init__(self, n: int) -> None:
        if n < 1:
            raise InvalidRecord(f"FirstValues needs 1 value or more; got {n!r}")
        self.n = n
        self.level: float | None = None
        """Their median, in the series' unit; None until there are `n`."""
        self.sd = 0.0
        """1.4826 times their median absolute deviation, in the series' unit; 0 until there are `n`."""
        self._values: list[float] = []

    def observe(self, value: float) -> None:
        """Take in the next value; after the first `n` nothing changes."""
        if self.level is not None or not math.isfinite(value):
            return
        self._values.append(value)
        if len(self._values) >= self.n:
            self.level = find_median(self._values)
            self.sd = MAD_TO_SD * find_median([abs(one - self.level) for one in self._values])

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        return {"values": list(self._values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._values, self.level, self.sd = [], None, 0.0
        for value in state["values"]:
            self.observe(value)


class RollingMedian:
    """Median of the last `window` finite values. State is JSON."""

    def __init__(self, window: int) -> None:
        if window < 1:
            raise InvalidRecord(f"RollingMedian needs a window of 1 or more; got {window!r}")
        self.window = window
        self._values: deque[float] = deque()
        self._ordered: list[float] = []

    def __len__(self) -> int:
        return len(self._values)

    def observe(self, value: float) -> None:
        """Take in the next value, in the series' unit."""
        if not math.isfinite(value):
            return
        if len(self._values) == self.window:
            del self._ordered[bisect_left(self._ordered, self._values.popleft())]
        self._values.append(value)
        insort(self._ordered, value)

    def find(self) -> float | None:
        """The median, in the series' unit; None before the first value."""
        return _find_middle(self._ordered) if self._ordered else None

    def find_sd(self) -> float:
        """1.4826 times the median absolute deviation of the window, in the series' unit; takes time in proportion to the window."""
        if not self._ordered:
            return 0.0
        level = _find_middle(self._ordered)
        return MAD_TO_SD * find_median([abs(one - level) for one in self._ordered])

    def clear(self) -> None:
        """Forget every value."""
        self._values.clear()
        self._ordered.clear()

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        return {"values": list(self._values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.clear()
        for value in state["values"]:
            self.observe(value)


def find_median(values: list[float]) -> float:
    """Median of one value or more; the mean of the middle two of an even number."""
    return _find_middle(sorted(values))


def _find_middle(ordered: list[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
