"""KLA202 kl_spike."""

from collections import deque
from collections.abc import Iterator

from pydantic import Field

from klaudit.audit.change_rule import ChangeParameters, ChangeRule
from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.records import Finding, Run, Severity

MOST_NAMED = 10
"""Steps that a message names."""


class KLSpikeParameters(ChangeParameters):
    """Parameters of KLA202."""

    window_steps: int = Field(default=100, ge=1, le=1_000_000, description="steps over which spikes are counted")
    warning_spikes: int = Field(default=3, ge=1, le=1_000_000, description="spikes in the window that make a warning")
    quiet_steps: int = Field(default=100, ge=1, le=1_000_000, description="readings without a further spike that end an episode")


class KLSpike(ChangeRule[KLSpikeParameters]):
    """Spikes of the KL to the reference keep coming.

    What it checks:
        The jumps of KLA201 that were back within three readings. One spike is told by KLA201; this rule tells that they recur, which is
        another cause and another remedy.

    Formula:
        warning_spikes or more within window_steps steps, judged as a spike comes back. Spikes that go on after that belong to the finding.

    Why it matters:
        Spikes that recur are outlier tokens or the long tail of k3, and each is a step on a gradient that a few sequences made. OpenRLHF
        users saw them for hundreds of steps before a run collapsed (issue 931 there).

    Parameters and where the defaults come from:
        warning_spikes 3 in window_steps 100: rule R07 of the catalogue. At the default false_alarms_per_1000, chance alone gives that less
        than once in 10,000 steps. quiet_steps 100: as long as the window, so that spikes that keep coming are one finding. critical_kl is
        not used: it is never critical.

    What to do:
        Look at the sampled texts of the spikes' steps, clip the log-ratio or the reward, drop outlier sequences, or log the
        full-vocabulary KL in place of k3.

    Example finding:
        3 spikes of KL to reference (k3, nats/token) within 100 steps, at steps 120, 151 and 188.
    """

    code = "KLA202"
    name = "kl_spike"
    version = 1
    severities = (Severity.WARNING,)
    parameters_model = KLSpikeParameters

    def __init__(self, run: Run, *, parameters: KLSpikeParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self._jump: int | None = None
        self._spikes: deque[int] = deque()

    def reset(self) -> None:
        """See Rule."""
        super().reset()
        self._jump = None
        self._spikes.clear()

    def follow(self, observation: Observation) -> Iterator[Finding]:
        """See ChangeRule."""
        spiked = observation.jump_outcome is not None and observation.jump_outcome.kind == "spike" and self._jump is not None
        if spiked and self._jump is not None:
            self._spikes.append(self._jump)
        if observation.change is not None and observation.change.change.kind == "jump":
            self._jump = observation.step
        while self._spikes and self._spikes[0] <= observation.step - self.parameters.window_steps:
            self._spikes.popleft()
        judgement = self._judge() if spiked and len(self._spikes) >= self.parameters.warning_spikes else None
        finding = self.episode.observe(observation.record, judgement)
        if finding is not None:
            yield finding

    def _judge(self) -> Judgement:
        assert self.key is not None
        series = self.run.series[self.key]
        steps = list(self._spikes)
        latest = [str(step) for step in steps[-MOST_NAMED:]]
        named = f"s {', '.join(latest[:-1])} and {latest[-1]}" if len(latest) > 1 else f" {latest[0]}"
        counted = f"{len(steps)} spike{'s' if len(steps) > 1 else ''} of {series.label} within {self.parameters.window_steps} steps"
        instead = ", or log the full-vocabulary KL in place of k3" if series.estimator == "k3" else ""
        return Judgement(
            severity=Severity.WARNING,
            badness=len(steps),
            message=f"{counted}, {'the latest ' if len(steps) > MOST_NAMED else ''}at step{named}.",
            remedy=f"Look at the sampled texts of these steps; clip the log-ratio or the reward{instead}.",
            value=float(len(steps)),
            threshold=float(self.parameters.warning_spikes),
            unit="spikes",
            evidence={"steps": steps, "window_steps": self.parameters.window_steps},
            first_step=steps[0],
        )
