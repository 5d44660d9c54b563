"""A bucket of steps: what a chart of a long run is drawn from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RollUp:
    """The values of one key in one bucket of `level` steps of a segment."""

    key: str
    """`kl`, a key of the readings, `beta`, `score` or a metric's name."""
    level: int
    """Steps a bucket."""
    segment: int
    bucket: int
    """step // level."""
    n: int
    """Finite values."""
    min: float | None
    """Least finite value; None: none."""
    min_step: int | None
    """The first step that has it."""
    max: float | None
    max_step: int | None
    total: float | None
    """Sum of the finite values; None: beyond the range of a float."""
    n_non_finite: int
    """NaNs and infinities."""
    first_step: int
    """The first step of the bucket that has the key."""
    last_step: int
