"""KLA503 clip_fraction_high."""

from collections import deque
from collections.abc import Iterator, Sequence

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.records import Finding, Run, Severity

CLIP_FRACTION = "clip_fraction"


class ClipFractionHighParameters(RuleParameters):
    """Parameters of KLA503."""

    warning_fraction: float = Field(default=0.3, ge=0, lt=1, description="share of tokens whose ratio is clipped, above which it counts")
    critical_fraction: float = Field(default=0.5, ge=0, lt=1, description="share of tokens above which it counts as critical")
    steps: int = Field(default=5, ge=1, le=1_000_000, description="steps above the limit in a row that make a finding")
    quiet_steps: int = Field(default=5, ge=1, le=1_000_000, description="steps back at or under the limit that end an episode")


class ClipFractionHigh(Rule[ClipFractionHighParameters]):
    """A large share of the tokens hits PPO's clip range, step after step.

    What it checks:
        The metric `clip_fraction`. A number that is absent, NaN or infinite neither breaks nor lengthens a row of steps.

    Formula:
        warning: clip_fraction > warning_fraction for `steps` steps in a row. critical: > critical_fraction for as many.

    Why it matters:
        A clipped token has no gradient. When a third of them are, updates are too large for the clip range, and the rest of
        the batch, which is not clipped on the side that hurts, decides where the policy goes.

    Parameters and where the defaults come from:
        warning_fraction 0.3, critical_fraction 0.5 and 5 steps: rule R13 of the catalogue, a judgement. On recorded runs of TRL's PPO
        the fraction is 0.01 to 0.13, of verl below 0.01, of the embedded PPO at most 0.16. A fraction of 0 throughout is what a
        batch gives that is used for one update only. quiet_steps 5: as many as it takes to say that it is back.

    What to do:
        Lower the learning rate or the number of epochs on a batch; widen the clip range only on purpose.

    Example finding:
        clip_fraction has been above 0.3 for 5 steps up to step 22, where it was 0.38 of the tokens.
    """

    code = "KLA503"
    name = "clip_fraction_high"
    version = 1
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = ClipFractionHighParameters
    needs = frozenset({CLIP_FRACTION})

    def __init__(self, run: Run, *, parameters: ClipFractionHighParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.episode = self.start_episode(series=CLIP_FRACTION, quiet_steps=parameters.quiet_steps)
        self.n_readings = 0
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self.recent: deque[tuple[int, float]] = deque(maxlen=max(20, self.parameters.steps))
        self._n_over = 0
        self._n_critical = 0
        self._first_step = 0

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        fraction = observation.number(CLIP_FRACTION)
        if fraction is None:
            return ()
        limits, record = self.parameters, observation.record
        self.n_readings += 1
        self.recent.append((record.step, fraction))
        is_over = fraction > limits.warning_fraction
        if is_over and not self._n_over:
            self._first_step = record.step
        self._n_over = self._n_over + 1 if is_over else 0
        self._n_critical = self._n_critical + 1 if fraction > limits.critical_fraction else 0
        if not is_over and not self.episode.is_open:
            return ()
        is_on = self._n_over >= limits.steps or (is_over and self.episode.is_open)
        finding = self.episode.observe(record, self._judge(fraction, step=record.step) if is_on else None)
        return () if finding is None else (finding,)

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.n_readings:
            yield f"no metric {CLIP_FRACTION!r}"

    def _judge(self, fraction: float, *, step: int) -> Judgement:
        limits = self.parameters
        is_critical = self._n_critical >= limits.steps
        limit, n_steps = (limits.critical_fraction, self._n_critical) if is_critical else (limits.warning_fraction, self._n_over)
        since = f"for {n_steps} steps up to step {step}" if n_steps > 1 else f"again at step {step}"
        return Judgement(
            severity=Severity.CRITICAL if is_critical else Severity.WARNING,
            badness=fraction,
            message=f"{CLIP_FRACTION} has been above {limit:g} {since}, where it was {fraction:.3g} of the tokens.",
            remedy="Lower the learning rate or the number of epochs on a batch.",
            value=fraction,
            threshold=limit,
            unit="share of tokens",
            evidence={
                "n_steps": n_steps,
                "window": {"steps": [one for one, _ in self.recent], CLIP_FRACTION: [value for _, value in self.recent]},
                "limits": limits.model_dump(),
            },
            first_step=self._first_step,
        )
