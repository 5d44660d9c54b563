"""Every kind of change in one KL series: a jump, another level, another slope, another variance."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from klaudit.detectors.baseline import find_median
from klaudit.detectors.change import Change, ChangeKind
from klaudit.detectors.forecast import FARTHEST, ForecastBank, Noise, Surprise, find_quantile, find_tail
from klaudit.detectors.trend_break import Departure, TrendBreakDetector, restore_root

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
"""Values after an alarm at which there is no other, but for AGAIN: one change is told once."""
AGAIN = 1.0
"""Standard deviations above its limit at which one jump among those is told all the same, where the change before it is over."""
SETTLING = 3
"""Values after an alarm whose median is then taken for the level."""
DISTRUST = 0.75
"""How much less the forecasters move when the sum for a level is at its limit."""
FAR = 3.0
"""Times `least` that a line must lead to before growth beyond it means anything: every run grows out of zero."""


class Line(NamedTuple):
    """A line that growth is held against."""

    window: int
    """Values that it is drawn through."""
    delay: int
    """Values after it that it does not see."""
    more: float
    """Standard errors above the limit that the departure from it must have."""
    on_logs: float
    """Likewise on a logarithmic scale."""


SMALL_SLOPE = 2.0
"""Standard errors more that the slope of a small KL needs: it is slow, and nothing is lost by telling it later."""
FALL_SHARE = 0.75
"""Of the sum's limit for a level, for a fall: healthy runs hardly fall."""
FALL_LESS = 0.35
"""Standard errors less than the limit of a rise that a fall below a line needs, likewise."""
LINES = (Line(40, 20, more=0.5, on_logs=-0.5), Line(60, 40, more=0.0, on_logs=-1.5))
"""The first finds a slope soon; the second one that a long wander hides."""

