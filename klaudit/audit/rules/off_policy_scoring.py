"""KLA704 off_policy_scoring."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.records import Finding, KLReading, Run, Severity
from klaudit.records.series import sort_keys


class OffPolicyScoringParameters(RuleParameters):
    """Parameters of KLA704."""

    limit: float = Field(default=8.0, gt=0, description="height of the cumulative sum of z that makes a finding")
    allowance: float = Field(default=1.25, ge=0, description="standard errors a step that are let pass before anything adds up")
    far_allowance: float = Field(
        default=3.0, ge=0, description="more of them downward, per nat/token of KL, for reference over policy: its mean reads low far away"
    )
    most_z: float = Field(default=4.0, gt=0, description="standard errors that one step counts for at most")
    least_ratio_excess: float = Field(default=0.02, ge=0, description="distance of the mean reference over policy from 1 that is material")
    least_gap: float = Field(default=0.05, ge=0, description="nats/token of mean surprisal over entropy that are material")
    most_kl: float = Field(default=0.3, gt=0, description="nats/token of KL up to which reference over policy is judged")
    quiet_steps: int = Field(default=5, ge=1, le=1_000_000, description="judged steps below the limit that end an episode")


@dataclass(frozen=True, slots=True)
class Check:
    """A mean over sampled tokens that is known where they come from the distribution that scores them."""

    label: str
    unit: str
    expected: float
    is_ratio: bool


RATIO = Check("mean reference over policy probability", "as a factor", 1.0, is_ratio=True)
METRICS: Mapping[str, Check] = MappingProxyType(
    {
        "reference_ratio": RATIO,
        "surprisal_gap": Check("mean surprisal less entropy", "nats/token", 0.0, is_ratio=False),
        "probe_mean_ratio": Check("mean reference over policy probability of the probe", "as a factor", 1.0, is_ratio=True),
    }
)
"""By metric; its standard error is logged under the name and `_se`."""
IN_READINGS = "k3 - k1"
RATIO_METRIC = "reference_ratio"
PROBE_SERIES = ("kl_probe_k1", "kl_probe_k3")
"""Of the live probe, which logs its own mean ratio."""


@dataclass(slots=True)
class Watch:
    """A two-sided cumulative sum of one check's clipped z."""

    up: float = 0.0
    down: float = 0.0
    up_began: int = 0
    """Step at which `up` last left 0."""
    down_began: int = 0
    recent: deque[tuple[int, float, float]] = field(default_factory=lambda: deque(maxlen=20))
    """(step, excess, standard error)."""

    def observe(self, excess: float, *, error: float, step: int, far: float, limits: OffPolicyScoringParameters) -> int:
        """Take in one step; the side whose sum is over the limit, -1 or 1, or 0.

        Args:
            far: what the allowance downward is larger by.
        """
        self.recent.append((step, excess, error))
        z = max(-limits.most_z, min(limits.most_z, excess / error))
        if not self.up:
            self.up_began = step
        if not self.down:
            self.down_began = step
        # Capped, so that what is over is over soon.
        self.up = min(2 * limits.limit, max(0.0, self.up + z - limits.allowance))
        self.down = min(2 * limits.limit, max(0.0, self.down - z - limits.allowance - far))
        if max(self.up, self.down) <= limits.limit:
            return 0
        return 1 if self.up > self.down else -1

    def began(self, side: int) -> int:
        """Step at which a side's sum last left 0."""
        return self.up_began if side > 0 else self.down_began

    def average(self, side: int) -> float:
        """Mean excess since a side's sum left 0, of the steps that are remembered."""
        excesses = [excess for step, excess, _ in self.recent if step >= self.began(side)]
        return sum(excess / len(excesses) for excess in excesses)


