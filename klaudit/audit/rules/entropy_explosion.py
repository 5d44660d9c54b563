"""KLA604 entropy_explosion."""

from collections.abc import Sequence

from pydantic import Field

from klaudit.audit.departure_rule import DepartureParameters, DepartureRule
from klaudit.audit.episode import Judgement
from klaudit.detectors.departure import Departure, Excursion
from klaudit.records import Severity


class EntropyExplosionParameters(DepartureParameters):
    """Parameters of KLA604."""

    high: float = Field(default=1.5, gt=1, description="times the level before above which entropy is high, without unit")
    exploded: float = Field(default=2.0, gt=1, description="times the level before above which it has exploded, without unit")
    least_rise: float = Field(default=0.1, ge=0, description="nats/token by which entropy must have risen")
    rise_z: float = Field(default=4.5, gt=0, description="standard errors that a rise must exceed")
    rise_steps: int = Field(default=3, ge=1, le=1000, description="values in a row that make a fast rise")
    rising_t: float = Field(default=3.0, gt=0, description="slope of the window over its standard error from which entropy rises slowly")
    rising_steps: int = Field(default=20, ge=1, le=1000, description="values in a row that make a slow rise")


class EntropyExplosion(DepartureRule[EntropyExplosionParameters]):
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

    series = "entropy"
    needs = frozenset({series})
    absent = "no finite 'entropy' (nats per token) is logged"
    needed = "values of 'entropy' in one segment, and a start above 0 nats/token"

    def reset(self) -> None:
        """See Rule."""
        super().reset()
        self._n_rising = 0

    def list_excursions(self) -> Sequence[Excursion]:
        """See DepartureRule."""
        limits = self.parameters
        return (Excursion(factor=limits.high, z=limits.rise_z, steps=limits.rise_steps),)

    def judge_fast(self, departure: Departure, excursion: Excursion, *, before: float, step: int) -> Judgement | None:
        """See DepartureRule."""
        if before <= 0 or departure.level < before + self.parameters.least_rise:
            return None
        return self._tell(
            f"Entropy rose to {departure.level:.3g} nats/token at step {step}, {departure.level / before:.1f} times the {before:.3g} nats/token "
            "that the steps before led to expect",
            departure=departure,
            level=departure.level,
            before=before,
            first_step=int(excursion.since),
        )

    def judge_slow(self, departure: Departure, *, start: float, step: int) -> Judgement | None:
        """See DepartureRule."""
        limits, usual = self.parameters, departure.usual
        is_high = usual > limits.high * start and usual >= start + limits.least_rise and departure.t >= limits.rising_t
        is_high = is_high and self.watch.score_drift(departure) >= limits.rise_z
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
            evidence=self.describe(departure, before=before),
            first_step=first_step,
        )
