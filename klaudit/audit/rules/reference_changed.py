"""KLA401 reference_changed."""

from collections import deque
from collections.abc import Iterator, Sequence

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.fall import Fall, FallDetector, Level
from klaudit.exchange.frameworks.framework import describe_moving_reference
from klaudit.records import UNIT_LABELS, Finding, KLReading, Run, Segment, Severity, StepRecord

REMEDY_DIGEST = (
    "Resume with the reference of the first segment. If the change was meant, measure the checkpoints against the first reference with "
    "klaudit drift measure, and begin a new run for the new one."
)
REMEDY_FALL = (
    "Find out which of the two models was loaded or overwritten at this step, and measure the checkpoints around it against the first "
    "reference with klaudit drift measure: drift from where training began is not this KL any more."
)
REMEDY_MOVING = (
    "Measure the checkpoints against the first reference with klaudit drift measure; set KL budgets on that, with scope checkpoint."
)
LEVEL_EVERY, MOST_LEVELS = 10, 200
"""Readings between two levels that are kept for a resume, and how many of them are."""


class ReferenceChangedParameters(RuleParameters):
    """Parameters of KLA401."""

    window: int = Field(default=30, ge=10, le=1000, description="readings that level and spread before a fall are found from")
    warm_up: int = Field(default=10, ge=5, le=1000, description="readings before the first judgement; not above window")
    fall: float = Field(default=0.9, ge=0.5, le=0.99, description="by which share of its level the KL must have fallen")
    score: float = Field(
        default=3.7, gt=0, description="standard errors that the mean of the low readings must be below the level, on the log scale"
    )


