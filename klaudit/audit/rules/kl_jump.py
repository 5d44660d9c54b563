"""KLA201 kl_jump."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.rule import Rule, RuleParameters, complete_reading
from klaudit.detectors import JumpDetector, JumpScore, find_noise_floor
from klaudit.records import UNIT_LABELS, Finding, KLReading, Run, Severity, StepRecord

NOMINAL_LENGTH = 100.0
"""Tokens a sequence where a series in nats per token comes without lengths: what makes 0.01 nats/token and 1 nat/sequence the same limit."""


class KLJumpParameters(RuleParameters):
    """Parameters of KLA201."""

    window: int = Field(default=20, ge=5, le=1000, description="readings that a reading is compared with")
    warm_up: int = Field(default=10, ge=5, le=1000, description="readings before the first judgement")
    warning_z: float = Field(default=3.5, gt=0, description="noise standard deviations above what was expected that make a warning")
    critical_z: float = Field(
        default=6.0, gt=0, description="noise standard deviations that make it critical, if critical_kl is reached too"
    )
    critical_kl: float = Field(default=1.0, ge=0, description="nats/sequence below which no jump is critical")
    least_noise: float = Field(default=0.015, gt=0, description="least noise standard deviation of d = sqrt(KL per sequence)")
    relative_noise: float = Field(
        default=0.06, ge=0, description="least noise standard deviation of d as a share of d: what a policy moves between updates anyway"
    )
    quiet_steps: int = Field(default=3, ge=1, le=1_000_000, description="readings below warning_z that end an episode")


class KLJump(Rule[KLJumpParameters]):
    """The KL to the reference jumps up.

    What it checks:
        The governing series in d = sqrt(KL per sequence), upward, against the window before it. A series in nats per token is brought
        to sequences by its mean length. Readings that are absent, NaN or infinite are left out.

    Formula:
        z = (d - e) / s. e = the higher of the window's median and its Theil-Sen line carried on to this step; s = max(1.4826 MAD of the
        residuals from the line, noise floor) x sqrt(1 + 1/n + (x - mean)^2 / Sxx). The noise floor is the largest of what sampling does,
        relative_noise x d, and least_noise. Sampling moves d by SE / (2 d), at most sqrt(SE), where the batch gives a standard error;
        else by 1 / sqrt(2 B) for k1 and in proportion to d for full and k3; by 0.05 if the batch size is unknown.
        Warning at z >= warning_z; critical at z >= critical_z and d^2 >= critical_kl.

    Why it matters:
        A policy that leaves the reference within a step or two has usually taken a broken update: a learning rate, a batch of
        outliers, an advantage that was not normalised. It is cheapest to undo at once.

    Parameters and where the defaults come from:
        window 20, warm_up 10, warning_z 3.5 (the modified z-score of Iglewicz and Hoaglin), critical_z 6 and critical_kl 1: rule R06 of
        the catalogue. The line is there because KL starts at 0 and grows: against a plain median, growth itself alarms.
        relative_noise 0.06: the KL of a healthy policy wanders by some 10% from update to update, which no standard error of a batch
        tells; without it 12% of healthy simulated runs of 60 steps alarm, with it none. least_noise 0.015: a jump from 0 to
        0.003 nats/sequence is the least that can be a finding. Held by simulation in tests/audit/rules: healthy growth of several
        shapes with a standard error of 5 to 10% gives no finding, and a learning rate x20 for three steps, which multiplies the KL by
        2 to 5, is found within 3 steps in at least 9 of 10 runs. On pure noise below 0.2 false alarms per 1,000 steps (tests/detectors).
        quiet_steps 3 is a convention, so that a rise over a few steps is one finding.

    What to do:
        Look at the sampled texts of the step, at the learning rate, the clip fraction and the policy-update KL around it; if the level
        stays, go back to the checkpoint before it.

    Example finding:
        KL to reference (full, nats/sequence) jumped to 2.34 nats/sequence at step 31 where 0.42 was expected: d = 1.53 is 12.1 noise standard deviations above 0.65.
    """

    code = "KLA201"
    name = "kl_jump"
    version = 1
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = KLJumpParameters

    def __init__(self, run: Run, *, parameters: KLJumpParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.key = run.governing_key
        self.episode = self.start_episode(series=self.key, quiet_steps=parameters.quiet_steps)
        self.most_readings = 0
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self.detector = JumpDetector(
            window=max(self.parameters.window, self.parameters.warm_up), warm_up=self.parameters.warm_up, baseline="trend"
        )
        self._n_readings = 0
        self._has_length: bool | None = None

    def observe(self, record: StepRecord) -> Iterator[Finding]:
        """See Rule."""
        reading = None if self.key is None else complete_reading(record, key=self.key, run=self.run)
        per_sequence = None if reading is None else self._bring_to_sequence(reading)
        if reading is None or per_sequence is None or per_sequence.value is None:
            return
        self._n_readings += 1
        self.most_readings = max(self.most_readings, self._n_readings)
        d = math.sqrt(max(per_sequence.value, 0.0))
        noise_floor = max(find_noise_floor(per_sequence), self.parameters.relative_noise * d, self.parameters.least_noise)
        window: dict[str, Any] = {"steps": list(self.detector.positions), "d": list(self.detector.values)}
        score = self.detector.observe(d, position=record.step, noise_floor=noise_floor)
        if score is None:
            return
        judgement = self._judge(reading, score=score, d=d, noise_floor=noise_floor, step=record.step, window=window)
        finding = self.episode.observe(record, judgement)
        if finding is not None:
            yield finding

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if self.key is None:
            yield "no reference KL of known estimator and unit"
        elif self.most_readings <= self.parameters.warm_up:
            yield f"needs more than {self.parameters.warm_up} finite readings of {self.key!r} in one segment; the most was {self.most_readings}"

    def _bring_to_sequence(self, reading: KLReading) -> KLReading | None:
        """The reading in nats per sequence; with or without lengths is settled by the segment's first reading, so that scales never mix."""
        if not reading.is_finite:
            return None
        if self._has_length is None:
            self._has_length = reading.mean_length is not None
        if reading.series.unit == "nats_per_token" and not self._has_length:
            reading = replace(reading, mean_length=NOMINAL_LENGTH)
        converted = reading.to_unit("nats_per_sequence")
        return converted if converted.is_finite else None

    def _judge(
        self, reading: KLReading, *, score: JumpScore, d: float, noise_floor: float, step: int, window: dict[str, Any]
    ) -> Judgement | None:
        limits = self.parameters
        if score.z < limits.warning_z:
            return None
        assert reading.value is not None
        is_critical = score.z >= limits.critical_z and d * d >= limits.critical_kl
        unit = UNIT_LABELS[reading.series.unit]
        expected = (score.expected / d) ** 2 * reading.value
        message = (
            f"{reading.series.label} jumped to {reading.value:.3g} {unit} at step {step} where {expected:.3g} was expected: "
            f"d = {d:.3g} is {score.z:.1f} noise standard deviations above {score.expected:.3g}."
        )
        evidence = {
            "series": {"key": self.key, "estimator": reading.series.estimator, "unit": reading.series.unit},
            "kl": reading.value,
            "standard_error": reading.standard_error,
            "d": d,
            "expected_d": score.expected,
            "scale_d": score.scale,
            "noise_floor_d": noise_floor,
            "z": score.z,
            "window": window,
            "limits": limits.model_dump(),
        }
        return Judgement(
            severity=Severity.CRITICAL if is_critical else Severity.WARNING,
            badness=score.z,
            message=message,
            remedy="Look at the sampled texts, learning rate, clip fraction and policy-update KL of this step; if the level stays, go back to the checkpoint before it.",
            value=score.z,
            threshold=limits.critical_z if is_critical else limits.warning_z,
            unit="noise standard deviations",
            evidence=evidence,
        )
