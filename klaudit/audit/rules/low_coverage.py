"""KLA308 low_coverage."""

from collections import deque
from collections.abc import Iterator, Sequence

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.reference_series import list_reference_series
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.records import Finding, Run, Severity, StepRecord

SPACINGS = 20
"""Spacings between readings that tell whether they are regular."""
LEAST_SPACINGS = 3
"""Fewer say nothing."""


class LowCoverageParameters(RuleParameters):
    """Parameters of KLA308."""

    least_share: float = Field(default=0.5, gt=0, le=1, description="share of recorded steps with a finite governing KL that is enough")
    after_steps: int = Field(default=20, ge=1, le=1_000_000, description="recorded steps of a segment before which nothing is said")
    regular_share: float = Field(
        default=0.8, gt=0.5, le=1, description="share of the last spacings that have to be equal for readings to be regular"
    )
    quiet_steps: int = Field(default=20, ge=1, le=1_000_000, description="steps with enough coverage that end an episode")


class LowCoverage(Rule[LowCoverageParameters]):
    """The KL to the reference is measured on too few steps.

    What it checks:
        The governing series. Where it is measured at no step of the segment, KLA301 tells it, and this rule does not.

    Formula:
        finite readings / recorded steps < least_share, in the segment, once it has after_steps steps and three spacings between
        readings, the first not counted. Readings that come at regular spacings of two steps or more, regular_share of the last 20
        equal, are a probe that was asked for: info, and nothing where another reference series of known estimator and unit is
        finite on least_share of the steps. All others: warning.

    Why it matters:
        Budgets and change rules see only what was measured: a breach between two readings is found late or never, and a share of steps
        that is missing at random is mostly a sign of a broken log.

    Parameters and where the defaults come from:
        least_share 0.5, after_steps 20, regular_share 0.8 and quiet_steps 20 are conventions: half of the steps, once as many as a
        change rule's window have been seen; one late reading among five does not make a probe irregular. The first spacing is odd where
        a probe runs at step 1 and then at steps 10, 20, 30.

    What to do:
        Have the trainer log the KL at every step, shorten the probe's spacing, or accept that what lies between two readings is not judged.

    Example finding:
        kl is measured on 9 of 25 steps (36%) up to step 25, less than 50%.
    """

    code = "KLA308"
    name = "low_coverage"
    version = 1
    severities = (Severity.INFO, Severity.WARNING)
    parameters_model = LowCoverageParameters

    def __init__(self, run: Run, *, parameters: LowCoverageParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.key = run.governing_key
        self.others = [key for key in list_reference_series(run) if key != self.key]
        self.episode = self.start_episode(series=self.key, quiet_steps=parameters.quiet_steps)
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self._n_steps = 0
        self._n_measured = 0
        self._n_by_others = 0
        self._n_since = 0
        self._spacings: deque[int] = deque(maxlen=SPACINGS)

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        if self.key is None:
            return ()
        self._n_steps += 1
        self._n_since += 1
        reading = observation.governing
        if reading is not None and reading.is_finite:
            self._count_reading()
        elif self._is_measured_otherwise(observation.record):
            self._n_by_others += 1
        parameters = self.parameters
        is_enough = self._n_measured >= parameters.least_share * self._n_steps
        if (is_enough and not self.episode.is_open) or self._n_steps < parameters.after_steps or len(self._spacings) < LEAST_SPACINGS:
            return ()
        finding = self.episode.observe(observation.record, None if is_enough else self._judge(observation.record))
        return () if finding is None else (finding,)

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if self.key is None:
            yield "no reference KL of known estimator and unit is declared"

    def _count_reading(self) -> None:
        self._n_measured += 1
        if self._n_measured > 2:
            self._spacings.append(self._n_since)
        self._n_since = 0

    def _find_regular_spacing(self) -> int | None:
        """The spacing of readings that come regularly, in recorded steps; None where they do not."""
        usual = sorted(self._spacings)[len(self._spacings) // 2]
        is_regular = self._spacings.count(usual) >= self.parameters.regular_share * len(self._spacings)
        return usual if is_regular and usual > 1 else None

    def _is_measured_otherwise(self, record: StepRecord) -> bool:
        readings = (record.reading(key) for key in self.others)
        return any(reading is not None and reading.is_finite for reading in readings)

    def _judge(self, record: StepRecord) -> Judgement | None:
        share = self._n_measured / self._n_steps
        spacing = self._find_regular_spacing()
        if spacing is not None and self._n_measured + self._n_by_others >= self.parameters.least_share * self._n_steps:
            return None
        regular = "" if spacing is None else f"; it comes regularly, every {spacing} recorded steps"
        return Judgement(
            severity=Severity.WARNING if spacing is None else Severity.INFO,
            badness=-share,
            message=f"{self.key} is measured on {self._n_measured} of {self._n_steps} steps ({share:.0%}) up to step {record.step}, "
            f"less than {self.parameters.least_share:.0%}{regular}.",
            remedy="Have the trainer log the KL at every step, shorten the probe's spacing, or accept that what lies between two readings is not judged.",
            value=share,
            threshold=self.parameters.least_share,
            unit="share of steps",
            evidence={"n_measured": self._n_measured, "n_steps": self._n_steps, "regular_spacing": spacing},
        )
