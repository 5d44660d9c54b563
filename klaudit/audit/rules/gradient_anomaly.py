"""KLA504 gradient_anomaly."""

from collections import deque
from collections.abc import Iterator, Sequence

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.persistence import Persistence
from klaudit.detectors.surge import Surge, SurgeDetector
from klaudit.records import PRIMARY, Finding, Run, Severity, StepRecord

GRAD_NORM = "grad_norm"
FLOOR = 1e-9
"""A norm of 0, of a batch without a signal, has no logarithm."""


class GradientAnomalyParameters(RuleParameters):
    """Parameters of KLA504."""

    surge_times: float = Field(default=5.0, gt=1, description="times the run's usual gradient norm that make a surge")
    surge_z: float = Field(default=6.0, gt=0, description="robust standard deviations of the log norm that make a surge")
    least_norm: float = Field(default=1.0, ge=0, description="a gradient norm at or below this is no surge, whatever was usual")
    sudden_times: float = Field(default=100.0, gt=1, description="times the usual at which one step is enough, without a second one")
    sudden_z: float = Field(default=12.0, gt=0, description="robust standard deviations of the log norm at which one step is enough")
    steps_needed: int = Field(default=2, ge=1, le=1000, description="surges, of the last steps_of, that make a finding")
    steps_of: int = Field(default=3, ge=1, le=1000, description="steps that steps_needed are counted in")
    window: int = Field(default=50, ge=5, le=10_000, description="norms whose median is the usual one")
    warm_up: int = Field(default=20, ge=5, le=10_000, description="norms before the first judgement")
    quiet_steps: int = Field(default=3, ge=1, le=1_000_000, description="quiet steps that end an episode")


