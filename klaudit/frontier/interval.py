"""A number with its interval."""

from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A number and how far it may be off."""

    value: float
    low: float
    """Lower end; -infinity where nothing bounds it."""
    high: float
    """Upper end; infinity where nothing bounds it."""
