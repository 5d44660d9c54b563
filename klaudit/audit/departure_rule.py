"""What the rules on a series that leaves its own past have in common."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import Field

from klaudit.audit.departure_watch import DepartureWatch
from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.departure import LEAST, Departure, Excursion
from klaudit.records import Finding, Run


class DepartureParameters(RuleParameters):
    """What every such rule may be told."""

    window: int = Field(default=30, ge=10, le=1000, description="values that tell what to expect")
    delay: int = Field(default=10, ge=3, le=1000, description="values between that window and now, so that a change does not hide itself")
    baseline_steps: int = Field(default=10, ge=3, le=1000, description="first values of a segment, whose median is where it started")
    quiet_steps: int = Field(default=5, ge=1, le=1_000_000, description="values that have not left it that end an episode")


D = TypeVar("D", bound=DepartureParameters)


class DepartureRule(Rule[D], Generic[D]):
    """A rule with two kinds of episodes: a series left, within some ten steps, what the steps before led to expect; or, slowly, its start."""

    series: ClassVar[str]
    subjects: ClassVar[tuple[str, str]] = ("fast", "slow")
    """Of the two kinds of episodes."""
    in_logs: ClassVar[bool] = True
    """Whether the series is positive and its noise grows with its level."""
    absent: ClassVar[str]
    """Why the rule is silent where the series is not there."""
    needed: ClassVar[str]
    """What there must be enough of."""

    def __init__(self, run: Run, *, parameters: D, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.fast, self.slow = (
            self.start_episode(series=self.series, subject=one, quiet_steps=parameters.quiet_steps) for one in self.subjects
        )
        self.watch = DepartureWatch(
            self.read, n_start=parameters.baseline_steps, window=parameters.window, delay=parameters.delay, in_logs=self.in_logs
        )
        self.has_judged = False
        self.excursions: tuple[Excursion, ...] = ()
        self.reset()

    def shares_with(self, other: Rule[Any]) -> bool:
        """See Rule: two rules that hold one series against the same past need one detector."""
        if not (isinstance(other, DepartureRule) and self._list_settings() == other._list_settings()):
            return False
        self.watch = other.watch
        return True

    def reset(self) -> None:
        """See Rule."""
        self.watch.begin_segment()
        self.excursions = tuple(self.list_excursions())

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        watch = self.watch
        watch.observe(observation)
        if watch.value is None:
            return ()
        self.watch_witnesses(observation, watch.value)
        departure, start = watch.departure, watch.start.level
        if departure is None or start is None or not self.is_start(start):
            return ()
        self.has_judged = True
        record = observation.record
        fast, slow = self._judge_fast(departure, step=record.step), self.judge_slow(departure, start=start, step=record.step)
        if fast is None and slow is None and not (self.fast.is_open or self.slow.is_open):
            return ()
        told = self.fast.observe(record, fast), self.slow.observe(record, slow)
        return [finding for finding in told if finding is not None]

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.watch.n_values:
            yield self.absent
        elif not self.has_judged:
            yield f"needs {self.parameters.delay + LEAST} {self.needed}"

    def read(self, observation: Observation) -> float | None:
        """The step's value, finite; None where it has none."""
        return observation.number(self.series)

    def is_start(self, level: float) -> bool:
        """Whether a start is one that a rule can judge by."""
        return level > 0

    def watch_witnesses(self, observation: Observation, value: float) -> None:
        """Take in what else is told with a finding."""

    @abstractmethod
    def list_excursions(self) -> Sequence[Excursion]:
        """What counts as a fast departure."""

    @abstractmethod
    def judge_fast(self, departure: Departure, excursion: Excursion, *, before: float, step: int) -> Judgement | None:
        """Judge a step of an excursion; `before` is what was expected as it began."""

    @abstractmethod
    def judge_slow(self, departure: Departure, *, start: float, step: int) -> Judgement | None:
        """Hold a step against the start."""

    def describe(self, departure: Departure, *, before: float, **witnesses: Any) -> dict[str, Any]:
        """A departure as JSON evidence."""
        return {
            "level": departure.level,
            "before": before,
            "expected": departure.expected,
            "start": self.watch.start.level,
            "z": departure.z,
            **witnesses,
            "window": self.watch.detector.list_values(),
            "limits": self.parameters.model_dump(),
        }

    def _judge_fast(self, departure: Departure, *, step: int) -> Judgement | None:
        begun = None
        for one in self.excursions:
            if one.observe(departure, position=step) and begun is None:
                begun = one
        if begun is None or begun.before is None:
            return None
        return self.judge_fast(departure, begun, before=begun.before, step=step)

    def _list_settings(self) -> tuple[str, bool, int, int, int]:
        limits = self.parameters
        return self.series, self.in_logs, limits.window, limits.delay, limits.baseline_steps
