"""Every kind of change in one KL series: a jump, another level, another slope, another variance."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from klaudit.detectors.baseline import find_median
from klaudit.detectors.change import Change, ChangeKind
from klaudit.detectors.forecast import FARTHEST, FARTHEST_LINE, ForecastBank, Noise, Surprise, find_quantile, find_tail
from klaudit.detectors.trend_break import Departure, TrendBreakDetector

WARM_UP = 12
"""Values above `least` before anything can alarm; those before the first of them are zeros of a policy that has not moved."""
EARLY = 5.0
"""Limits are wider by 1 + EARLY / n at the n-th value: forecast and scale are still uncertain."""
CLIP = 4.0
"""A whitened innovation counts up to so much in the sums: no single value makes a level."""
FALL_CLIP = 3.0
"""Likewise downward: on a logarithmic scale the noise of a small batch has its longer tail below."""
LEVEL_ALLOWANCE = 0.75
"""Standard deviations that a value must be off before it counts for another level."""
VARIANCE_ALLOWANCE = 3.0
"""Squared standard deviations that count as usual."""
CORRELATION_WEIGHT = 0.05
"""Of the latest pair in the correlation of neighbouring innovations."""
RECENT = 9
"""Values whose median a change must also stand out from."""
LEAST_RISE = 0.04
"""Share of that median that a rise must have, to be worth telling."""
LEAST_FALL = 0.35
"""Likewise for a fall."""
HOLD = 8
"""Values after an alarm at which there is no other: one change is told once."""
SETTLING = 4
"""Values from an alarm until the new level is taken for the level."""
DISTRUST = 0.75
"""How much less the forecasters move when the sum for a level is at its limit."""
FAR = 3.0
"""Times `least` that the level must be before its slope on a logarithmic scale means anything."""
LINES = ((40, 20), (50, 40))
"""Values of a line, and values after it that it does not see: the first finds a slope soon, the second one that a long wander hides."""

STATE = ("_last", "_product", "_square", "_n_told", "_hold", "_settling", "_before", "_after", "_grows")


@dataclass(slots=True)
class _Sum:
    """Page's cumulative sum, one side."""

    value: float = 0.0
    first_position: float = 0.0
    n: int = 0

    def add(self, excess: float, *, position: float) -> None:
        if self.value <= 0:
            self.first_position, self.n = position, 0
        self.value = max(0.0, self.value + excess)
        self.n += 1

    def is_over(self, limit: float, *, n: int = 2) -> bool:
        """Whether it is the sum of at least `n` values, and over its limit."""
        return self.value > limit and self.n >= n

    def clear(self) -> None:
        self.value, self.n = 0.0, 0


@dataclass(frozen=True, slots=True)
class ChangeLimits:
    """What the statistics must exceed."""

    jump: float
    """Standard deviations."""
    level: float
    """Sum of excesses over LEVEL_ALLOWANCE."""
    slope: float
    """Standard errors above the line."""
    variance: float
    """Sum of excesses over VARIANCE_ALLOWANCE."""


def find_limits(false_alarms_per_1000: float) -> ChangeLimits:
    """The limits at which all kinds of change together give so many false alarms, on noise that is hard.

    A limit moves with the logarithm of the rate. Offsets and slopes are fitted on generated runs (tests/bench/detection, seeds 2000 to 3200
    and 12000 to 13300: measured within 0.75 and 1.2 of what is asked for, from 0.25 to 8), so that a further false alarm of any kind finds about
    as many further changes, and held by simulation in tests/detectors/test_kl_change.py: Student-t noise of six degrees of freedom and more,
    added or multiplied, on a level that wanders with a correlation of up to 0.94.
    """
    decades = -math.log10(false_alarms_per_1000)
    return ChangeLimits(jump=3.9 + 1.6 * decades, level=6.0 + 2.0 * decades, slope=3.3 + 1.2 * decades, variance=24.0 + 8.0 * decades)


@dataclass(slots=True)
class _Sums:
    level_up: _Sum = field(default_factory=_Sum)
    level_down: _Sum = field(default_factory=_Sum)
    variance: _Sum = field(default_factory=_Sum)

    def clear(self) -> None:
        for one in (self.level_up, self.level_down, self.variance):
            one.clear()


