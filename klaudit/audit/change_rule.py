"""What the rules on changes of the governing KL have in common."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import Field

from klaudit.audit.change_watch import KLChange
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.kl_change import WARM_UP
from klaudit.records import UNIT_LABELS, Finding, KLReading, Run

LOOK = "Look at the sampled texts, learning rate, clip fraction and policy-update KL around this step"


class ChangeParameters(RuleParameters):
    """What every change rule may be told; how changes are detected stands in the policy's table [detection]."""

    critical_kl: float = Field(default=1.0, ge=0, description="nats/sequence below which no change is critical")
    quiet_steps: int = Field(default=8, ge=1, le=1_000_000, description="readings without an alarm that end an episode")


C = TypeVar("C", bound=ChangeParameters)


class ChangeRule(Rule[C], Generic[C]):
    """A rule that turns one kind of change into findings."""

    warm_up: ClassVar[int] = WARM_UP
    """Readings before there can be a finding."""

    def __init__(self, run: Run, *, parameters: C, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.key = run.governing_key
        self.episode = self.start_episode(series=self.key, quiet_steps=parameters.quiet_steps)
        self.most_readings = 0
        self._n_readings = 0

    def reset(self) -> None:
        """See Rule."""
        self._n_readings = 0

    def observe(self, observation: Observation) -> Iterable[Finding]:
        """See Rule."""
        governing = observation.governing
        if governing is None or not governing.is_finite:
            return ()
        self._n_readings += 1
        self.most_readings = max(self.most_readings, self._n_readings)
        if observation.change is None and observation.jump_outcome is None and not self.episode.is_open:
            return ()
        return self.follow(observation)

    @abstractmethod
    def follow(self, observation: Observation) -> Iterator[Finding]:
        """Judge a finite reading with a change or with what became of a jump, or while an episode is open."""

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if self.key is None:
            yield "no reference KL of known estimator and unit"
        elif self.most_readings <= self.warm_up:
            yield f"needs more than {self.warm_up} finite readings of {self.key!r} in one segment; the most was {self.most_readings}"

    def is_large(self, change: KLChange) -> bool:
        """Whether the KL is one that a change of may be critical."""
        return change.value_per_sequence >= self.parameters.critical_kl


def describe_change(change: KLChange, *, key: str | None) -> dict[str, Any]:
    """A change as JSON evidence: what is needed to draw it and to judge it again."""
    reading = change.reading
    return {
        "series": {"key": key, "estimator": reading.series.estimator, "unit": reading.series.unit},
        "kl": reading.value,
        "kl_per_sequence": change.value_per_sequence,
        "standard_error": reading.standard_error,
        "expected": change.change.expected,
        "sd": change.sd,
        "score": change.change.score,
        "limit": change.change.limit,
        "began": change.change.first_position,
        "window": {"steps": [step for step, _ in change.window], "kl": [value for _, value in change.window]},
    }


def name_value(value: float, *, reading: KLReading) -> str:
    """A KL with its unit, for people."""
    return f"{value:.3g} {UNIT_LABELS[reading.series.unit]}"
