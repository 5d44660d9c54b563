"""KLA501 update_kl_high."""

import math
from collections import deque
from collections.abc import Iterator, Sequence

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation, complete_reading
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.persistence import Persistence
from klaudit.detectors.surge import Surge, SurgeDetector
from klaudit.records import UNIT_LABELS, Finding, KLReading, Run, Severity
from klaudit.records.series import find_update_series

USUAL_EVERY = 10
"""Readings between two looks at what is usual: it changes slowly, and a finding that changes at every step is stored at every step."""


class UpdateKLHighParameters(RuleParameters):
    """Parameters of KLA501."""

    limit: float = Field(default=0.015, gt=0, description="nats/token: what textbook PPO stops an update at, 1.5 x a target of 0.01")
    critical_kl: float = Field(default=0.1, gt=0, description="nats/token from which a surge is critical")
    extreme_kl: float = Field(default=1.0, gt=0, description="nats/token that are critical whatever is usual in the run")
    surge_times: float = Field(default=6.0, gt=1, description="times the run's usual update KL that make a surge")
    surge_z: float = Field(default=4.0, gt=0, description="robust standard deviations of log KL that make a surge")
    sudden_times: float = Field(
        default=20.0, gt=1, description="times the usual at which one step over critical_kl is enough, without a second one"
    )
    sudden_z: float = Field(default=10.0, gt=0, description="robust standard deviations of log KL at which one step is enough")
    steps_needed: int = Field(default=2, ge=1, le=1000, description="steps over, of the last steps_of, that make a finding")
    steps_of: int = Field(default=3, ge=1, le=1000, description="steps that steps_needed are counted in")
    window: int = Field(default=50, ge=5, le=10_000, description="readings whose median is the run's usual update KL")
    warm_up: int = Field(default=10, ge=5, le=10_000, description="readings before a surge is judged")
    nominal_length: float = Field(default=100.0, gt=0, description="tokens a sequence where nats/sequence come without lengths")
    quiet_steps: int = Field(default=3, ge=1, le=1_000_000, description="quiet readings that end an episode")


