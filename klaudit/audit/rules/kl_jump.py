"""KLA201 kl_jump."""

import math
from collections.abc import Iterator

from pydantic import Field

from klaudit.audit.change_rule import LOOK, ChangeParameters, ChangeRule, describe_change, name_value
from klaudit.audit.change_watch import JumpOutcome, KLChange
from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.records import Finding, Severity

LOOK_FOR_OUTLIER = (
    "Look for the sequence that stands out among the sampled texts of this step, and clip the log-ratio or the reward if that recurs"
)


class KLJumpParameters(ChangeParameters):
    """Parameters of KLA201."""

    critical_z: float = Field(default=8.0, gt=0, description="standard deviations that make it critical, if critical_kl is reached too")


class KLJump(ChangeRule[KLJumpParameters]):
    """The KL to the reference jumps up within one step.

    What it checks:
        Each reading of the governing series against its forecast from the readings before it, once there are twelve. Four forecasters, two
        gains on a linear and on a logarithmic scale, are believed by how likely they made the readings so far. Within three readings the
        jump is called a spike, when half of it is gone, or a level shift. Readings that are absent, NaN or infinite are left out. With the
        policy's detector z_score or window_change, what W&B's automations would have said, upward and downward, always a warning.

    Formula:
        z = (x - e) / s above a limit that follows from false_alarms_per_1000; e is the higher of level and damped trend (Holt), s the root
        mean square of the last 100 innovations, each weighed as Student-t noise of five degrees of freedom asks, on the scale of the
        forecaster; never below 0.0007 nats/sequence, 0.8 of the batches' own standard error (median of 41), and the rounding of the log.
        Of the four, the chances of so high a reading under Student-t errors are averaged, and z is given back from the mean. x must also be
        4% above the median of the last nine readings, and 0.05 nats/sequence or more.
        Critical at z >= critical_z with a KL of critical_kl or more, and when such a jump stays as a level shift at twice what was expected.
        Information, and called an outlier, where one or two sequences of the batch make it, unless it stays: x - e below 1.5 times the
        batch's own standard error, which is 1.5 times its usual share of the KL or more. One sequence that is off by D moves a batch of n by
        D / n, and its standard error by as much; a change of the policy moves all sequences, and both grow alike.

    Why it matters:
        A policy that leaves the reference within a step or two has usually taken a broken update: a learning rate, a batch of
        outliers, an advantage that was not normalised. It is cheapest to undo at once.

    Parameters and where the defaults come from:
        The limits come from the policy's false_alarms_per_1000 by simulation with autocorrelated noise and Student-t tails
        (tests/detectors/test_kl_change.py holds them to it; docs/detection.md has the score). critical_kl 1: rule R06 of the catalogue.
        critical_z 8: twice the limit of the default policy.
        quiet_steps 8: as long as the detector waits after an alarm, so that one change is one finding. Only a jump that is one standard
        deviation above the limit is told within them, once, where the change before it is over.

    What to do:
        Look at the sampled texts of the step, at the learning rate, the clip fraction and the policy-update KL around it; if the level
        stays, go back to the checkpoint before it. Of an outlier, look for the sequence that stands out.

    Example finding:
        KL to reference (full, nats/sequence) jumped to 2.34 nats/sequence at step 31 where 0.42 nats/sequence was expected, 12.1 standard deviations above; it has stayed until step 34: a level shift.
    """

    code = "KLA201"
    name = "kl_jump"
    version = 5
    severities = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)
    parameters_model = KLJumpParameters

    def follow(self, observation: Observation) -> Iterator[Finding]:
        """See ChangeRule."""
        outcome, change = observation.jump_outcome, observation.change
        if outcome is not None and self.episode.is_open:
            yield from self._settle(outcome)
        is_jump = change is not None and change.change.kind == "jump"
        finding = self.episode.observe(observation.record, self._judge(change, step=observation.step) if change and is_jump else None)
        if finding is not None:
            yield finding

    def _judge(self, change: KLChange, *, step: int) -> Judgement:
        score, reading = change.change.score, change.reading
        message = (
            f"{reading.series.label} jumped to {name_value(reading.value or 0.0, reading=reading)} at step {step} where "
            f"{name_value(change.change.expected, reading=reading)} was expected, {score:.1f} standard deviations above"
        )
        error = name_value(reading.standard_error or 0.0, reading=reading)
        message += f", which one or two sequences of the batch may have made: its standard error is {error}." if change.is_outlier else "."
        return Judgement(
            severity=self._weigh(change),
            badness=score,
            message=message if change.detector == "klaudit" else describe_alarm(change, step=step),
            remedy=f"{LOOK_FOR_OUTLIER if change.is_outlier else LOOK}; if the level stays, go back to the checkpoint before it.",
            value=score,
            threshold=change.change.limit,
            unit="of the mean before" if change.detector == "window_change" else "standard deviations",
            evidence=describe_change(change, key=self.key),
        )

    def _weigh(self, change: KLChange) -> Severity:
        if change.is_outlier:
            return Severity.INFO
        is_critical = change.detector == "klaudit" and change.change.score >= self.parameters.critical_z and self.is_large(change)
        return Severity.CRITICAL if is_critical else Severity.WARNING

    def _settle(self, outcome: JumpOutcome) -> Iterator[Finding]:
        """Tell what became of the jump, and end the episode."""
        finding = self.episode.finding
        assert finding is not None
        n = outcome.n_readings
        is_outlier = outcome.kind == "spike" and finding.severity is Severity.INFO
        told = (
            f"; it was back within {n} reading{'s' if n > 1 else ''}: {'an outlier of the batch' if is_outlier else 'a spike'}."
            if outcome.kind == "spike"
            else f"; it has stayed until step {outcome.step}: a level shift."
        )
        stays_high = outcome.kind == "level shift" and outcome.value >= 2 * outcome.expected
        is_large = float(finding.evidence.get("kl_per_sequence") or 0.0) >= self.parameters.critical_kl
        severity = finding.severity
        if outcome.kind == "level shift":
            severity = Severity.CRITICAL if severity is Severity.CRITICAL or (stays_high and is_large) else Severity.WARNING
        evidence = {
            **finding.evidence,
            "outcome": "outlier" if is_outlier else outcome.kind,
            "outcome_step": outcome.step,
            "outcome_kl": outcome.value,
        }
        self.episode.revise(
            severity=severity, message=finding.message.removesuffix(".") + told, evidence=evidence, last_step=outcome.last_off_step
        )
        ended = self.episode.end()
        if ended is not None:
            yield ended


def describe_alarm(change: KLChange, *, step: int) -> str:
    """What one of W&B's automations saw, for people."""
    told, reading = change.change, change.reading
    side = "above" if told.direction > 0 else "below"
    usual = name_value(told.expected, reading=reading)
    if change.detector == "window_change":
        share = f"{told.score:.0%} {side}" if math.isfinite(told.score) else side
        return f"{reading.series.label}: the mean of the last readings was {share} that of those before, {usual}, at step {step}."
    was = f"{reading.series.label} was {name_value(reading.value or 0.0, reading=reading)} at step {step}"
    if not math.isfinite(told.score):
        return f"{was}, after readings that had stood still at {usual}."
    return f"{was}, {told.score:.1f} standard deviations {side} the mean of the readings before, {usual}."
