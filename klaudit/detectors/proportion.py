"""Whether one number of each step is the same multiple of another."""

from collections.abc import Mapping
from typing import Any

from klaudit.detectors.baseline import find_median
from klaudit.errors import InvalidRecord

LEAST_PRECISION = 0.1
"""Rounding above this share of a number makes the pair worthless."""
MOST_SPREAD = 0.03
"""Relative residual, rounding left out, that a proportion may have while it is learned."""
WIDENING = 5
"""Later residuals may be this many times the second largest that was learned from: of eight Gaussian ones that is about 1.4 sd."""
SMALLEST, LARGEST = 1e-100, 1e100
"""Numbers beyond these are no measurement, and their products would leave what a float holds."""
SNAP = 0.01
"""A factor this near to 1 or -1 is 1 or -1."""


class Proportion:
    """Learns from pairs (x, y) whether y = factor x, and tells of later pairs whether it still holds.

    The factor is the median of y / x over `learn` pairs, and is known if all of them but one keep to it within MOST_SPREAD and their
    rounding; else the next `learn` pairs are tried, five times in all. Later pairs may leave it by `tolerance`, or by five times
    what the learned ones did. State is JSON.
    """

    def __init__(self, *, learn: int = 8, tolerance: float = 0.02, attempts: int = 5) -> None:
        if learn < 3:
            raise InvalidRecord(f"Proportion needs 3 pairs or more to learn from; got {learn!r}")
        self.learn = learn
        self.tolerance = tolerance
        self.attempts = attempts
        self.factor: float | None = None
        """None until it is known."""
        self._pairs: list[tuple[float, float, float]] = []

    @property
    def is_hopeless(self) -> bool:
        """Whether no factor was found and none will be sought."""
        return self.factor is None and self.attempts <= 0

    def observe(self, x: float, y: float, *, rounding: float) -> None:
        """Learn from a pair; does nothing once the factor is known, or hopeless.

        Args:
            x: any finite number.
            y: likewise.
            rounding: how far y - factor x may be off because the numbers were rounded, in the unit of y.
        """
        if self.factor is not None or self.attempts <= 0 or not _is_sane(x, y) or abs(y) < SMALLEST or rounding > LEAST_PRECISION * abs(y):
            return
        self._pairs.append((x, y, rounding))
        if len(self._pairs) >= self.learn:
            self._conclude()
            self._pairs = []

    def holds(self, x: float, y: float, *, rounding: float = 0.0) -> bool | None:
        """Whether a pair keeps to the factor; None where the factor is not known, or the pair is too much rounded to tell."""
        if self.factor is None or not _is_sane(x, y):
            return None
        expected = self.factor * x
        allowed = self.tolerance * abs(expected)
        if abs(y - expected) <= allowed + rounding:
            return True
        return False if rounding <= LEAST_PRECISION * abs(expected) else None

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        pairs = [list(pair) for pair in self._pairs]
        return {"factor": self.factor, "tolerance": self.tolerance, "attempts": self.attempts, "pairs": pairs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.factor, self.tolerance, self.attempts = state["factor"], state["tolerance"], state["attempts"]
        self._pairs = [(x, y, rounding) for x, y, rounding in state["pairs"]]

    def _conclude(self) -> None:
        factor = find_median([y / x for x, y, _ in self._pairs])
        precision = find_median([rounding / abs(y) for _, y, rounding in self._pairs])
        for whole in (1.0, -1.0):
            if abs(factor - whole) <= SNAP + precision:
                factor = whole
        if factor == 0:
            # The middle two of an even number cancel: half of the ratios have the other sign.
            self.attempts -= 1
            return
        residuals = sorted(max(abs(y - factor * x) - rounding, 0.0) / abs(factor * x) for x, y, rounding in self._pairs)
        if residuals[-2] <= MOST_SPREAD:
            self.factor = factor
            self.tolerance = max(self.tolerance, WIDENING * residuals[-2])
        else:
            self.attempts -= 1


def _is_sane(x: float, y: float) -> bool:
    return SMALLEST <= abs(x) <= LARGEST and abs(y) <= LARGEST
