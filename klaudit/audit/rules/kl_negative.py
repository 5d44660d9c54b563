"""KLA206 kl_negative."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from klaudit.audit.change_watch import NOMINAL_BATCH, NOMINAL_LENGTH
from klaudit.audit.episode import Episode, Judgement
from klaudit.audit.observation import Observation, complete_reading
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.baseline import MAD_TO_SD, find_median
from klaudit.records import UNIT_LABELS, Finding, KLReading, Run, Severity, StepRecord

STEPS_KEPT = 20
"""Readings that the level is taken from, and that go with a finding."""
LEAST_MOVES = 3
MOVES = 50
"""Moves between neighbours that the noise is taken from, at least and at most."""
EARLY = 2.0
"""The noise is taken to be wider by 1 + EARLY / n after n moves: a median of few is often too small."""
LEAST_KL = 1e-4
"""Nats per sequence that sampling noise is worked out for at least."""
CLIP = 3.0
"""A reading counts up to so many standard deviations: one outlier is no sign."""
MOST = 2.0
"""Times the limit that the sum grows to: a KL that has come back ends the finding within a few readings."""


class KLNegativeParameters(RuleParameters):
    """Parameters of KLA206."""

    allowance: float = Field(default=0.5, ge=0, description="standard deviations below 0 that a k1 reading must be before it counts")
    limit: float = Field(default=10.0, gt=0, description="sum of what counts, in standard deviations, that makes a finding")
    critical_kl: float = Field(
        default=1.0, gt=0, description="nats/sequence below 0, mean of the readings that count, that make it critical"
    )
    rounding: float = Field(default=1e-4, ge=0, description="nats/token by which k2, k3 or full may be below 0 by rounding alone")
    quiet_steps: int = Field(default=3, ge=1, le=1_000_000, description="readings that do not alarm that end an episode")


@dataclass(slots=True)
class _Watched:
    """One reference series."""

    key: str
    episode: Episode
    total: float = 0.0
    first_step: int = 0
    n_below: int = 0
    sum_below: float = 0.0
    values: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=STEPS_KEPT))
    moves: deque[float] = field(default_factory=lambda: deque(maxlen=MOVES))


class KLNegative(Rule[KLNegativeParameters]):
    """A KL to the reference is below zero, which no KL can be.

    What it checks:
        Every reference series. k2, k3 and the full-vocabulary KL cannot be negative: one reading below zero is an error of computation.
        k1 may be, by the noise of its batch, and often is; it may not stay there.

    Formula:
        k1: S = max(0, S + min(-x / s, 3) - allowance) > limit, over at least two readings, S at most twice the limit; s is the larger of
        sqrt(2 K / B) with K the median of the last 20 readings (at least 0.0001 nats/sequence), and 1.05 (1 + 2 / n) times the median of
        the last n moves between neighbours, n from 3 to 50. k2, k3, full: x < -rounding. Critical where the readings that count are
        critical_kl below zero in the mean, and always for k2, k3 and full.

    Why it matters:
        E[k1] is a KL and so is never negative as long as the text was sampled from the policy that is scored. A mean that stays below
        zero says that it was not: top-k, top-p, a temperature, a minimum length, padding. The penalty then is a bonus, and the policy is
        paid for leaving the reference.

    Parameters and where the defaults come from:
        allowance 0.5 finds a mean one standard deviation below zero soonest (Page 1954: half of what is to be found); limit 10: for k1 of a
        policy that has not moved at all, which is the worst case, one false alarm in about 10,000 readings by simulation, with Gaussian or
        Student-t noise of unknown size; a mean two standard deviations below zero is found within eight readings at the median.
        critical_kl 1: TRL 0.11 warned below -1 nat/sequence (ppo_trainer.py:1311). rounding: bfloat16 log-probabilities. Rule R05 of the
        catalogue. quiet_steps 3 is a convention.

    What to do:
        Make sampling and scoring agree: no top-k, top-p, min-p or minimum length in generation, one temperature, the same padding mask; or
        log the full-vocabulary KL.

    Example finding:
        KL to reference (k1, nats/sequence) has been below zero since step 40, -0.62 nats/sequence in the mean of 5 readings: the text was not sampled from the policy that is scored.
    """

    code = "KLA206"
    name = "kl_negative"
    version = 1
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = KLNegativeParameters

    def __init__(self, run: Run, *, parameters: KLNegativeParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.keys = [key for key, one in run.series.items() if one.kind == "reference" and one.estimator != "unknown"]
        self.has_reading = False
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self.episodes.clear()
        quiet_steps = self.parameters.quiet_steps
        self._watched = [_Watched(key, self.start_episode(series=key, quiet_steps=quiet_steps)) for key in self.keys]

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        record = observation.record
        findings: list[Finding] = []
        for watched in self._watched:
            reading = record.reading(watched.key)
            if reading is None or reading.value is None or not math.isfinite(reading.value):
                continue
            self.has_reading = True
            judgement = None
            if reading.series.estimator == "k1":
                judgement = self._judge_k1(watched, reading.value, record=record)
            elif reading.value < 0:
                judgement = self._judge_other(watched, self._complete(watched, record), step=record.step)
            if judgement is not None or watched.episode.is_open:
                finding = watched.episode.observe(record, judgement)
                if finding is not None:
                    findings.append(finding)
        return findings

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.has_reading:
            yield "no finite reading of a reference KL of known estimator"

    def _complete(self, watched: _Watched, record: StepRecord) -> KLReading:
        reading = complete_reading(record, key=watched.key, run=self.run)
        assert reading is not None
        return reading

    def _judge_other(self, watched: _Watched, reading: KLReading, *, step: int) -> Judgement | None:
        value = reading.value or 0.0
        length = (reading.mean_length or NOMINAL_LENGTH) if reading.series.unit == "nats_per_sequence" else 1.0
        if value >= -self.parameters.rounding * length:
            return None
        return Judgement(
            severity=Severity.CRITICAL,
            badness=-value,
            message=f"{reading.series.label} was {value:.3g} {UNIT_LABELS[reading.series.unit]} at step {step}: this estimator cannot be negative.",
            remedy="Look for a sign, a mask or a normalisation that is wrong where this number is computed.",
            value=value,
            threshold=-self.parameters.rounding * length,
            unit=UNIT_LABELS[reading.series.unit],
            evidence={"series": {"key": watched.key, "estimator": reading.series.estimator, "unit": reading.series.unit}, "kl": value},
        )

    def _judge_k1(self, watched: _Watched, value: float, *, record: StepRecord) -> Judgement | None:
        if watched.values:
            watched.moves.append(abs(value - watched.values[-1][1]))
        # Whatever the noise, a reading that is not below zero adds nothing to a sum of nothing.
        is_needed = len(watched.moves) >= LEAST_MOVES and (value < 0 or watched.total > 0)
        reading = self._complete(watched, record) if is_needed else None
        sd = 0.0 if reading is None else self._find_sd(watched, reading)
        watched.values.append((record.step, value))
        if reading is None or sd <= 0:
            return None
        if watched.total <= 0:
            watched.first_step = record.step
            watched.n_below, watched.sum_below = 0, 0.0
        grown = watched.total + max(-CLIP, min(CLIP, -value / sd)) - self.parameters.allowance
        watched.total = max(0.0, min(MOST * self.parameters.limit, grown))
        watched.n_below += 1
        watched.sum_below += value
        if watched.total <= self.parameters.limit or watched.n_below < 2:
            return None
        return self._tell(watched, reading, sd=sd)

    def _find_sd(self, watched: _Watched, reading: KLReading) -> float:
        """Of one k1 reading around its mean, in its unit."""
        length = (reading.mean_length or NOMINAL_LENGTH) if reading.series.unit == "nats_per_token" else 1.0
        level = max(find_median([value for _, value in watched.values]) * length, LEAST_KL)
        by_sampling = math.sqrt(2 * level / (reading.n_sequences or NOMINAL_BATCH)) / length
        by_moves = MAD_TO_SD / math.sqrt(2) * find_median(list(watched.moves)) * (1 + EARLY / len(watched.moves))
        return max(by_sampling, by_moves)

    def _tell(self, watched: _Watched, reading: KLReading, *, sd: float) -> Judgement:
        unit = UNIT_LABELS[reading.series.unit]
        mean = watched.sum_below / watched.n_below
        length = (reading.mean_length or NOMINAL_LENGTH) if reading.series.unit == "nats_per_token" else 1.0
        return Judgement(
            severity=Severity.CRITICAL if mean * length <= -self.parameters.critical_kl else Severity.WARNING,
            badness=-watched.sum_below,
            message=f"{reading.series.label} has been below zero since step {watched.first_step}, {mean:.3g} {unit} in the mean of "
            f"{watched.n_below} readings: the text was not sampled from the policy that is scored.",
            remedy="Make sampling and scoring agree: no top-k, top-p or minimum length, one temperature, the same padding mask; or log the full-vocabulary KL.",
            value=mean,
            threshold=0.0,
            unit=unit,
            evidence={
                "series": {"key": watched.key, "estimator": "k1", "unit": reading.series.unit},
                "sum": watched.total,
                "limit": self.parameters.limit,
                "sd": sd,
                "window": {"steps": [one for one, _ in watched.values], "kl": [one for _, one in watched.values]},
            },
            first_step=watched.first_step,
        )
