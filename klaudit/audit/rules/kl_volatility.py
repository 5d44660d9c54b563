"""KLA205 kl_volatility."""

from collections.abc import Iterator

from pydantic import Field

from klaudit.audit.change_rule import ChangeParameters, ChangeRule, describe_change, name_value
from klaudit.audit.change_watch import KLChange
from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.records import Finding, Severity


class KLVolatilityParameters(ChangeParameters):
    """Parameters of KLA205."""

    quiet_steps: int = Field(default=20, ge=1, le=1_000_000, description="readings without an alarm that end an episode")


class KLVolatility(ChangeRule[KLVolatilityParameters]):
    """The KL to the reference scatters more than it did.

    What it checks:
        The squares of the governing series' innovations (see KLA201), added up by Page's cumulative sum.

    Formula:
        S = max(0, S + w^2 - 3) above its limit, of at least three readings; w as in KLA203, downward at most 3. The KL, or what was expected,
        must be at least 0.05 nats/sequence.

    Why it matters:
        Updates that throw the policy to and fro are the beginning of a collapse, and a batch that has become smaller or more mixed makes
        every other number of the run noisier than its reader believes.

    Parameters and where the defaults come from:
        The limit comes from the policy's false_alarms_per_1000 by simulation (tests/detectors/test_kl_change.py). An allowance of 3 lets
        noise of 1.7 times its usual size pass and finds four times that within a few readings. critical_kl is not used: it is never
        critical. quiet_steps 20: more than twice as long as the detector waits after an alarm, so that a burst that goes on is one finding.

    What to do:
        Look at batch size, learning rate, gradient norm and the mix of prompts since the first step of the finding.

    Example finding:
        KL to reference (k3, nats/token) scatters more since step 88: from 0.004 to 0.031 nats/token in 4 readings, around 0.012 nats/token.
    """

    code = "KLA205"
    name = "kl_volatility"
    version = 4
    severities = (Severity.WARNING,)
    parameters_model = KLVolatilityParameters

    def follow(self, observation: Observation) -> Iterator[Finding]:
        """See ChangeRule."""
        change = observation.change
        scatters = change is not None and change.change.kind == "variance"
        finding = self.episode.observe(observation.record, self._judge(change) if change and scatters else None)
        if finding is not None:
            yield finding

    def _judge(self, change: KLChange) -> Judgement:
        reading, told = change.reading, change.change
        first_step = int(told.first_position)
        since = [value for step, value in change.window if step >= first_step] + [reading.value or 0.0]
        return Judgement(
            severity=Severity.WARNING,
            badness=told.score,
            message=f"{reading.series.label} scatters more since step {first_step}: from {min(since):.3g} to {name_value(max(since), reading=reading)} in "
            f"{len(since)} readings, around {name_value(told.expected, reading=reading)}.",
            remedy="Look at batch size, learning rate, gradient norm and the mix of prompts since then.",
            value=told.score,
            threshold=told.limit,
            unit="sum of excess squared standard deviations",
            evidence=describe_change(change, key=self.key),
            first_step=first_step,
        )