class KLChangeDetector:
    """Tells changes of one KL series apart from its growth and its noise.

    Each value is held against the forecast of a bank (see ForecastBank). `jump` is one innovation above its limit. The others are Page's
    cumulative sums of whitened innovations: whitened, because what neighbours share would be counted twice; clipped, because one outlier
    is not a level. While a sum grows the forecasters follow less. A change must also stand out from the median of the last values.

    Non-finite values are left out. State is JSON.

    Source: Page 1954 (cumulative sums); limits by simulation, see `find_limits`.
    """

    def __init__(self, *, noise: Noise, least: float, notable: float = 0.0, false_alarms_per_1000: float = 1.0) -> None:
        """Build it.

        Args:
            noise: how the noise grows with the KL.
            least: a KL below which nothing can be told from zero, in the series' unit; above 0.
            notable: a KL below which no change is told, in the series' unit; one from or to a larger KL is.
            false_alarms_per_1000: of all kinds together, on healthy steps.
        """
        self.least = least
        self.notable = notable
        self.limits = find_limits(false_alarms_per_1000)
        self._rarest = find_tail(self.limits.jump)
        self._bank = ForecastBank(noise=noise, least=least, rare=self._rarest)
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._sums = _Sums()
        self._trend_breaks = [TrendBreakDetector(window, delay) for window, delay in LINES]
        self._last = 0.0
        self._product = 0.0
        self._square = 0.0
        self._n_told = 0
        self._hold = 0
        self._settling = 0
        self._before = self._after = 0.0
        self._grows = False
        self.surprise: Surprise | None = None

    def observe(self, value: float, *, position: float, least_sd: float) -> Change | None:
        """Judge the next value, then take it in.

        Args:
            value: in the series' unit.
            position: its step; must grow.
            least_sd: the least standard deviation that the value can have, in the series' unit.

        Returns:
            The alarm that is on at this value; none in the HOLD values after an alarm.
        """
        if not math.isfinite(value):
            return None
        value = max(-FARTHEST, min(FARTHEST, value))
        self._n_told += value > self.least
        if not self._n_told:
            return None
        self.surprise = surprise = self._bank.judge(value, least_sd=least_sd, widening=1 + EARLY / (len(self._bank) + 1))
        transformed = self._transform(value)
        departures = [one.observe(transformed, position=position) for one in self._trend_breaks]
        change: Change | None = None
        if surprise is not None and self._n_told > WARM_UP:
            self._add(surprise, position=position)
            if self._hold <= 0:
                change = self._find_change(surprise, departures, value=value, position=position)
                if change is not None and max(value, change.expected) < self.notable:
                    change = None
        suspicion = min(1.0, max(self._sums.level_up.value, self._sums.level_down.value) / self.limits.level)
        self._bank.absorb(trust=1 - DISTRUST * suspicion)
        self._recent.append(value)
        self._hold -= 1
        self._settle(change, value=value)
        return change

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        sums = {name: [one.value, one.first_position, one.n] for name in _Sums.__slots__ for one in [getattr(self._sums, name)]}
        return {
            "bank": self._bank.state_dict(),
            "trend_breaks": [one.state_dict() for one in self._trend_breaks],
            "recent": list(self._recent),
            "sums": sums,
        } | {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._bank.load_state_dict(state["bank"])
        for one, remembered in zip(self._trend_breaks, state["trend_breaks"], strict=True):
            one.load_state_dict(remembered)
        self._recent = deque(state["recent"], maxlen=RECENT)
        for name, (value, first_position, n) in state["sums"].items():
            setattr(self._sums, name, _Sum(value, first_position, n))
        for name in STATE:
            setattr(self, name, state[name])

    def _add(self, surprise: Surprise, *, position: float) -> None:
        """Whiten the innovation and add it to the sums."""
        z = clip(surprise.z)
        correlation = min(0.9, max(0.0, self._product / (self._square + 0.3)))
        white = clip((z - correlation * self._last) / math.sqrt(1 - correlation * correlation))
        self._product += CORRELATION_WEIGHT * (z * self._last - self._product)
        self._square += CORRELATION_WEIGHT * (z * z - self._square)
        self._last = z
        up = min(white, max(-CLIP, surprise.z_up))
        down = min(FALL_CLIP, -max(white, min(CLIP, surprise.z_down)))
        sums = self._sums
        sums.level_up.add(up - LEVEL_ALLOWANCE, position=position)
        sums.level_down.add(down - LEVEL_ALLOWANCE, position=position)
        sums.variance.add(max(white, -FALL_CLIP) ** 2 - VARIANCE_ALLOWANCE, position=position)

    def _find_change(self, surprise: Surprise, departures: Sequence[Departure | None], *, value: float, position: float) -> Change | None:
        """The first that holds of: jump, level, slope, variance; one change is told once."""
        limits, sums, expected = self.limits, self._sums, surprise.expected
        jumps = surprise.p_up < self._rarest
        rising, falling = sums.level_up.is_over(limits.level), sums.level_down.is_over(limits.level)
        departed = [
            (one, departure)
            for one, departure in zip(self._trend_breaks, departures, strict=True)
            if departure is not None and departure.is_over(limits.slope)
        ]
        scattering = sums.variance.is_over(limits.variance, n=3)
        if not (jumps or rising or falling or departed or scattering):
            return None
        median = find_median(list(self._recent))
        rises = value > median + LEAST_RISE * abs(median) + self.least / 4
        falls = value < median - LEAST_FALL * abs(median)
        told = Change("jump", 1, limits.jump, limits.jump, expected, position, statistic="z")
        if rises and jumps:
            return replace(told, score=find_quantile(max(surprise.p_up, 1e-300)))
        if rises and rising and value > expected:
            return _tell_sum(told, "level", 1, sums.level_up, limits.level)
        if falls and falling:
            return _tell_sum(told, "level", -1, sums.level_down, limits.level)
        for trend_break, departure in departed:
            change = self._tell_departure(told, trend_break, departure, median=median)
            if change is not None:
                return change
        return _tell_sum(told, "variance", 1, sums.variance, limits.variance) if scattering else None

    def _tell_departure(self, told: Change, trend_break: TrendBreakDetector, departure: Departure, *, median: float) -> Change | None:
        """A slope where the latest values are above where the line leads, a fall where they are LEAST_FALL below it."""
        limit, at_end, low = self.limits.slope, self._restore(departure.expected), self._restore(departure.low)
        told = replace(told, limit=limit, first_position=trend_break.find_last_position(), statistic="t")
        if departure.t > limit and median > max(at_end, FAR * self.least):
            return replace(told, kind="slope", score=departure.t, expected=at_end)
        if departure.t_down > limit and median < (1 - LEAST_FALL) * low:
            return replace(told, kind="level", direction=-1, score=departure.t_down, expected=low)
        return None

    def _transform(self, value: float) -> float:
        return math.asinh(value / (2 * self.least))

    def _restore(self, transformed: float) -> float:
        return 2 * self.least * math.sinh(max(-FARTHEST_LINE, min(FARTHEST_LINE, transformed)))

    def _settle(self, change: Change | None, *, value: float) -> None:
        """After an alarm: hold, and some values later take the new level, if there is one, for the level."""
        if change is not None:
            self._sums.clear()
            self._hold = HOLD
            self._settling = SETTLING
            self._before, self._after, self._grows = change.expected, value, change.kind == "slope"
        if self._settling > 0:
            self._settling -= 1
            if self._settling == 0:
                level = find_median(list(self._recent)[-3:])
                self._bank.settle(level)
                self._sums.clear()
                if abs(level - self._after) < abs(level - self._before):
                    self._settle_lines(level)

    def _settle_lines(self, level: float) -> None:
        """A slope that was told is the new trend; another level is one that growth can go on from."""
        for one in self._trend_breaks:
            if self._grows:
                one.clear()
            else:
                one.settle(self._transform(level))


def _tell_sum(told: Change, kind: ChangeKind, direction: int, total: _Sum, limit: float) -> Change:
    return replace(
        told, kind=kind, direction=direction, score=total.value, limit=limit, first_position=total.first_position, statistic="sum"
    )


def clip(z: float) -> float:
    """At most CLIP, either way."""
    return max(-CLIP, min(CLIP, z))