STATE = ("_last", "_product", "_square", "_n_told", "_n_since", "_is_over", "_is_second", "_before", "_after", "_kind")


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

    A limit moves with the logarithm of the rate. Offsets and slopes are fitted on generated runs (tests/bench/detection, seeds 2000 to 3200,
    12000 to 13300 and 50000 to 52300: measured between 0.76 and 0.99 of what is asked for, from 0.25 to 8), so that a further false alarm of
    any kind finds about as many further changes, and held by simulation in tests/detectors/test_kl_change.py: Student-t noise of six degrees of
    freedom and more, added or multiplied, on a level that wanders with a correlation of up to 0.94.
    """
    decades = -math.log10(false_alarms_per_1000)
    return ChangeLimits(jump=4.03 + 1.6 * decades, level=6.0 + 2.0 * decades, slope=3.55 + 1.2 * decades, variance=24.0 + 8.0 * decades)


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

    Each value is held against the forecast of a bank (see ForecastBank). `jump` is one innovation above its limit. `level` and `variance` are
    Page's cumulative sums of whitened innovations: whitened, because what neighbours share would be counted twice; clipped, because one
    outlier is not a level. While a sum grows the forecasters follow less. `slope` is a departure from two lines (see TrendBreakDetector).
    A change must also stand out from the median of the last values.

    Non-finite values are left out. State is JSON.

    Source: Page 1954 (cumulative sums); limits by simulation, see `find_limits`.
    """

    def __init__(self, *, noise: Noise, least: float, notable: float = 0.0, small: float = 0.0, false_alarms_per_1000: float = 1.0) -> None:
        """Build it.

        Args:
            noise: how the noise grows with the KL.
            least: a KL below which nothing can be told from zero, in the series' unit; above 0.
            notable: a KL below which no change is told, in the series' unit; one from or to a larger KL is.
            small: a KL below which a slope must be clearer, by SMALL_SLOPE.
            false_alarms_per_1000: of all kinds together, on healthy steps.
        """
        self.least = least
        self.notable = notable
        self.small = small
        self.limits = find_limits(false_alarms_per_1000)
        self._least_of_line = max(FAR * least, notable)
        self._rarest = find_tail(self.limits.jump)
        self._rarest_again = find_tail(self.limits.jump + AGAIN)
        self._bank = ForecastBank(noise=noise, least=least, rare=self._rarest)
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._sums = _Sums()
        self._trend_break = TrendBreakDetector([(line.window, line.delay) for line in LINES], least=least)
        self._last = 0.0
        self._product = 0.0
        self._square = 0.0
        self._n_told = 0
        self._n_since = HOLD
        self._is_over = self._is_second = False
        self._before = self._after = 0.0
        self._kind: ChangeKind = "jump"
        self.surprise: Surprise | None = None

    def observe(self, value: float, *, position: float, least_sd: float) -> Change | None:
        """Judge the next value, then take it in.

        Args:
            value: in the series' unit.
            position: its step; must grow.
            least_sd: the least standard deviation that the value can have, in the series' unit.

        Returns:
            The alarm that is on at this value. In the HOLD values after an alarm there is at most one, a jump that is AGAIN above the limit.
        """
        if not math.isfinite(value):
            return None
        value, least_sd = max(-FARTHEST, min(FARTHEST, value)), min(FARTHEST, least_sd)
        self._n_told += value > self.least
        if not self._n_told:
            return None
        self._n_since += 1
        self.surprise = surprise = self._bank.judge(value, least_sd=least_sd, widening=1 + EARLY / (len(self._bank) + 1))
        departures = self._trend_break.observe(value, position=position)
        change: Change | None = None
        if surprise is not None and self._n_told > WARM_UP:
            self._add(surprise, position=position)
            change = self._find_jump(surprise, value=value, position=position)
            if change is None and not self._is_held:
                change = self._find_lasting(surprise, departures, value=value, position=position)
            if change is not None and max(value, change.expected) < self.notable:
                change = None
        suspicion = min(1.0, max(self._sums.level_up.value, self._sums.level_down.value) / self.limits.level)
        self._bank.absorb(trust=1 - DISTRUST * suspicion)
        self._recent.append(value)
        self._settle(change, value=value)
        return change

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        sums = {name: [one.value, one.first_position, one.n] for name in _Sums.__slots__ for one in [getattr(self._sums, name)]}
        return {
            "bank": self._bank.state_dict(),
            "trend_break": self._trend_break.state_dict(),
            "recent": list(self._recent),
            "sums": sums,
        } | {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._bank.load_state_dict(state["bank"])
        self._trend_break.load_state_dict(state["trend_break"])
        self._recent = deque(state["recent"], maxlen=RECENT)
        for name, (value, first_position, n) in state["sums"].items():
            setattr(self._sums, name, _Sum(value, first_position, n))
        for name in STATE:
            setattr(self, name, state[name])

    @property
    def _is_held(self) -> bool:
        return self._n_since <= HOLD

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

    def _find_jump(self, surprise: Surprise, *, value: float, position: float) -> Change | None:
        """One value above its limit; among those that are held, one that is far above it, once."""
        is_held = self._is_held
        if is_held and (self._is_second or not self._is_over):
            return None
        if surprise.p_up >= (self._rarest_again if is_held else self._rarest) or not self._rises(value):
            return None
        score, limit = find_quantile(max(surprise.p_up, 1e-300)), self.limits.jump + (AGAIN if is_held else 0.0)
        return Change("jump", 1, score, limit, surprise.expected, position, statistic="z")

    def _find_lasting(self, surprise: Surprise, departures: Sequence[Departure | None], *, value: float, position: float) -> Change | None:
        """The first that holds of: level, slope, variance; one change is told once."""
        limits, sums, expected = self.limits, self._sums, surprise.expected
        departed = [
            (index, one)
            for index, one in enumerate(departures)
            if one is not None and one.is_over(limits.slope + LINES[index].more, less_down=FALL_LESS)
        ]
        rising, falling = sums.level_up.is_over(limits.level), sums.level_down.is_over(FALL_SHARE * limits.level)
        scattering = sums.variance.is_over(limits.variance, n=3)
        if not (departed or rising or falling or scattering):
            return None
        told = Change("level", 1, 0.0, limits.level, expected, position, statistic="sum")
        if rising and value > expected and self._rises(value):
            return _tell_sum(told, sums.level_up)
        if falling and self._falls(value):
            return _tell_sum(replace(told, direction=-1, limit=FALL_SHARE * limits.level), sums.level_down)
        slopes = (self._tell_departure(told, one, index=index) for index, one in departed)
        of_variance = _tell_sum(replace(told, kind="variance", limit=limits.variance), sums.variance) if scattering else None
        return next((one for one in slopes if one is not None), of_variance)

    def _rises(self, value: float) -> bool:
        median = find_median(list(self._recent))
        return value > median + LEAST_RISE * abs(median) + self.least / 4

    def _falls(self, value: float) -> bool:
        median = find_median(list(self._recent))
        return value < median - LEAST_FALL * abs(median)

    def _tell_departure(self, told: Change, departure: Departure, *, index: int) -> Change | None:
        """A slope where the latest values are above where the line leads, a fall where they are LEAST_FALL below it."""
        line = LINES[index]
        limit, at_end, low = self.limits.slope + line.more, restore_root(departure.expected), restore_root(departure.low)
        median = find_median(list(self._recent))
        more = SMALL_SLOPE if median < self.small else 0.0
        told = replace(told, limit=limit + more, first_position=self._trend_break.find_last_position(), statistic="t")
        if departure.t > told.limit and median > (1 + LEAST_RISE) * at_end and at_end > self._least_of_line:
            on_logs = self._trend_break.judge_logarithms(index)
            if on_logs is not None and on_logs.t > self.limits.slope + line.on_logs:
                return replace(told, kind="slope", score=departure.t, expected=at_end)
        if departure.t_down > limit - FALL_LESS and median < (1 - LEAST_FALL) * low:
            return replace(told, direction=-1, limit=limit - FALL_LESS, score=departure.t_down, expected=low)
        return None

    def _settle(self, change: Change | None, *, value: float) -> None:
        """After an alarm: hold, and some values later take the new level, if there is one, for the level."""
        if change is not None:
            self._sums.clear()
            self._is_over, self._is_second = False, self._is_held
            self._n_since = 0
            self._before, self._after, self._kind = change.expected, value, change.kind
            return
        if abs(value - self._before) < abs(value - self._after):
            self._is_over = True
        if self._n_since == SETTLING:
            level = find_median(list(self._recent)[-SETTLING:])
            self._bank.settle(level)
            self._sums.clear()
            # By the time that a sum is over its limit, the forecast has gone half the way; a slope is one of ten values, not of the last.
            if self._kind in ("level", "slope") or abs(level - self._after) < abs(level - self._before):
                self._settle_lines(level)

    def _settle_lines(self, level: float) -> None:
        """A slope that was told is the new trend; another level is one that growth can go on from."""
        if self._kind == "slope":
            self._trend_break.clear()
        else:
            self._trend_break.settle(level)


def _tell_sum(told: Change, total: _Sum) -> Change:
    return replace(told, score=total.value, first_position=total.first_position)


def clip(z: float) -> float:
    """At most CLIP, either way."""
    return max(-CLIP, min(CLIP, z))
