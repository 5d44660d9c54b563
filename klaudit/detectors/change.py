"""What a change detector says of one value of a series."""

from dataclasses import dataclass
from typing import Literal

ChangeKind = Literal["jump", "level", "slope", "variance"]
Statistic = Literal["z", "sum", "t"]


@dataclass(frozen=True, slots=True)
class Change:
    """An alarm that is on at one value."""

    kind: ChangeKind
    """jump: one value is off; level: values stay off; slope: they grow apart from what was expected; variance: they scatter more."""
    direction: int
    """1: upward, -1: downward."""
    score: float
    """The detector's statistic; for a jump, noise standard deviations."""
    limit: float
    """What `score` has to exceed."""
    expected: float
    """What the values before led to expect, in the series' unit."""
    first_position: float
    """Step at which the change began, as far as it can be told."""
    statistic: Statistic = "sum"
    """What `score` is: z: standard deviations; sum: what standard deviations exceed an allowance by, added up; t: standard errors."""
