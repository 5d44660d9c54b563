"""What a rule is: it looks at one step after another and keeps its episodes."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from klaudit.audit.episode import Episode
from klaudit.records import DriftMeasurement, Finding, KLBudget, KLReading, Run, Segment, Severity, StepRecord


class RuleParameters(BaseModel):
    """The numbers of a rule that a policy may change; each field says its unit and meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


P = TypeVar("P", bound=RuleParameters)


class Rule(ABC, Generic[P]):
    """One rule over one run. State starts again with each segment unless the rule says otherwise."""

    code: str
    """Such as `KLA101`; never reused."""
    name: str
    """Its file's name."""
    version: int
    """Grows when the same records could give another finding."""
    severities: tuple[Severity, ...]
    """What its findings can be."""
    parameters_model: type[P]

    def __init__(self, run: Run, *, parameters: P, budgets: Sequence[KLBudget] = ()) -> None:
        self.run = run
        self.parameters = parameters
        self.budgets = tuple(budgets)
        self.episodes: list[Episode] = []

    @abstractmethod
    def observe(self, record: StepRecord) -> Iterator[Finding]:
        """Look at the next step; gives the findings that are new or changed by it."""

    def observe_drift(self, measurements: Iterable[DriftMeasurement]) -> Iterator[Finding]:
        """Look at what was measured on the run's checkpoints; most rules do not."""
        del measurements
        yield from ()

    def observe_segment(self, segment: Segment) -> Iterator[Finding]:
        """Look at what is known of a stretch of the run besides its steps: as it begins, and again when more is known; most rules do not."""
        del segment
        yield from ()

    def begin_segment(self) -> Iterator[Finding]:
        """Forget the last segment; gives the findings that end with it."""
        for episode in self.episodes:
            ended = episode.end()
            if ended is not None:
                yield ended
        self.reset()

    def reset(self) -> None:
        """Forget what was seen; called as each later segment begins."""

    @abstractmethod
    def explain_silence(self) -> Iterator[str]:
        """Why the rule, or a part of it, could not judge what it saw so far; nothing where it could."""

    def start_episode(self, *, series: str | None, subject: str = "", quiet_steps: int) -> Episode:
        """A tracker for one kind of episode of this rule."""
        episode = Episode(
            run_id=self.run.id,
            code=self.code,
            rule=self.name,
            rule_version=self.version,
            series=series,
            subject=subject,
            quiet_steps=quiet_steps,
        )
        self.episodes.append(episode)
        return episode


def complete_reading(record: StepRecord, *, key: str, run: Run) -> KLReading | None:
    """A step's reading, with batch size and mean length from run and metrics where the reading does not carry them itself."""
    reading = record.reading(key)
    if reading is None or reading.value is None:
        return reading
    n_sequences = reading.n_sequences or run.batch_size
    length = reading.mean_length or record.metrics.get("response_length")
    mean_length = length if length is not None and 0 < length < float("inf") else None
    if n_sequences == reading.n_sequences and mean_length == reading.mean_length:
        return reading
    return replace(reading, n_sequences=n_sequences, mean_length=mean_length)
