"""KLA604 entropy_explosion."""

from collections.abc import Iterator

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.baseline import FirstValues
from klaudit.detectors.departure import Departure, DepartureDetector, Excursion
from klaudit.records import Finding, Run, Severity


class EntropyExplosionParameters(RuleParameters):
    """Parameters of KLA604."""

    window: int = Field(default=30, ge=10, le=1000, description="values that tell what to expect")
    delay: int = Field(default=10, ge=3, le=1000, description="values between that window and now, so that a rise does not hide itself")
    baseline_steps: int = Field(default=10, ge=3, le=1000, description="first values of a segment, whose median is where it started")
    high: float = Field(default=1.5, gt=1, description="times the level before above which entropy is high, without unit")
    exploded: float = Field(default=2.0, gt=1, description="times the level before above which it has exploded, without unit")
    least_rise: float = Field(default=0.1, ge=0, description="nats/token by which entropy must have risen")
    rise_z: float = Field(default=4.5, gt=0, description="standard errors that a rise must exceed")
    rise_steps: int = Field(default=3, ge=1, le=1000, description="values in a row that make a fast rise")
    rising_t: float = Field(default=3.0, gt=0, description="slope of the window over its standard error from which entropy rises slowly")
    rising_steps: int = Field(default=20, ge=1, le=1000, description="values in a row that make a slow rise")
    quiet_steps: int = Field(default=5, ge=1, le=1_000_000, description="values back down, or no longer rising, that end an episode")


class EntropyExplosion(Rule[EntropyExplosionParameters]):
    """The policy's entropy explodes: it writes at random.

    What it checks:
        `entropy`, in nats per token, against what the run itself had: a rise within some ten steps against the steps before it, a slow one
        against the segment's start. `entropy_per_sequence`, which moves with the length too, is not judged.

    Formula:
        level = median of the last three values; e and s = what the line through ln(entropy) of `window` values, which ended `delay` values
        ago, leads to expect, and its standard error. Fast: level > high x e, and rise_z x s above it, rise_steps values in a row; it lasts
        while level > high x the e of its beginning. Slow: the window's mean > high x median of the first baseline_steps values, rise_z
        standard errors above it, and its slope at least rising_t standard errors, rising_steps values in a row. Both need a rise by least_rise. Warning; critical where
        what was compared is above exploded x the level before.

    Why it matters:
        A rising entropy without end is a policy that dissolves: an entropy bonus that pays better than the reward, or updates that tear up
        the language. Gibberish follows, and the KL after it.

    Parameters and where the defaults come from:
        baseline_steps 10, high 1.5, exploded 2 and rising_steps 20: rule R15 of the catalogue, from verl's reports on an entropy
        coefficient of 0.001 and TRL's on gibberish. rising_t 3 is the usual three standard errors. least_rise 0.1: from 0.04 to 0.08 nats is
        twice as much and still nearly deterministic. window 30, delay 10, rise_z 4.5, rise_steps 3 are those of KLA603, held by simulation
        in tests/audit/rules. quiet_steps 5 is a convention. Entropy that has risen and stays where it is ends a slow episode.

    What to do:
        Read the sampled texts. Lower the entropy coefficient or the learning rate, or raise beta; if the texts are gibberish, go back to the
        last checkpoint before the rise.

    Example finding:
        Entropy rose to 3.9 nats/token at step 61, 2.2 times the 1.8 nats/token that the steps before led to expect.
    """

    code = "KLA604"
    name = "entropy_explosion"
    version = 1
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = EntropyExplosionParameters

    def __init__(self, run: Run, *, parameters: EntropyExplosionParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.fast = self.start_episode(series="entropy", subject="fast", quiet_steps=parameters.quiet_steps)
        self.slow = self.start_episode(series="entropy", subject="slow", quiet_steps=parameters.quiet_steps)
        self.n_values = 0
        self.n_judged = 0
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        limits = self.parameters
        self.detector = DepartureDetector(window=limits.window, delay=limits.delay)
        self.excursion = Excursion(factor=limits.high, z=limits.rise_z, steps=limits.rise_steps)
        self.start = FirstValues(limits.baseline_steps)
        self._n_rising = 0

    def observe(self, observation: Observation) -> Iterator[Finding]:
        """See Rule."""
        value = observation.number("entropy")
        if value is None:
            return
        self.n_values += 1
        self.start.observe(value)
        departure = self.detector.observe(value, position=observation.step)
        if departure is None or not self.start.level or self.start.level < 0:
            return
        self.n_judged += 1
        record = observation.record
        for episode, judgement in (
            (self.fast, self._judge_fast(departure, step=record.step)),
            (self.slow, self._judge_slow(departure, step=record.step)),
        ):
            finding = episode.observe(record, judgement)
            if finding is not None:
                yield finding

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.n_values:
            yield "no finite 'entropy' (nats per token) is logged"
        elif not self.n_judged:
            yield f"needs {self.parameters.delay + 10} values of 'entropy' in one segment, and a start above 0 nats/token"

    def _judge_fast(self, departure: Departure, *, step: int) -> Judgement | None:
        if not self.excursion.observe(departure, position=step):
            return None
        before = self.excursion.before or 0.0
        if before <= 0 or departure.level < before + self.parameters.least_rise:
            return None
        return self._tell(
            f"Entropy rose to {departure.level:.3g} nats/token at step {step}, {departure.level / before:.1f} times the {before:.3g} nats/token "
            "that the steps before led to expect",
            departure=departure,
            level=departure.level,
            before=before,
            first_step=int(self.excursion.since),
        )

    def _judge_slow(self, departure: Departure, *, step: int) -> Judgement | None:
        limits, start, usual = self.parameters, self.start.level, departure.usual
        assert start is not None
        is_high = usual > limits.high * start and usual >= start + limits.least_rise and departure.t >= limits.rising_t
        is_high = is_high and self.detector.score_drift(departure, start=start, n=limits.baseline_steps) >= limits.rise_z
        self._n_rising = self._n_rising + 1 if is_high else 0
        if self._n_rising < limits.rising_steps or (self.fast.is_open and not self.slow.is_open):
            return None
        return self._tell(
            f"Entropy rises slowly: around {usual:.3g} nats/token up to step {step}, {usual / start:.1f} times the {start:.3g} nats/token "
            "that it started with",
            departure=departure,
            level=usual,
            before=start,
        )

    def _tell(self, text: str, *, departure: Departure, level: float, before: float, first_step: int | None = None) -> Judgement:
        limits = self.parameters
        is_critical = level > limits.exploded * before
        return Judgement(
            severity=Severity.CRITICAL if is_critical else Severity.WARNING,
            badness=level / before,
            message=f"{text}.",
            remedy="Read the sampled texts of these steps. Lower the entropy coefficient or the learning rate, or raise beta; if the texts are gibberish, go back to the last checkpoint before the rise.",
            value=level,
            threshold=(limits.exploded if is_critical else limits.high) * before,
            unit="nats_per_token",
            evidence={
                "level": departure.level,
                "before": before,
                "expected": departure.expected,
                "start": self.start.level,
                "z": departure.z,
                "window": self.detector.list_values(),
                "limits": limits.model_dump(),
            },
            first_step=first_step,
        )
