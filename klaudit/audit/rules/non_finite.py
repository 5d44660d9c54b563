"""KLA303 non_finite."""

from collections.abc import Iterator, Sequence

from pydantic import Field

from klaudit.audit.episode import Episode, Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.records import Finding, Severity, StepRecord


class NonFiniteParameters(RuleParameters):
    """Parameters of KLA303."""

    quiet_steps: int = Field(default=3, ge=1, le=1_000_000, description="steps without a non-finite number that end an episode")


class NonFinite(Rule[NonFiniteParameters]):
    """NaN or infinity in what a step logged.

    What it checks:
        Every KL reading, beta, the score and every metric of a step. One stretch of steps is one finding that lists the names,
        because one broken update usually turns many numbers into NaN at once. A value that is absent is not a NaN.

    Formula:
        x is NaN, +infinity or -infinity.

    Why it matters:
        A NaN in a KL or a gradient spreads to the weights with the next update, and every comparison with NaN is false:
        a budget or a threshold stays silent exactly when the run is lost. Change rules do not see these steps.

    Parameters and where the defaults come from:
        quiet_steps is a convention: three clean steps are enough to call the next NaN a new episode.

    What to do:
        Stop, go back to the last checkpoint before the first step of the finding, and look at the gradient norm, the precision
        (float16 overflow), and the log-probabilities of masked or padded tokens.

    Example finding:
        Non-finite numbers from step 31 to step 33, in kl (NaN) and grad_norm (Infinity).
    """

    code = "KLA303"
    name = "non_finite"
    version = 1
    severities = (Severity.CRITICAL,)
    parameters_model = NonFiniteParameters

    _episode: Episode | None = None
    _names: dict[str, str]
    _first_step = 0
    _n_steps = 0

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        record = observation.record
        broken = observation.non_finite
        if self._episode is None or not self._episode.is_open:
            if not broken:
                return ()
            self._begin(next(iter(broken)), step=record.step)
        assert self._episode is not None
        if broken:
            self._names |= {name: kind for name, kind in broken.items() if name not in self._names}
            self._n_steps += 1
        finding = self._episode.observe(record, self._judge(record) if broken else None)
        return () if finding is None else (finding,)

    def explain_silence(self) -> Iterator[str]:
        """See Rule; there is always something to look at."""
        yield from ()

    def _begin(self, series: str, *, step: int) -> None:
        self.episodes.clear()
        self._episode = self.start_episode(series=series, quiet_steps=self.parameters.quiet_steps)
        self._names = {}
        self._first_step = step
        self._n_steps = 0

    def _judge(self, record: StepRecord) -> Judgement:
        names = ", ".join(f"{name} ({kind})" for name, kind in self._names.items())
        at = f"at step {record.step}" if record.step == self._first_step else f"from step {self._first_step} to step {record.step}"
        return Judgement(
            severity=Severity.CRITICAL,
            badness=self._n_steps,
            message=f"Non-finite numbers {at}, in {names}.",
            remedy="Stop and go back to the last checkpoint before this step; look at gradient norm, precision and masked log-probabilities.",
            value=float(self._n_steps),
            threshold=0.0,
            unit="steps",
            evidence={"names": dict(self._names), "n_steps": self._n_steps, "last_broken_step": record.step},
        )