class ReferenceChanged(Rule[ReferenceChangedParameters]):
    """KL is measured against another model than before.

    What it checks:
        The digest of the reference model's weights as each segment begins, against the first segment that has one. The governing KL
        itself: whether it falls to a small part of its level at once and stays there, within a segment or from the segment before, where
        the level is that of its steps before the one resumed at. And whether the trainer's arguments move the reference on purpose.

    Formula:
        digest of this segment != digest of the first segment that has one of the same kind: of files, or of tensors in memory.
        Fall: 2 to 6 readings in a row below 0.3 of the window's median, their geometric mean below (1 - fall) x level, the median of the
        three readings before above 0.45 x level, and mean(log(level / reading)) > score x s x e. Level: median of the window's last third,
        m readings. s: robust standard deviation of the window's logarithms about the line through the medians of its first and last third
        (the larger of 1.4826 MAD and the distance of the lowest tenth over 1.28), at least 0.1. e = (1/n + 1.57/m)^0.5 x (1 + 4/window).
        For k1, whose noise is additive, and for two readings the same must hold without the logarithms. What is below 1% of the level
        counts as 1%.

    Why it matters:
        KL is a distance from one model. With another reference it starts again at zero: every change grants a fresh budget of drift, and
        the curve hides how far the policy is from where it began. A policy that was reset shows the same.

    Parameters and where the defaults come from:
        fall 0.9: rule R25 of the catalogue (NeMo-RL pull request 3722). window 30, warm_up 10 and score 3.7 by simulation
        (tests/detectors/test_fall.py): log-normal noise of sd up to 1.7 as small batches of GRPO show, Student-t tails, k1 that is often
        negative: below 0.05 false alarms per 1,000 steps, and a fall to 1% to 5% is found within 3 readings where noise is below 30%.

    What to do:
        Resume with the reference of the first segment. After a fall, find out which of the two models was loaded or overwritten, and
        measure the checkpoints around it against the first reference. A sync of the reference that was configured is no mistake, but
        then only the checkpoints tell the drift from where training began.

    Example finding:
        KL to reference (full, nats/sequence) fell from 1.32 to 0.0117 nats/sequence at step 61 and stayed there for 2 readings: either the reference was replaced (by the policy or a copy of it), or the policy was reset.
    """

    code = "KLA401"
    name = "reference_changed"
    version = 2
    severities = (Severity.INFO, Severity.CRITICAL)
    parameters_model = ReferenceChangedParameters

    def __init__(self, run: Run, *, parameters: ReferenceChangedParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.anchors: dict[str, Segment] = {}
        self.key = run.governing_key
        self.moves = describe_moving_reference(run.config)
        self.most_readings = 0
        self._n_readings = 0
        self._has_begun = False
        self._levels: deque[tuple[int, Level]] = deque(maxlen=MOST_LEVELS)
        self._waits_for_resume = False
        is_signed = self.key is not None and run.series[self.key].estimator == "k1"
        self._detector = FallDetector(
            window=max(parameters.window, parameters.warm_up),
            warm_up=parameters.warm_up,
            fall=parameters.fall,
            score_limit=parameters.score,
            is_signed=is_signed,
        )

    def reset(self) -> None:
        """See Rule: the levels of the last segment are kept until it is known at which step the next one begins."""
        self._waits_for_resume = True
        self._n_readings = 0

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        findings: list[Finding] = []
        if not self._has_begun:
            self._has_begun = True
            findings += self._tell_moves(observation.record)
        reading = observation.governing
        if reading is None or reading.value is None or not reading.is_finite:
            return findings
        if self._waits_for_resume:
            self._resume(observation.step)
        self._n_readings += 1
        self.most_readings = max(self.most_readings, self._n_readings)
        fall = self._detector.observe(reading.value, position=observation.step)
        if fall is not None:
            findings += self._tell_fall(observation.record, reading=reading, fall=fall)
        elif self._n_readings % LEVEL_EVERY == 0:
            self._keep_level(observation)
        return findings

    def observe_segment(self, segment: Segment) -> Iterator[Finding]:
        """See Rule."""
        if segment.reference_digest is None:
            return
        # Digests of files and of tensors in memory are not comparable.
        anchor = self.anchors.setdefault(segment.reference_digest.partition(":")[0], segment)
        if segment.reference_digest == anchor.reference_digest:
            return
        judgement = Judgement(
            severity=Severity.CRITICAL,
            badness=1.0,
            message=f"Segment {segment.index} measures KL against other reference weights ({shorten(segment.reference_digest)}) than "
            f"segment {anchor.index} ({shorten(anchor.reference_digest)}).",
            remedy=REMEDY_DIGEST,
            evidence={"before": anchor.reference_digest, "now": segment.reference_digest},
        )
        yield from self._tell(judgement, step=segment.resumed_from_step or 0, segment=segment.index, series=None)

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.anchors:
            yield "no digest of the reference's weights is on record"
        if self.key is None:
            yield "falls of the KL were not looked for: no reference KL of known estimator and unit"
        elif self.most_readings <= self.parameters.warm_up:
            yield f"falls of the KL were not looked for: that needs more than {self.parameters.warm_up} finite readings of {self.key!r} in one segment"

    def _keep_level(self, observation: Observation) -> None:
        level = self._detector.level
        if level is not None:
            self._levels.append((observation.step, level))

    def _resume(self, step: int) -> None:
        """Go on from the last level before a step: one that the resume took back is of another policy."""
        self._waits_for_resume = False
        level = next((level for position, level in reversed(self._levels) if position < step), None)
        self._levels.clear()
        if level is None:
            self._detector.clear()
        else:
            self._detector.go_on_from(level)

    def _tell_moves(self, record: StepRecord) -> Iterator[Finding]:
        for note in self.moves:
            judgement = Judgement(
                severity=Severity.INFO,
                badness=0.0,
                message=f"By the trainer's arguments {note}.",
                remedy=REMEDY_MOVING,
                evidence={"configured": note},
            )
            yield from self._tell(judgement, step=record.step, segment=record.segment, series=None, subject=note)

    def _tell_fall(self, record: StepRecord, *, reading: KLReading, fall: Fall) -> Iterator[Finding]:
        self._levels.clear()
        unit = UNIT_LABELS[reading.series.unit]
        first_step = int(fall.readings[0][0])
        n = len(fall.readings)
        now = fall.readings[-1][1]
        where = f", where segment {record.segment} begins," if record.segment and n == self._n_readings else ""
        why = "the arguments say that it does" if self.moves else "by the policy or a copy of it"
        judgement = Judgement(
            severity=Severity.INFO if self.moves else Severity.CRITICAL,
            badness=fall.score,
            message=f"{reading.series.label} fell from {fall.level.value:.3g} to {now:.3g} {unit} at step {first_step}{where} and stayed there for "
            f"{n} readings: either the reference was replaced ({why}), or the policy was reset.",
            remedy=REMEDY_FALL,
            value=now,
            threshold=(1 - self.parameters.fall) * fall.level.value,
            unit=reading.series.unit,
            first_step=first_step,
            evidence={
                "series": {"key": self.key, "estimator": reading.series.estimator, "unit": reading.series.unit},
                "level": fall.level.value,
                "window": list(fall.level.values),
                "low": {"steps": [int(step) for step, _ in fall.readings], "kl": [value for _, value in fall.readings]},
                "score": fall.score,
                "log_spread": fall.spread,
                "limits": self.parameters.model_dump(),
            },
        )
        yield from self._tell(judgement, step=record.step, segment=record.segment, series=self.key)

    def _tell(self, judgement: Judgement, *, step: int, segment: int, series: str | None, subject: str = "") -> Iterator[Finding]:
        episode = self.start_episode(series=series, subject=subject, quiet_steps=1)
        finding = episode.observe_at(step, judgement, segment=segment)
        self.episodes.remove(episode)
        if finding is not None:
            yield finding


def shorten(digest: str | None) -> str:
    """The beginning of a digest, for people."""
    return f"{(digest or 'none')[:15]}…"
