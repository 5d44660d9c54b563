"""What reward does as the policy drifts: against a held-out score, against d, and part against part."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klaudit.detectors.slope import Slope, SlopeTest
from klaudit.detectors.trend import RollingTrend
from klaudit.frontier.point import keep_number

N_COMPONENTS = 16
"""Reward components that are watched at most."""

NOT_COMPONENTS = frozenset({"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"})
"""What DPO logs under the same prefix: these part by design."""

RESCAN_STEPS = 32


Point = tuple[int, float, float, float | None]
"""Step, score, held-out score, d."""


@dataclass(frozen=True, slots=True)
class Parting:
    """Two series that go apart."""

    up: Slope
    down: Slope
    n: int
    """Points in the window."""
    up_name: str = "score"
    down_name: str = "heldout_score"

    @property
    def z(self) -> float:
        """Both slopes as one statistic, (t_up - t_down) / sqrt(2): standard normal where neither moves."""
        return (self.up.t - self.down.t) / math.sqrt(2)


class RunningMean:
    """The mean of what came since it was last taken."""

    def __init__(self) -> None:
        self.n = 0
        self._total = 0.0

    def add(self, value: float) -> None:
        """Take in a value."""
        self.n += 1
        self._total += value

    def take(self) -> float:
        """The mean, of one value or more; begins anew."""
        mean = self._total / self.n
        self.n, self._total = 0, 0.0
        return mean


class HeldoutWatch:
    """Score and held-out score, point by point as the latter is measured; score and d are means since the last point."""

    def __init__(self, windows: tuple[int, ...]) -> None:
        self._tests = [(SlopeTest(window), SlopeTest(window)) for window in windows]
        self.points: deque[Point] = deque(maxlen=max(windows))
        """Of the longest window."""
        self._score, self._distance = RunningMean(), RunningMean()

    def observe(self, step: int, *, score: float | None, heldout: float | None, d: float | None) -> bool:
        """Take in a step; gives whether it made a point."""
        if score is not None:
            self._score.add(score)
        if d is not None:
            self._distance.add(d)
        if heldout is None or not self._score.n:
            return False
        mean_score, mean_d = self._score.take(), self._distance.take() if self._distance.n else None
        self.points.append((step, mean_score, heldout, mean_d))
        for of_score, of_heldout in self._tests:
            of_score.observe(mean_score)
            of_heldout.observe(heldout)
        return True

    @property
    def is_ready(self) -> bool:
        """Whether the shortest window can be judged."""
        return self._tests[0][0].is_ready

    def find_parting(self, *, least_t: float) -> Parting | None:
        """The clearest of the windows in which the score rises and the held-out score falls, each beyond `least_t`, while d does not shrink."""
        found = []
        for of_score, of_heldout in self._tests:
            if of_heldout.find_rise() >= 0 or of_score.find_rise() <= 0:
                continue
            down = of_heldout.fit()
            if down is None or down.t > -least_t:
                continue
            up = of_score.fit()
            if up is not None and up.t >= least_t:
                found.append(Parting(up, down, of_score.window))
        if not found or measure_rise_of_d(self.points) < 0:
            return None
        return max(found, key=lambda one: one.z)


def measure_rise_of_d(points: Sequence[Point]) -> float:
    """By how much the mean d of the later half of the points lies above that of the earlier half, in the unit of d; 0 where d is not known."""
    distances = [d for _, _, _, d in points if d is not None]
    half = len(distances) // 2
    return sum(distances[-half:]) / half - sum(distances[:half]) / half if half else 0.0


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What drift brings in reward, in reward per sqrt(nat)."""

    now: float
    highest_now: float
    """Upper end of its 95% interval."""
    first: float
    """Over the first third of the run."""
    d_rise: float
    """Growth of d over the window, in sqrt(nats)."""


class EfficiencyWatch:
    """Reward gained per d gained, of late and over the first steps."""

    def __init__(self, *, first_steps: int, window: int) -> None:
        self._first_steps = first_steps
        self._window = window
        self._early = RollingTrend(max(first_steps, 3))
        self._score, self._d = SlopeTest(window), SlopeTest(window)
        self._n = 0
        self._first: float | None = None

    def observe(self, *, score: float, d: float) -> None:
        """Take in a step."""
        self._n += 1
        if self._n <= self._first_steps:
            # The line is of score over d, so d is its position.
            self._early.observe(score, position=d)
        if self._n == self._first_steps:
            early = self._early.fit() if self._d_varied() else None
            self._first = early.slope if early is not None and early.t > 4 else None
        self._score.observe(score)
        self._d.observe(d)

    def find_spent(self, *, share: float) -> Efficiency | None:
        """The efficiency, where d grows and its upper end is under `share` of what it was at first."""
        if self._first is None or self._n < self._first_steps + self._window:
            return None
        score, d = self._score.fit(), self._d.fit()
        if score is None or d is None or d.t < 3:
            return None
        highest = (score.per_value + 2 * score.standard_error) / d.per_value
        if highest >= share * self._first:
            return None
        return Efficiency(score.per_value / d.per_value, highest, self._first, d.per_value * self._window)

    def _d_varied(self) -> bool:
        positions = [position for position, _ in self._early.state_dict()["points"]]
        return len(positions) >= 3 and max(positions) > min(positions)


class ComponentWatch:
    """Parts of a reward that a trainer logs as `rewards/NAME`."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._tests: dict[str, SlopeTest] = {}
        self._n = 0

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Take in a step's metrics."""
        if self._n % RESCAN_STEPS == 0:
            for name in list_components(metrics):
                if name not in self._tests and len(self._tests) < N_COMPONENTS:
                    self._tests[name] = SlopeTest(self._window)
        self._n += 1
        for name, test in self._tests.items():
            if (value := keep_number(metrics.get(name))) is not None:
                test.observe(value)

    def find_parting(self, *, least_t: float) -> Parting | None:
        """The part that rises most and the one that falls most, both beyond `least_t`."""
        if len(self._tests) < 2:
            return None
        slopes = {name: slope for name, test in self._tests.items() if (slope := test.fit()) is not None}
        if not slopes:
            return None
        up = max(slopes, key=lambda name: slopes[name].t)
        down = min(slopes, key=lambda name: slopes[name].t)
        if slopes[up].t < least_t or slopes[down].t > -least_t:
            return None
        return Parting(slopes[up], slopes[down], self._window, up, down)


def list_components(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Names of the metrics that are parts of a reward."""
    for name in metrics:
        if name.startswith("rewards/") and not name.endswith("/std") and name not in NOT_COMPONENTS:
            yield name
