"""KLA701 rollout_mismatch."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.mismatch import LOGPROB_DIFFERENCES, MEAN_WEIGHTS, find_mismatch_series, includes_staleness, read_mismatch
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.persistence import Persistence
from klaudit.records import Finding, Run, Severity


class RolloutMismatchParameters(RuleParameters):
    """Parameters of KLA701."""

    warning_kl: float = Field(default=1e-3, gt=0, description="nats/token of rollout-mismatch KL above which a step counts")
    critical_kl: float = Field(default=1e-2, gt=0, description="nats/token above which a step counts as critical")
    stale_warning_kl: float = Field(default=0.015, gt=0, description="nats/token, where the engine's policy is older by design")
    stale_critical_kl: float = Field(default=0.1, gt=0, description="nats/token for critical, where the engine's policy is older by design")
    least_weight: float = Field(default=0.5, gt=0, lt=1, description="mean importance weight below which a step counts")
    most_weight: float = Field(default=2.0, gt=1, description="mean importance weight above which a step counts")
    most_weight_sd: float = Field(default=1.0, gt=0, description="standard deviation of importance weights above which a step counts")
    least_sample_share: float = Field(default=0.3, gt=0, lt=1, description="effective sample size, as a share, below which a step counts")
    most_chi2: float = Field(default=1.0, gt=0, description="chi-squared divergence per token above which a step counts")
    most_vetoed: float = Field(default=0.1, gt=0, lt=1, description="share of sequences vetoed above which a step counts as critical")
    most_error: float = Field(default=1.05, gt=1, description="NeMo-RL's token_mult_prob_error above which a step counts")
    most_difference: float = Field(default=0.05, gt=0, description="nats of mean |log-probability difference| above which a step counts")
    steps_needed: int = Field(default=3, ge=1, le=1000, description="steps that count, of the last steps_of, that make a finding")
    steps_of: int = Field(default=5, ge=1, le=1000, description="steps that steps_needed are counted in")
    quiet_steps: int = Field(default=5, ge=1, le=1_000_000, description="steps without a persistent mismatch that end an episode")


@dataclass(frozen=True, slots=True)
class Band:
    """Within which limits one number of a step may lie."""

    label: str
    unit: str
    most: float
    most_critical: float | None = None
    least: float | None = None
    is_critical: bool = False
    """Whether leaving the band is critical at once."""

    def measure(self, value: float) -> float:
        """How far outside, as a factor of the limit; at most 1 within the band."""
        if self.least is not None and value < self.least:
            return self.least / max(value, 1e-12)
        return value / self.most


@dataclass(slots=True)
class Watch:
    """One number of a step over time."""

    band: Band
    over: Persistence
    critical: Persistence
    recent: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=20))

    def observe(self, value: float, *, step: int) -> Severity | None:
        """How bad the last steps are, taken together."""
        self.recent.append((step, value))
        is_out = self.band.measure(value) > 1
        is_critical = is_out and (self.band.is_critical or (self.band.most_critical is not None and value > self.band.most_critical))
        persists, persists_critically = self.over.observe(is_out), self.critical.observe(is_critical)
        if not is_out or not persists:
            return None
        return Severity.CRITICAL if persists_critically else Severity.WARNING


class RolloutMismatch(Rule[RolloutMismatchParameters]):
    """The engine that samples and the trainer that scores are not the same policy.

    What it checks:
        The rollout-mismatch KL, and what trainers log beside it: mean, standard deviation and effective sample size of importance
        weights, chi-squared, the share of vetoed sequences (verl), token_mult_prob_error (NeMo-RL), mean absolute log-probability
        difference (TRL, slime, SkyRL). Numbers that are absent, NaN or infinite neither add to a persistence nor break it.

    Formula:
        warning: a number outside its limits at steps_needed of its last steps_of readings. critical: the KL over critical_kl, or the
        vetoed share over its limit, as often. Where the engine lags behind by design (AReaL, TRL's AsyncGRPO) the KL has every
        update since in it, and the limits are stale_warning_kl and stale_critical_kl.

    Why it matters:
        Sampled by one distribution and scored by another, every gradient is off-policy without anyone having chosen so. Low-probability
        tokens differ most, and collapses under vLLM begin there.

    Parameters and where the defaults come from:
        warning_kl 0.001: NeMo-RL's GRPO guide calls values below it acceptable; critical_kl is ten times that. least_weight 0.5,
        most_weight 2, most_weight_sd 1, least_sample_share 0.3, most_chi2 1 and most_vetoed 0.1: the health check of verl's rollout
        correction. most_error 1.05: NeMo-RL. most_difference 0.05: a judgement, healthy stacks show 0.01. stale_warning_kl 0.015 and
        stale_critical_kl 0.1 are the limits of KLA501. steps_needed 3 of steps_of 5: single steps with one bad token are routine.
        quiet_steps 5: as many as are looked at.

    What to do:
        Bring both sides to the same precision, temperature and template, synchronise the weights, correct by truncated importance
        sampling, and replay the routing of mixtures of experts.

    Example finding:
        rollout-mismatch KL was 0.0042 nats/token at step 61, above 0.001, on at least 3 of the last 5 steps.
    """

    code = "KLA701"
    name = "rollout_mismatch"
    version = 1
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = RolloutMismatchParameters

    def __init__(self, run: Run, *, parameters: RolloutMismatchParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.key = find_mismatch_series(run.series)
        self.kl_band = find_kl_band(parameters, is_stale=includes_staleness(run))
        self.bands = list_bands(parameters)
        self.needs = frozenset(self.bands) if self.key is None else None
        self.episode = self.start_episode(series=self.key, quiet_steps=parameters.quiet_steps)
        self.n_readings = 0
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self.watches: dict[str, Watch] = {}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        record = observation.record
        values = self._list_values(observation)
        if not values:
            return ()
        self.n_readings += 1
        watched = ((name, self._watch(name, value, step=record.step)) for name, value in values.items())
        out = [(name, severity) for name, severity in watched if severity is not None]
        if not out and not self.episode.is_open:
            return ()
        finding = self.episode.observe(record, self._judge(out, values=values, step=record.step) if out else None)
        return () if finding is None else (finding,)

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.n_readings:
            yield "no rollout-mismatch KL of known estimator and unit, and no metric of the mismatch"

    def _list_values(self, observation: Observation) -> dict[str, float]:
        values = {}
        if self.key is not None:
            kl = read_mismatch(observation.record, key=self.key, run=self.run)
            if kl is not None:
                values[self.key] = kl
        metrics = observation.record.metrics
        for name in self.bands:
            if name in metrics:
                number = observation.number(name)
                if number is not None:
                    values[name] = number
        return values

    def _watch(self, name: str, value: float, *, step: int) -> Severity | None:
        watch = self.watches.get(name)
        if watch is None:
            needed, of = min(self.parameters.steps_needed, self.parameters.steps_of), self.parameters.steps_of
            band = self.kl_band if name == self.key else self.bands[name]
            watch = self.watches[name] = Watch(band, Persistence(needed, of=of), Persistence(needed, of=of))
        return watch.observe(value, step=step)

    def _judge(self, out: list[tuple[str, Severity]], *, values: dict[str, float], step: int) -> Judgement:
        limits = self.parameters
        measured = {name: self.watches[name].band.measure(values[name]) for name, _ in out}
        name, severity = max(out, key=lambda one: (one[1].rank, measured[one[0]]))
        watch, value = self.watches[name], values[name]
        band = watch.band
        is_low = band.least is not None and value < band.least
        is_critical = severity == Severity.CRITICAL and band.most_critical is not None
        limit = band.least if is_low else band.most_critical if is_critical else band.most
        assert limit is not None
        others = [self.watches[other].band.label for other, _ in out if other != name]
        also = f"; so are {', '.join(others)}" if others else ""
        return Judgement(
            severity=severity,
            badness=measured[name],
            message=f"{band.label} was {value:.3g} {band.unit} at step {step}, {'below' if is_low else 'above'} {limit:g}, "
            f"on at least {limits.steps_needed} of the last {limits.steps_of} steps{also}.",
            remedy="Bring engine and trainer to the same precision, temperature and weights; correct by truncated importance sampling.",
            value=value,
            threshold=limit,
            unit=band.unit,
            evidence={
                "number": name,
                "also": [other for other, _ in out if other != name],
                "window": {"steps": [one for one, _ in watch.recent], "values": [one for _, one in watch.recent]},
                "limits": limits.model_dump(),
            },
            first_step=next(one for one, of_step in list(watch.recent)[-limits.steps_of :] if band.measure(of_step) > 1),
        )


def find_kl_band(limits: RolloutMismatchParameters, *, is_stale: bool) -> Band:
    """The limits of the mismatch KL."""
    most, critical = (limits.stale_warning_kl, limits.stale_critical_kl) if is_stale else (limits.warning_kl, limits.critical_kl)
    return Band("rollout-mismatch KL", "nats/token", most, most_critical=critical)


def list_bands(limits: RolloutMismatchParameters) -> dict[str, Band]:
    """The limits of what trainers log besides, by metric."""
    weight = Band("mean importance weight", "trainer over engine", limits.most_weight, least=limits.least_weight)
    difference = Band("mean |log-probability difference|", "nats/token", limits.most_difference)
    return {
        **dict.fromkeys(MEAN_WEIGHTS, weight),
        **dict.fromkeys(LOGPROB_DIFFERENCES, difference),
        "rollout_corr/rollout_is_std": Band("standard deviation of importance weights", "trainer over engine", limits.most_weight_sd),
        "rollout_corr/rollout_is_eff_sample_size": Band("effective sample size", "of 1", 1.0, least=limits.least_sample_share),
        "rollout_corr/chi2_token": Band("chi-squared divergence", "per token", limits.most_chi2),
        "rollout_corr/rollout_is_veto_fraction": Band("vetoed share", "of the sequences", limits.most_vetoed, is_critical=True),
        "token_mult_prob_error": Band("token_mult_prob_error", "as a factor", limits.most_error),
    }
