"""What a rule is: it looks at one step after another and keeps its episodes."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from klaudit.audit.episode import Episode
from klaudit.audit.observation import Observation
from klaudit.audit.parameters import RuleParameters
from klaudit.records import DriftMeasurement, DriftProfile, Finding, KLBudget, LimitChange, Run, Segment, Severity

__all__ = ["Rule", "RuleParameters"]

P = TypeVar("P", bound=RuleParameters)

NOTHING: frozenset[str] = frozenset()
"""What a rule needs of steps that it does not look at."""


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
    needs: frozenset[str] | None = None
    """Metrics of which a step has to have one to matter to the rule, which may not be shown other steps; None: every step matters.
    NOTHING: no step does, or none does any more."""

    def __init__(self, run: Run, *, parameters: P, budgets: Sequence[KLBudget] = ()) -> None:
        self.run = run
        self.parameters = parameters
        self.budgets = tuple(budgets)
        self.episodes: list[Episode] = []

    @abstractmethod
    def observe(self, observation: Observation) -> Iterable[Finding]:
        """Look at the next step; gives the findings that are new or changed by it: nearly always none, which a tuple says fastest."""

    def observe_drift(self, measurements: Iterable[DriftMeasurement]) -> Iterator[Finding]:
        """Look at what was measured on the run's checkpoints; most rules do not."""
        del measurements
        yield from ()

    def observe_profiles(self, profiles: Iterable[DriftProfile]) -> Iterator[Finding]:
        """Look at what was measured of the run's checkpoints beside their KL; most rules do not."""
        del profiles
        yield from ()

    def observe_limit_changes(self, changes: Iterable[LimitChange]) -> Iterator[Finding]:
        """Look at what was done to the run's limits: before the steps, and again after them; most rules do not."""
        del changes
        yield from ()

    def observe_segment(self, segment: Segment) -> Iterator[Finding]:
        """Look at what is known of a stretch of the run besides its steps: as it begins, and again when more is known; most rules do not."""
        del segment
        yield from ()

    def shares_with(self, other: "Rule[Any]") -> bool:
        """Share what both would work out with a rule before this one, where they do: the engine then shows them each step one after the other."""
        del other
        return False

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