class UpdateKLHigh(Rule[UpdateKLHighParameters]):
    """One update moves the policy far more than the run's updates do, or more than any update should.

    What it checks:
        The policy-update KL, between the policy before and after an update, by whatever estimator; the series that path budgets add
        up. A series in nats per sequence is divided by its mean length. Readings that are absent, NaN or infinite are left out.

    Formula:
        Over, at a step: KL > extreme_kl; or a surge: KL > limit, >= surge_times the median of the last window readings, >= twice their
        90th percentile, and (log KL - log median) / (1.4826 MAD of the logs, at least 0.25) >= surge_z. A finding at steps_needed
        of steps_of readings over, or at one surge above critical_kl of sudden_times and sudden_z:
        critical above critical_kl, else warning.
        Info: the run's usual update KL, its median, is over limit; looked at every 10 readings.

    Why it matters:
        PPO's clipped objective holds only near the policy that sampled. An update that leaves it trains on samples that are no longer
        the policy's; the KL to the reference shows that a step later, when the weights are already changed.

    Parameters and where the defaults come from:
        limit 0.015: target_kl 0.01 of Spinning Up's PPO and its factor 1.5. critical_kl 0.1: where TRL (pull request 238) stopped
        early. extreme_kl 1: the target_kl of TRL up to 0.11. A run whose every update is over the textbook limit is common (TRL's PPO
        with batches of 4 logs 0.05 to 0.26 from the first step to the last): that is told once as info, and a warning takes a surge.
        surge_times 6, surge_z 4, and steps_needed 2 of steps_of 3: the log of healthy update KLs scatters by 0.3 to 0.7 with single
        values of 5 to 13 times the median, and a learning rate x20 makes 200 times. sudden_times 20 and sudden_z 10: what no healthy
        curve shows even once. window 50 outlasts a surge of 20 steps, warm_up 10 is the catalogue's. On simulated series of level 0.001
        to 0.05 with Student-t 5 noise, warnings per 1,000 steps are below 0.1 at a log sd up to 0.5 and at most 0.5 at 0.8.
        nominal_length 100 makes 1.5 nats/sequence of the limit. quiet_steps 3 is a convention. TRL's PPO averages over padding too,
        which makes its number too small where texts end early.

    What to do:
        Look at learning rate, advantages and clip fraction of the step. Fewer epochs on a batch, a lower learning rate or a target KL
        that stops an update early keep it down.

    Example finding:
        policy-update KL (full, nats/token) was 0.0883 nats/token at step 38, 231 times the run's usual 0.000382 and over 0.015, on 2 of the last 3 steps.
    """

    code = "KLA501"
    name = "update_kl_high"
    version = 1
    severities = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)
    parameters_model = UpdateKLHighParameters

    def __init__(self, run: Run, *, parameters: UpdateKLHighParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.key = find_update_series(run.series)
        self.surges = self.start_episode(series=self.key, quiet_steps=parameters.quiet_steps)
        self.usual = self.start_episode(series=self.key, subject="usual", quiet_steps=3)
        self.most_readings = 0
        self.detector = SurgeDetector(
            window=max(parameters.window, parameters.warm_up),
            warm_up=parameters.warm_up,
            floor=max(parameters.limit / 100, 1e-12),
            least_times=parameters.surge_times,
        )
        self.persistence = Persistence(min(parameters.steps_needed, parameters.steps_of), of=parameters.steps_of)
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self.detector.clear()
        self.persistence.clear()
        self.recent: deque[tuple[int, float]] = deque(maxlen=20)
        self._n_readings = 0

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        record = observation.record
        reading = None if self.key is None else record.reading(self.key)
        if reading is None or not reading.is_finite:
            return ()
        value = self._bring_to_token(reading, observation=observation)
        if not math.isfinite(value):
            return ()
        self.recent.append((record.step, value))
        surge = self.detector.observe(value)
        judgement = self._judge(reading, value=value, surge=surge, step=record.step)
        told = [self.surges.observe(record, judgement)]
        self._n_readings += 1
        self.most_readings = max(self.most_readings, self._n_readings)
        if self._n_readings % USUAL_EVERY == 0:
            told.append(self.usual.observe(record, self._judge_usual(reading)))
        return [finding for finding in told if finding is not None] if any(told) else ()

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if self.key is None:
            yield "no policy-update KL of known unit"
        elif self.most_readings <= self.parameters.warm_up:
            yield f"a surge needs more than {self.parameters.warm_up} finite readings of {self.key!r} in one segment; the most was {self.most_readings}"

    def _bring_to_token(self, reading: KLReading, *, observation: Observation) -> float:
        assert reading.value is not None
        assert self.key is not None
        if reading.series.unit == "nats_per_token":
            return reading.value
        completed = complete_reading(observation.record, key=self.key, run=self.run) or reading
        return reading.value / (completed.mean_length or self.parameters.nominal_length)

    def _judge(self, reading: KLReading, *, value: float, surge: Surge | None, step: int) -> Judgement | None:
        limits = self.parameters
        is_surge = surge is not None and value > limits.limit and surge.z >= limits.surge_z
        is_extreme = value > limits.extreme_kl
        is_over = is_surge or is_extreme
        persists = self.persistence.observe(is_over)
        is_sudden = value > limits.critical_kl and surge is not None and surge.times >= limits.sudden_times and surge.z >= limits.sudden_z
        if not is_over or not (persists or is_sudden):
            return None
        is_critical = is_extreme or value > limits.critical_kl
        unusual = f"{surge.times:.3g} times the run's usual {surge.usual:.3g} and " if is_surge and surge is not None else ""
        how_often = f"on {limits.steps_needed} of the last {limits.steps_of} steps" if persists else "in one step"
        threshold = limits.extreme_kl if is_extreme else limits.critical_kl if is_critical else limits.limit
        return Judgement(
            severity=Severity.CRITICAL if is_critical else Severity.WARNING,
            badness=value,
            message=f"{reading.series.label} was {value:.3g} nats/token at step {step}, {unusual}over {threshold:g}, {how_often}.",
            remedy="Look at learning rate, advantages and clip fraction of this step; lower the learning rate or take fewer epochs on a batch.",
            value=value,
            threshold=threshold,
            unit="nats_per_token",
            evidence=self._describe(reading)
            | {"usual": surge.usual if surge else self.detector.usual, "z": surge.z if surge else None, "limits": limits.model_dump()},
            first_step=self._find_first(threshold=limits.extreme_kl if is_extreme else limits.limit, step=step),
        )

    def _judge_usual(self, reading: KLReading) -> Judgement | None:
        usual = self.detector.usual if self._n_readings >= 2 * self.parameters.warm_up else None
        if usual is None or usual <= self.parameters.limit:
            return None
        return Judgement(
            severity=Severity.INFO,
            badness=usual,
            message=f"{reading.series.label} is usually {usual:.3g} nats/token in this run, over the textbook limit of {self.parameters.limit:g}.",
            remedy="If the run is unstable, lower the learning rate or take fewer epochs on a batch.",
            value=usual,
            threshold=self.parameters.limit,
            unit="nats_per_token",
            evidence=self._describe(reading),
        )

    def _describe(self, reading: KLReading) -> dict[str, object]:
        series = {"key": self.key, "estimator": reading.series.estimator, "unit": UNIT_LABELS[reading.series.unit]}
        return {"series": series, "window": {"steps": [step for step, _ in self.recent], "nats_per_token": [kl for _, kl in self.recent]}}

    def _find_first(self, *, threshold: float, step: int) -> int:
        """The first step over, of those that count."""
        counted = list(self.recent)[-self.parameters.steps_of :]
        return next((one for one, kl in counted if kl > threshold), step)
