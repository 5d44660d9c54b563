"""A series against what the run itself had of it: its steps before, and its start."""

from collections.abc import Callable
from functools import partial

from klaudit.audit.observation import Observation
from klaudit.detectors.baseline import FirstValues
from klaudit.detectors.departure import Departure, DepartureDetector


class DepartureWatch:
    """Feeds one series to its detector, once a step: the rules that share it are shown each step one after the other.

    Args:
        read: the step's value, finite, in the series' unit; None where it has none.
        n_start: first values of a segment, whose median is where it started.
        window, delay, in_logs: of DepartureDetector.
    """

    def __init__(self, read: Callable[[Observation], float | None], *, n_start: int, window: int, delay: int, in_logs: bool) -> None:
        self.n_start = n_start
        self.n_values = 0
        """In all segments."""
        self.value: float | None = None
        """Of the step that was observed last."""
        self.departure: Departure | None = None
        """Of that step; None while there are too few values, and where it has none."""
        self._read = read
        self._make_detector = partial(DepartureDetector, window=window, delay=delay, in_logs=in_logs)
        self._last: Observation | None = None
        self.begin_segment()

    def begin_segment(self) -> None:
        """Forget the last segment."""
        self.start = FirstValues(self.n_start)
        self.detector = self._make_detector()

    def observe(self, observation: Observation) -> None:
        """Take in the next step; does nothing where another rule has had it taken in."""
        if observation is self._last:
            return
        self._last = observation
        self.value = self.departure = None
        value = self._read(observation)
        if value is None:
            return
        self.n_values += 1
        self.value = value
        if self.start.level is None:
            self.start.observe(value)
        self.departure = self.detector.observe(value, position=observation.record.step)

    def score_drift(self, departure: Departure) -> float:
        """How far the window's mean is above the start, in standard errors; negative: below. Needs a start."""
        start = self.start.level
        assert start is not None
        return self.detector.score_drift(departure, start=start, n=self.n_start)
