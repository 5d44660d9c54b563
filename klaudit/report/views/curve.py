"""One series over the steps of a run, thinned so that neither spike, gap nor finding is lost."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tsdownsample import MinMaxDownsampler

from klaudit.report.views.figure import format_number

open_minmax: Callable[[], MinMaxDownsampler] = MinMaxDownsampler
"""The class by a typed name: its constructor carries no annotations."""

NOT_MEASURED = "not measured"
"""Kind of a gap in which there is no value at all."""

StepKey = tuple[int, int]
"""Segment and step: what one record of a run is known by."""


class Point(NamedTuple):
    """One point before thinning; a named tuple, because a long run makes millions."""

    segment: int
    step: int
    value: float | None
    """None: not measured."""
    error: float | None = None
    """Half the width of the band."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of steps without a finite value."""

    first_step: int
    last_step: int
    kind: str
    """`NaN`, `Infinity`, `-Infinity` or `not measured`."""
    n_steps: int
    segment: int = 0


@dataclass(frozen=True, slots=True)
class Curve:
    """What a chart draws: points in order of segment and step; a NaN lifts the pen."""

    key: str
    label: str
    """What it is, for a legend."""
    unit: str
    """For people, such as `nats/sequence`."""
    estimator: str | None
    """k1, k2, k3, full or unknown for a KL; None for anything else."""
    steps: tuple[int, ...]
    """May go back where a resumed run began a new segment; there a NaN parts the two."""
    values: tuple[float, ...]
    """In `unit`; NaN wherever there is no finite value."""
    low: tuple[float, ...] | None
    """Lower edge of the band, in `unit`; None without a band."""
    high: tuple[float, ...] | None
    band: str
    """What the band is, such as `± 1 standard error`; empty without one."""
    gaps: tuple[Gap, ...]
    """Every stretch without a finite value, thinned or not."""
    n_points: int
    """Points of the series, before thinning."""
    n_shown: int
    statement: str
    """What of the series is shown."""
    resumes: tuple[int, ...] = ()
    """Steps at which a later segment begins."""

    @property
    def is_sparse(self) -> bool:
        """Whether it was measured on less than half of its steps, as a probe's is: then it is points, and no line."""
        return 2 * sum(one.n_steps for one in self.gaps if one.kind == NOT_MEASURED) > self.n_points

    @property
    def is_whole(self) -> bool:
        """Whether every point is shown."""
        return self.n_shown == self.n_points

    @property
    def last(self) -> tuple[int, float] | None:
        """Step and value of the last finite point."""
        pairs = zip(reversed(self.steps), reversed(self.values), strict=True)
        return next(((step, value) for step, value in pairs if math.isfinite(value)), None)


def draw_curve(
    points: Sequence[Point],
    *,
    key: str,
    label: str,
    unit: str,
    max_points: int,
    estimator: str | None = None,
    band: str = "",
    keep: Collection[StepKey] = (),
    n_points: int | None = None,
) -> Curve:
    """Thin one series to about `max_points` points.

    Args:
        points: in order of segment and step.
        keep: records whose point is shown in any case, because a finding names them.
        n_points: of the series, where `points` are only some of them.
    """
    values = np.array([math.nan if one.value is None else one.value for one in points], dtype=np.float64)
    kept = {i for i, one in enumerate(points) if (one.segment, one.step) in keep} if keep else set()
    chosen = choose_points(values, keep=kept, max_points=max_points)
    shown = part_segments([points[i] for i in chosen])
    has_band = any(one.error is not None for one in shown)
    return Curve(
        key=key,
        label=label,
        unit=unit,
        estimator=estimator,
        steps=tuple(one.step for one in shown),
        values=tuple(to_finite(one.value) for one in shown),
        low=tuple(to_finite(one.value, -1, one.error) for one in shown) if has_band else None,
        high=tuple(to_finite(one.value, 1, one.error) for one in shown) if has_band else None,
        band=band if has_band else "",
        gaps=find_gaps(points),
        n_points=n_points or len(points),
        n_shown=len(chosen),
        statement=state_thinning(len(chosen), n_points or len(points)),
        resumes=tuple(after.step for before, after in pairwise(points) if before.segment != after.segment),
    )


def choose_points(values: npt.NDArray[np.float64], *, keep: Collection[int], max_points: int) -> list[int]:
    """Indices of the points to show, in order.

    Lowest and highest point of every bin (MinMax), first and last point, `keep`, and a point of every gap as long as these fill no
    more than a quarter. MinMax runs on the finite points alone: tsdownsample's NaN-aware variants take the NaN of a bin for both of
    its extremes and drop the spike beside it, and a largest-triangle pass behind it keeps one of two opposite spikes in a bucket.
    """
    n = len(values)
    if n <= max_points:
        return list(range(n))
    finite = np.flatnonzero(np.isfinite(values))
    broken = np.flatnonzero(~np.isfinite(values))
    starts = broken[np.diff(broken, prepend=-2) > 1]
    starts = starts[:: math.ceil(len(starts) / max(1, max_points // 4)) or 1]
    forced = {0, n - 1, *keep, *starts.tolist()}
    room = max(max_points - len(forced), max_points // 2, 2) // 2 * 2
    extremes = finite if len(finite) <= room else finite[open_minmax().downsample(values[finite], n_out=room)]
    return sorted(forced.union(extremes.tolist()))


def find_gaps(points: Sequence[Point]) -> tuple[Gap, ...]:
    """Stretches of neighbouring points of one segment that lack a finite value for the same reason."""
    gaps: list[Gap] = []
    open_gap = False
    for one in points:
        if one.value is not None and math.isfinite(one.value):
            open_gap = False
            continue
        kind = NOT_MEASURED if one.value is None else format_number(one.value)
        before = gaps[-1] if open_gap else None
        if before is not None and (before.kind, before.segment) == (kind, one.segment):
            gaps[-1] = Gap(before.first_step, one.step, kind, before.n_steps + 1, one.segment)
        else:
            gaps.append(Gap(one.step, one.step, kind, 1, one.segment))
        open_gap = True
    return tuple(gaps)


def part_segments(points: Sequence[Point]) -> list[Point]:
    """Put a point without value wherever a new segment begins, so that no line joins two segments."""
    parted: list[Point] = []
    for one in points:
        if parted and parted[-1].segment != one.segment:
            parted.append(Point(one.segment, one.step, None))
        parted.append(one)
    return parted


def to_finite(value: float | None, sign: int = 0, error: float | None = None) -> float:
    """`value` + sign x error, or NaN where that is no finite number."""
    moved = math.nan if value is None else value + sign * (error or 0.0)
    return moved if math.isfinite(moved) else math.nan


def state_thinning(n_shown: int, n_points: int) -> str:
    """Say how many points of a series are shown."""
    if n_shown == n_points:
        return f"showing all {n_points:,} points"
    return f"showing {n_shown:,} of {n_points:,} points; lowest and highest of every stretch and every finding's point kept"
