"""KLA204 kl_trend_change."""

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from klaudit.audit.change_rule import ChangeParameters, ChangeRule, describe_change, name_value
from klaudit.audit.change_watch import KLChange
from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.detectors.baseline import find_median
from klaudit.detectors.kl_change import LINES, RECENT
from klaudit.detectors.trend_break import LEAST_VALUES
from klaudit.records import Finding, Severity


class KLTrendChangeParameters(ChangeParameters):
    """Parameters of KLA204."""

    quiet_steps: int = Field(default=20, ge=1, le=1_000_000, description="readings without an alarm that end an episode")


class KLTrendChange(ChangeRule[KLTrendChangeParameters]):
    """The KL to the reference grows faster than its own past led to expect, slowly and steadily.

    What it checks:
        The mean of the last ten readings of the governing series against two lines: one through forty readings that ended twenty ago, and
        one through sixty that ended forty ago, for a slope that the KL's own wandering hides from the first. A departure over so many
        steps cannot hide itself. The lines are drawn through the root of the KL and through its logarithm, and the readings must be above
        both: growth by as much each step curves on the one scale, growth by a constant share on the other, and neither is a change. A line
        that falls counts as level, and a level that another rule has told counts like the line until the line has seen it: growth that goes
        on from it is told. Growth out of a KL that nobody could notice is how every run begins: the line itself must lead to 0.05
        nats/sequence or more, and to three times x0; and below 1 nat/sequence the growth must be clearer by two standard errors, because the
        pace of healthy runs changes too and a small KL leaves time. It needs a line through 20 readings, so it judges from the 41st one of a segment on.

    Formula:
        t = (m - l) / s above its limit; m is the mean of sign(x) sqrt(|x|) over the last ten readings, the highest and the lowest of them
        taken for the ones next to them, so that one reading which is off is no trend; l is the line at their middle, s the standard error
        of m - l, widened by (1 + r) / (1 - r) for neighbours that correlate by r, at most 0.7. The line that ended twenty ago needs half a
        standard error more. The same of asinh(x / 2 x0) (a logarithm well above x0, which is 0.000225 nats/sequence, and for k1 half a nat
        over the batch if that is more) must be above the limit less 0.5 for the first line and less 1.5 for the second. The median of the
        last nine readings must be 4% above where the line itself leads. Critical where that median is twice
        what was expected, with a KL of critical_kl or more.

    Why it matters:
        A run that speeds up its drift has lost its anchor: a beta that fell, a controller out of range, a reward that has found a
        loophole. A trend is seen long before a budget breaks.

    Parameters and where the defaults come from:
        The limit comes from the policy's false_alarms_per_1000 by simulation (tests/detectors/test_kl_change.py). The standard error is
        that of a prediction by least squares, for the mean of an AR(1) process (Priestley 1981, 5.3.2), the mean winsorized (Dixon 1960); the shift of trend is rule R08 of
        the catalogue. critical_kl 1: rule R06. quiet_steps 20: what the first line does not see; growth that goes on is one
        finding.

    What to do:
        Look at beta, learning rate and reward since the first step of the finding; raise beta or lower the learning rate, and sample from
        the newest checkpoint.

    Example finding:
        KL to reference (k1, nats/sequence) has left its trend upward since about step 120: 4.8 nats/sequence at step 140 where 3.9 nats/sequence was expected.
    """

    code = "KLA204"
    name = "kl_trend_change"
    version = 4
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = KLTrendChangeParameters
    warm_up: ClassVar[int] = LEAST_VALUES + min(line.delay for line in LINES)

    def follow(self, observation: Observation) -> Iterator[Finding]:
        """See ChangeRule."""
        change = observation.change
        is_slope = change is not None and change.change.kind == "slope"
        finding = self.episode.observe(observation.record, self._judge(change, step=observation.step) if change and is_slope else None)
        if finding is not None:
            yield finding

    def _judge(self, change: KLChange, *, step: int) -> Judgement:
        reading, told = change.reading, change.change
        value = reading.value or 0.0
        first_step = int(told.first_position)
        # One reading that is high does not make a trend critical.
        latest = find_median([*(kl for _, kl in change.window[1 - RECENT :]), value])
        is_critical = self.is_large(change) and latest >= 2 * told.expected
        return Judgement(
            severity=Severity.CRITICAL if is_critical else Severity.WARNING,
            badness=told.score,
            message=f"{reading.series.label} has left its trend upward since about step {first_step}: "
            f"{name_value(value, reading=reading)} at step {step} where {name_value(told.expected, reading=reading)} was expected.",
            remedy="Look at beta, learning rate and reward since then; raise beta or lower the learning rate, and sample from the newest checkpoint.",
            value=told.score,
            threshold=told.limit,
            unit="standard errors",
            evidence=describe_change(change, key=self.key),
            first_step=first_step,
        )
