"""Mean and variance of the last values of a series, exact and at the same cost for every window."""

from collections import deque
from collections.abc import Iterable

SCALE_BITS = 1074
"""Every float is a whole multiple of 2^-1074, the smallest of them: sums of whole numbers forget nothing and never overflow."""


class SlidingMoments:
    """Sums over the last `window` finite values.

    Running sums of floats keep the rounding of every value that left the window, and one 1e300 spoils them for good; these do not.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._values: deque[float] = deque()
        self._sum = 0
        self._square_sum = 0

    def __len__(self) -> int:
        return len(self._values)

    @property
    def values(self) -> tuple[float, ...]:
        """The window, oldest first."""
        return tuple(self._values)

    @property
    def mean(self) -> float:
        """In the series' unit; needs a value."""
        return self._sum / (len(self._values) << SCALE_BITS)

    def push(self, value: float) -> float | None:
        """Take in a finite value; gives the one that leaves the window."""
        self._values.append(value)
        self._add(value, sign=1)
        if len(self._values) <= self.window:
            return None
        oldest = self._values.popleft()
        self._add(oldest, sign=-1)
        return oldest

    def score(self, value: float) -> tuple[int, int]:
        """The squared z-score of a finite value against the window's mean and sample standard deviation, as a fraction.

        Returns:
            Numerator and denominator, 0 or more; the denominator is 0 where all values of the window are equal.
        """
        n = len(self._values)
        distance = n * scale_up(value) - self._sum
        return (n - 1) * distance * distance, n * (n * self._square_sum - self._sum * self._sum)

    def refill(self, values: Iterable[float]) -> None:
        """Forget the window and take in another."""
        self._values.clear()
        self._sum = self._square_sum = 0
        for value in values:
            self.push(value)

    def _add(self, value: float, *, sign: int) -> None:
        scaled = scale_up(value)
        self._sum += sign * scaled
        self._square_sum += sign * scaled * scaled


def scale_up(value: float) -> int:
    """A finite float times 2^1074, exactly."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (SCALE_BITS + 1 - denominator.bit_length())
