"""KLA203 kl_level_shift."""

from collections.abc import Iterator

from klaudit.audit.change_rule import LOOK, ChangeParameters, ChangeRule, describe_change, name_value
from klaudit.audit.change_watch import KLChange
from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.records import Finding, Severity


class KLLevelShift(ChangeRule[ChangeParameters]):
    """The KL to the reference has moved to another level, up or down, without one great jump.

    What it checks:
        The governing series' innovations (see KLA201), added up by Page's cumulative sums, upward and downward. A shift that begins with a
        jump is the finding KLA201, which then says so.

    Formula:
        S = max(0, S + w - 0.75) above its limit, of at least two readings; w is the innovation in standard deviations, clipped at 4 and
        whitened: (z - r z') / sqrt(1 - r^2) with r the correlation of neighbours. Upward the KL must be 4% above the median of the last
        nine readings, downward 35% below it, where three quarters of the limit are enough. A fall is told too where the mean of the last ten
        readings is that far below a line of KLA204, and below its end, by more standard errors than the limit there less 0.35. The KL, or what was expected, must be at least 0.05 nats/sequence. Critical upward at twice what was expected, with a KL of critical_kl or
        more.

    Why it matters:
        A level that changes within a few steps is a change of what is trained or of how it is measured: another batch of prompts, a
        reloaded optimiser, another reference, another mask. A fall is no good news before its cause is known.

    Parameters and where the defaults come from:
        The limit comes from the policy's false_alarms_per_1000 by simulation (tests/detectors/test_kl_change.py). An allowance of 0.75
        finds a shift of one and a half standard deviations soonest (Page 1954: half the shift that is to be found); a larger one is a jump. critical_kl 1: rule R06 of
        the catalogue; the shift itself is rule R07. quiet_steps 8: as long as the detector waits after an alarm.

    What to do:
        Compare data, masks, learning rate and reference before and after the first step of the finding; after a rise, sample from the
        checkpoints on both sides of it.

    Example finding:
        KL to reference (k1, nats/sequence) has risen to another level: 3.1 nats/sequence at step 48 where 2.2 nats/sequence was expected, since step 46.
    """

    code = "KLA203"
    name = "kl_level_shift"
    version = 4
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = ChangeParameters

    def follow(self, observation: Observation) -> Iterator[Finding]:
        """See ChangeRule."""
        change = observation.change
        is_level = change is not None and change.change.kind == "level"
        finding = self.episode.observe(observation.record, self._judge(change, step=observation.step) if change and is_level else None)
        if finding is not None:
            yield finding

    def _judge(self, change: KLChange, *, step: int) -> Judgement:
        reading, told = change.reading, change.change
        value = reading.value or 0.0
        is_up = told.direction > 0
        is_critical = is_up and self.is_large(change) and value >= 2 * told.expected
        first_step = int(told.first_position)
        return Judgement(
            severity=Severity.CRITICAL if is_critical else Severity.WARNING,
            badness=told.score,
            message=f"{reading.series.label} has {'risen' if is_up else 'fallen'} to another level: {name_value(value, reading=reading)} at step {step} "
            f"where {name_value(told.expected, reading=reading)} was expected, since step {first_step}.",
            remedy=f"{LOOK}; compare data, masks and reference before and after.",
            value=told.score,
            threshold=told.limit,
            unit="standard errors" if told.statistic == "t" else "sum of excess standard deviations",
            evidence={**describe_change(change, key=self.key), "direction": "up" if is_up else "down"},
            first_step=first_step,
        )