class OffPolicyScoring(Rule[OffPolicyScoringParameters]):
    """Tokens do not come from the distribution that scores them.

    What it checks:
        Means over sampled tokens that are known under honest sampling, with their standard errors: reference over policy, 1
        (reference_ratio of the embedded PPO, probe_mean_ratio of the live probe, or 1 + k3 - k1 where a run has both of the reference
        KL with standard errors); surprisal less entropy, 0 (surprisal_gap of the embedded PPO), which needs no drift to show.

    Formula:
        z = (mean - expected) / SE, cut off at most_z on both sides. Upward and downward, s = max(0, s + z - allowance). warning: s >
        limit while the mean excess since s left 0 is at least least_ratio_excess or least_gap. For reference over policy the
        allowance downward is larger by far_allowance x KL per token, and beyond most_kl nothing is judged.

    Why it matters:
        E[reference / policy] = 1 is what makes k1 and k3 estimates of the KL. Top-k, top-p, another temperature, a stale rollout or
        another chat template break it: the logged KL is then off by an amount that nobody knows, and so is the penalty.

    Parameters and where the defaults come from:
        Rule R23 of the catalogue asks for 3 standard errors; far from the reference that fires by itself, because rare tokens that the
        reference likes carry the mean, and a batch without them reads low, as does its standard error. So one step counts for most_z 4
        at most and allowance 1.25 is let pass: with limit 8 no single step is a finding, and three are the least. In simulated language
        models at up to 0.25 nats/token the mean z of honest sampling is 0 to -0.7 for the ratio, which far_allowance 3 follows, -0.8 to
        -1.5 at 0.5, which most_kl 0.3 leaves out, and within 0.2 for the gap; top-20 sampling gives -9 for the gap with 12 sequences.
        Below 0.1 false alarms per 1,000 steps on simulated z. least_ratio_excess 0.02 and least_gap 0.05: less bias than that is less
        than the noise of the KL itself. quiet_steps 5 is a convention.

    What to do:
        Compare temperature, top_k, top_p and chat template of sampling and scoring, and whether the engine has the current weights.

    Example finding:
        mean surprisal less entropy was -0.81 nats/token on average from step 21 to step 23, where honest sampling has 0: tokens do not come from the distribution that scores them.
    """

    code = "KLA704"
    name = "off_policy_scoring"
    version = 1
    severities = (Severity.WARNING,)
    parameters_model = OffPolicyScoringParameters

    def __init__(self, run: Run, *, parameters: OffPolicyScoringParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.pair = find_pair(run)
        self.needs = frozenset(METRICS) if self.pair is None else None
        names = (*METRICS, *(() if self.pair is None else (IN_READINGS,)))
        self.episodes_by_name = {name: self.start_episode(series=name, quiet_steps=parameters.quiet_steps) for name in names}
        self.n_judged = 0
        self.n_far = 0
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self.watches: dict[str, Watch] = {}

    def observe(self, observation: Observation) -> Iterator[Finding]:
        """See Rule."""
        metrics = observation.record.metrics
        for name, check in METRICS.items():
            if name in metrics:
                value, error = observation.number(name), observation.number(f"{name}_se")
                if value is not None and error is not None and error > 0:
                    yield from self._check(name, check, value - check.expected, error=error, observation=observation)
        if self.pair is not None and RATIO_METRIC not in metrics:
            excess = read_pair(observation, pair=self.pair)
            if excess is not None:
                yield from self._check(IN_READINGS, RATIO, excess[0], error=excess[1], observation=observation)

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if self.n_far:
            yield f"on {self.n_far} readings the KL was unknown or over {self.parameters.most_kl:g} nats/token, where reference over policy is not judged"
        elif not self.n_judged:
            yield "no reference over policy and no surprisal gap with a standard error, and no k1 and k3 of the reference KL that have both"

    def _check(self, name: str, check: Check, excess: float, *, error: float, observation: Observation) -> Iterator[Finding]:
        limits, far = self.parameters, 0.0
        if check.is_ratio:
            kl = find_kl_per_token(observation)
            if kl is None or kl > limits.most_kl:
                self.n_far += 1
                return
            far = limits.far_allowance * max(kl, 0.0)
        self.n_judged += 1
        watch = self.watches.get(name)
        if watch is None:
            watch = self.watches[name] = Watch()
        side = watch.observe(excess, error=error, step=observation.step, far=far, limits=limits)
        episode = self.episodes_by_name[name]
        if not side and not episode.is_open:
            return
        least = limits.least_ratio_excess if check.is_ratio else limits.least_gap
        is_on = side != 0 and side * watch.average(side) >= least
        finding = episode.observe(observation.record, self._judge(name, check, watch, side=side, least=least) if is_on else None)
        if finding is not None:
            yield finding

    def _judge(self, name: str, check: Check, watch: Watch, *, side: int, least: float) -> Judgement:
        mean = watch.average(side)
        first, last = watch.began(side), watch.recent[-1][0]
        return Judgement(
            severity=Severity.WARNING,
            badness=abs(mean),
            message=f"{check.label} was {check.expected + mean:.3g} {check.unit} on average from step {first} to step {last}, where honest "
            f"sampling has {check.expected:g}: tokens do not come from the distribution that scores them.",
            remedy="Compare temperature, top_k, top_p, chat template and weights of sampling and scoring.",
            value=check.expected + mean,
            threshold=check.expected + side * least,
            unit=check.unit,
            evidence={
                "check": name,
                "expected": check.expected,
                "sum": watch.up if side > 0 else watch.down,
                "window": {
                    "steps": [step for step, _, _ in watch.recent],
                    "excess": [excess for _, excess, _ in watch.recent],
                    "standard_error": [error for _, _, error in watch.recent],
                },
                "limits": self.parameters.model_dump(),
            },
            first_step=first,
        )


def find_pair(run: Run) -> tuple[str, str] | None:
    """Keys of k1 and k3 of the same reference KL, in the same unit and from the same trainer; None where a run has not both."""
    by_estimator: dict[str, list[str]] = {"k1": [], "k3": []}
    for key in sort_keys(run.series):
        one = run.series[key]
        is_of_trainer = one.kind == "reference" and one.direction == "reverse" and one.unit != "unknown" and key not in PROBE_SERIES
        if is_of_trainer and one.estimator in by_estimator:
            by_estimator[one.estimator].append(key)
    pairs = ((k1, k3) for k1 in by_estimator["k1"] for k3 in by_estimator["k3"])
    return next((pair for pair in pairs if run.series[pair[0]].unit == run.series[pair[1]].unit), None)


def read_pair(observation: Observation, *, pair: tuple[str, str]) -> tuple[float, float] | None:
    """Mean of reference over policy less 1, per token, and a bound on its standard error: that of k1 plus that of k3."""
    k1, k3 = (observation.record.reading(key) for key in pair)
    if k1 is None or k3 is None or not (k1.is_finite and k3.is_finite) or k1.standard_error is None or k3.standard_error is None:
        return None
    assert k1.value is not None
    assert k3.value is not None
    length = 1.0 if k1.series.unit == "nats_per_token" else _find_length(k1, observation)
    error = k1.standard_error + k3.standard_error
    if length is None:
        return None
    excess, error = (k3.value - k1.value) / length, error / length
    return (excess, error) if error > 0 and math.isfinite(excess) and math.isfinite(error) else None


def find_kl_per_token(observation: Observation) -> float | None:
    """The governing KL in nats per token; None where it is unknown."""
    governing = observation.governing
    if governing is None or not governing.is_finite:
        return None
    if governing.series.unit == "nats_per_token":
        return governing.value
    assert governing.value is not None
    return governing.value / governing.mean_length if governing.mean_length else None


def _find_length(reading: KLReading, observation: Observation) -> float | None:
    governing = observation.governing
    return reading.mean_length or (None if governing is None else governing.mean_length)
