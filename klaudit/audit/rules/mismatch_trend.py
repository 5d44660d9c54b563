"""KLA702 mismatch_trend."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.mismatch import LOGPROB_DIFFERENCES, find_mismatch_series, read_mismatch
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.baseline import FirstValues
from klaudit.detectors.trend import RollingTrend, Trend
from klaudit.records import Finding, Run, Severity

LEAST_NOISE = 0.05
"""Least standard deviation of the first readings, as a share of their median: ten may agree by chance."""


class MismatchTrendParameters(RuleParameters):
    """Parameters of KLA702."""

    window: int = Field(default=30, ge=8, le=10_000, description="readings that the line goes through")
    first_readings: int = Field(default=10, ge=3, le=1000, description="readings whose median is what the mismatch began with")
    limit_t: float = Field(default=4.0, gt=0, description="slope over its standard error, autocorrelation allowed for")
    noise_sd: float = Field(default=6.0, ge=0, description="standard deviations of the first readings that it has to be above their median")
    growth: float = Field(default=2.0, gt=1, description="times the mismatch has to be what it began with")
    least_kl: float = Field(default=2e-4, gt=0, description="nats/token below which no mismatch KL counts")
    least_difference: float = Field(default=0.01, gt=0, description="nats below which no mean |log-probability difference| counts")
    quiet_steps: int = Field(default=10, ge=1, le=1_000_000, description="readings without a trend that end an episode")


class MismatchTrend(Rule[MismatchTrendParameters]):
    """The mismatch between rollout engine and trainer grows.

    What it checks:
        The rollout-mismatch KL in sqrt(nats/token); where there is none, the mean absolute log-probability difference of TRL, slime or
        SkyRL. Readings that are absent, NaN or infinite are left out.

    Formula:
        A least-squares line through the last `window` readings: t = slope / (standard error x sqrt((1 + r) / (1 - r))), r the lag-1
        autocorrelation of its residuals, between 0 and 0.9. warning: t >= limit_t, and the reading and the line's end are at least `growth`
        times the median of the first first_readings (of the KL, not of its root), noise_sd of their standard deviations (1.4826 MAD, at
        least 5% of the median) above it, and at the least level.

    Why it matters:
        A mismatch that is there from the start is the price of another engine. One that grows says that weights are not synchronised
        any more, that quantisation loses what training adds, or that the policy moves to where the two engines disagree.

    Parameters and where the defaults come from:
        window 30: rule R21 of the catalogue. growth 2: as reported to open-instruct, 0.011 to 0.036 even at a learning rate of 0.
        first_readings 10: the catalogue's baseline. least_kl 0.0002: a fifth of what NeMo-RL accepts; least_difference 0.01: what
        healthy stacks show. limit_t 4 and noise_sd 6: together with growth below 0.1 false alarms per 1,000 steps on simulated level
        series (log sd 0.1 to 0.8, autocorrelation up to 0.6), where a rise to four times within 60 steps is always found at a log sd of
        0.1 and in 3 of 4 at 0.3. A series that wanders more (0.8) has up to 1.3. quiet_steps 10: a third of the window.

    What to do:
        Synchronise the engine's weights anew and see whether the mismatch falls back; else compare precision and kernels of the two.

    Example finding:
        rollout-mismatch KL grew to 0.00081 nats/token by step 74, 2.7 times the 0.0003 it began with, with t = 8.2 over 30 readings.
    """

    code = "KLA702"
    name = "mismatch_trend"
    version = 1
    severities = (Severity.WARNING,)
    parameters_model = MismatchTrendParameters

    def __init__(self, run: Run, *, parameters: MismatchTrendParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.key = find_mismatch_series(run.series)
        self.episode = self.start_episode(series=self.key, quiet_steps=parameters.quiet_steps)
        self.most_readings = 0
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self.trend = RollingTrend(self.parameters.window)
        self.first = FirstValues(self.parameters.first_readings)
        self.recent: deque[tuple[int, float]] = deque(maxlen=self.parameters.window)

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        read = self._read(observation)
        if read is None:
            return ()
        record, (name, value) = observation.record, read
        self.trend.observe(value, position=record.step)
        self.first.observe(value)
        self.recent.append((record.step, value))
        self.most_readings = max(self.most_readings, len(self.recent))
        judgement = self._judge(name, value, step=record.step) if len(self.recent) == self.parameters.window else None
        if judgement is None and not self.episode.is_open:
            return ()
        finding = self.episode.observe(record, judgement)
        return () if finding is None else (finding,)

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.most_readings:
            yield "no rollout-mismatch KL of known estimator and unit, and no mean log-probability difference"
        elif self.most_readings < self.parameters.window:
            yield f"needs {self.parameters.window} finite readings of the mismatch in one segment; the most was {self.most_readings}"

    def _read(self, observation: Observation) -> tuple[str, float] | None:
        """Name and value: the square root of a KL, or a difference as it is."""
        if self.key is not None:
            kl = read_mismatch(observation.record, key=self.key, run=self.run)
            return None if kl is None else (self.key, math.sqrt(max(kl, 0.0)))
        for name in LOGPROB_DIFFERENCES:
            if name in observation.record.metrics:
                value = observation.number(name)
                return None if value is None else (name, value)
        return None

    def _judge(self, name: str, value: float, *, step: int) -> Judgement | None:
        limits, is_kl, began = self.parameters, self.key is not None, self.first.level
        if began is None:
            return None
        floor, growth = (math.sqrt(limits.least_kl), math.sqrt(limits.growth)) if is_kl else (limits.least_difference, limits.growth)
        least = max(floor, growth * began, began + limits.noise_sd * max(self.first.sd, LEAST_NOISE * began))
        trend = self.trend.fit() if value >= least else None
        if trend is None or trend.slope <= 0:
            return None
        mean_step = sum(one for one, _ in self.recent) / len(self.recent)
        end = trend.mean + trend.slope * (step - mean_step)
        t = trend.t / self._allow_for_autocorrelation(trend, mean_step=mean_step)
        if not (end >= least and t >= limits.limit_t):
            return None
        now, before = (end * end, began * began) if is_kl else (end, began)
        label = "rollout-mismatch KL" if is_kl else "mean |log-probability difference|"
        times = f"{now / before:.2g} times the {before:.3g} it began with" if before > 0 else "from 0 where it began"
        return Judgement(
            severity=Severity.WARNING,
            badness=now,
            message=f"{label} grew to {now:.3g} nats/token by step {step}, {times}, with t = {t:.1f} over {len(self.recent)} readings.",
            remedy="Synchronise the engine's weights anew; if it does not fall back, compare precision and kernels of engine and trainer.",
            value=now,
            threshold=max(limits.growth * before, limits.least_kl if is_kl else limits.least_difference),
            unit="nats_per_token",
            evidence={
                "number": name,
                "is_square_root": is_kl,
                "window": {"steps": [one for one, _ in self.recent], "values": [one for _, one in self.recent]},
                "began_with": before,
                "t": min(t, 1e9),
                "limits": limits.model_dump(),
            },
            first_step=self.recent[0][0],
        )

    def _allow_for_autocorrelation(self, trend: Trend, *, mean_step: float) -> float:
        """By how much the standard error of the slope is too small."""
        residuals = [value - trend.mean - trend.slope * (step - mean_step) for step, value in self.recent]
        total = sum(one * one for one in residuals)
        if total <= 0:
            return 1.0
        r = sum(one * next_one for one, next_one in pairwise(residuals)) / total
        r = min(max(r, 0.0), 0.9)
        return math.sqrt((1 + r) / (1 - r))