class GradientAnomaly(Rule[GradientAnomalyParameters]):
    """The gradient breaks, or is far larger than the run's gradients are.

    What it checks:
        The metric `grad_norm`, the norm before clipping. A NaN or infinity counts only while every KL of the step is finite: then the
        gradient is where it began, and this finding says so beside KLA303, which lists all that is broken. Where the KL is broken
        too, the policy already was, and KLA303 is enough.

    Formula:
        critical: grad_norm NaN or infinite, every KL that the step has finite. surge: norm > least_norm, >= surge_times the median of
        the last window norms, >= twice their 90th percentile, (log norm - log median) / (1.4826 MAD of the logs, at least 0.25) >=
        surge_z. warning: steps_needed surges in steps_of steps, or one of sudden_times
        the usual and sudden_z.

    Why it matters:
        A NaN gradient makes every weight NaN with this very update, so the next sample is noise. A surge that clipping does not end
        within a step is the usual precursor.

    Parameters and where the defaults come from:
        surge_z 6: rule R30 of the catalogue. surge_times 5, and steps_needed 2 of steps_of 3: norms are log-normal with heavier tails,
        and single spikes are routine; three recorded verl runs that end well have them at up to 24 times the usual, so one spike alone
        warns from sudden_times 100 and sudden_z 12 only. least_norm 1 is what trainers clip at by default; batches without a reward
        signal have norms of 0.001 there, and those with one 0.6. window 50 and warm_up 20: enough for a spread that a few spikes do not
        move. On simulated log-normal norms (log sd 0.2 to 1, Student-t 5, drifting) below 0.1 false alarms per 1,000 steps; with an
        autocorrelation of 0.5 at log sd 1, 0.15. quiet_steps 3 is a convention.

    What to do:
        On a NaN, stop and go back to the last checkpoint; look at precision, at the loss of masked tokens and at the batch. On a surge,
        look at the batch's rewards and advantages, and clip gradients if they are not clipped.

    Example finding:
        grad_norm was 84.1 at step 212, 31.2 times the run's usual 2.7, on 2 of the last 3 steps.
    """

    code = "KLA504"
    name = "gradient_anomaly"
    version = 1
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = GradientAnomalyParameters
    needs = frozenset({GRAD_NORM})

    def __init__(self, run: Run, *, parameters: GradientAnomalyParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.broken = self.start_episode(series=GRAD_NORM, subject="non_finite", quiet_steps=parameters.quiet_steps)
        self.surges = self.start_episode(series=GRAD_NORM, quiet_steps=parameters.quiet_steps)
        self.detector = SurgeDetector(
            window=max(parameters.window, parameters.warm_up),
            warm_up=parameters.warm_up,
            floor=FLOOR,
            least_times=parameters.surge_times,
        )
        self.persistence = Persistence(min(parameters.steps_needed, parameters.steps_of), of=parameters.steps_of)
        self.most_norms = 0
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self.detector.clear()
        self.persistence.clear()
        self.recent: deque[tuple[int, float]] = deque(maxlen=20)
        self._n_norms = 0

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        record = observation.record
        norm = record.metrics.get(GRAD_NORM)
        if norm is None:
            return ()
        kind = observation.non_finite.get(GRAD_NORM)
        begins_here = kind is not None and not _has_broken_kl(observation)
        told: list[Finding | None] = []
        if begins_here or self.broken.is_open:
            told.append(self.broken.observe(record, self._judge_broken(kind, step=record.step) if begins_here and kind else None))
        if kind is None:
            told.append(self._observe_finite(record, norm))
        return [finding for finding in told if finding is not None] if any(told) else ()

    def _observe_finite(self, record: StepRecord, norm: float) -> Finding | None:
        self.recent.append((record.step, norm))
        judgement = self._judge(norm, surge=self.detector.observe(norm), step=record.step)
        self._n_norms += 1
        self.most_norms = max(self.most_norms, self._n_norms)
        return self.surges.observe(record, judgement)

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.most_norms:
            yield f"no finite metric {GRAD_NORM!r}"
        elif self.most_norms <= self.parameters.warm_up:
            yield f"a surge needs more than {self.parameters.warm_up} finite values of {GRAD_NORM!r} in one segment; the most was {self.most_norms}"

    def _judge(self, norm: float, *, surge: Surge | None, step: int) -> Judgement | None:
        limits = self.parameters
        is_surge = surge is not None and norm > limits.least_norm and surge.z >= limits.surge_z
        persists = self.persistence.observe(is_surge)
        is_sudden = surge is not None and surge.times >= limits.sudden_times and surge.z >= limits.sudden_z
        if surge is None or not is_surge or not (persists or is_sudden):
            return None
        how_often = f"on {limits.steps_needed} of the last {limits.steps_of} steps" if persists else "in one step"
        counted = list(self.recent)[-limits.steps_of :]
        first_step = next((one for one, value in counted if value >= limits.surge_times * surge.usual), step)
        return Judgement(
            severity=Severity.WARNING,
            badness=surge.times,
            message=f"{GRAD_NORM} was {norm:.3g} at step {step}, {surge.times:.3g} times the run's usual {surge.usual:.3g}, {how_often}.",
            remedy="Look at the batch's rewards and advantages; clip gradients if they are not clipped, and lower the learning rate if it goes on.",
            value=norm,
            threshold=limits.surge_times * surge.usual,
            unit="gradient norm",
            evidence=self._describe() | {"usual": surge.usual, "crest": surge.crest, "z": surge.z},
            first_step=first_step,
        )

    def _judge_broken(self, kind: str, *, step: int) -> Judgement:
        return Judgement(
            severity=Severity.CRITICAL,
            badness=0.0,
            message=f"{GRAD_NORM} is {kind} at step {step} while every KL of the step is finite: the gradient is where it began.",
            remedy="Stop and go back to the last checkpoint before this step; look at precision, masked tokens and the batch of this step.",
            unit="gradient norm",
            evidence=self._describe() | {GRAD_NORM: kind},
        )

    def _describe(self) -> dict[str, object]:
        window = {"steps": [step for step, _ in self.recent], GRAD_NORM: [norm for _, norm in self.recent]}
        return {"window": window, "limits": self.parameters.model_dump()}


def _has_broken_kl(observation: Observation) -> bool:
    readings = observation.record.readings
    return any(name == PRIMARY or name in readings for name in observation.non_finite)
