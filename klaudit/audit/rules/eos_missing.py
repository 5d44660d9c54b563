"""KLA606 eos_missing."""

from collections.abc import Iterator, Sequence

from pydantic import Field

from klaudit.audit.departure_rule import DepartureParameters, DepartureRule
from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.detectors.departure import Departure, Excursion
from klaudit.records import Severity

ENDED = "eos_fraction"
CUT = ("completions/clipped_ratio", "response_length/clip_ratio")
"""Share of texts that were cut at the length limit, as TRL's GRPO and verl log it."""


def find_ended_share(observation: Observation) -> float | None:
    """Share of the step's texts that ended by themselves; None where nothing tells, or what tells is no share."""
    share = observation.number(ENDED)
    if share is None:
        cut = next((one for name in CUT if (one := observation.number(name)) is not None), None)
        share = None if cut is None else 1 - cut
    return share if share is not None and 0 <= share <= 1 else None


class EosMissingParameters(DepartureParameters):
    """Parameters of KLA606."""

    fall: float = Field(default=0.5, gt=0, lt=1, description="times what was expected below which texts no longer end, without unit")
    fall_z: float = Field(default=4.5, gt=0, description="standard errors that a fall must exceed")
    fall_steps: int = Field(default=3, ge=1, le=1000, description="values in a row that make a fall")
    least_share: float = Field(
        default=0.1, ge=0, lt=1, description="share of texts that must have ended by themselves at the start for the rule to judge"
    )


class EosMissing(DepartureRule[EosMissingParameters]):
    """Sampled texts no longer end by themselves.

    What it checks:
        The share of a step's texts that ended with the end-of-sequence token: `eos_fraction`, else 1 - `completions/clipped_ratio`, else
        1 - `response_length/clip_ratio`. A run whose texts hardly ended by themselves from the start, as with sampling of fixed length, is
        not judged; the coverage says so.

    Formula:
        level = median of the last three values; e and s = what the line through `window` values, which ended `delay` values ago, leads to
        expect, and its standard error. Sudden: level < fall x e, and fall_z x s below it, fall_steps values in a row; it lasts while level
        < fall x the e of its beginning. Gradual: the window's mean < fall x median of the first baseline_steps values, and fall_z standard
        errors below it. Warning.

    Why it matters:
        A policy that has unlearnt to stop writes until it is cut. Rewards of cut texts mean little, and what PPO takes off a text without
        an end keeps it from learning anything else.

    Parameters and where the defaults come from:
        fall 0.5 and baseline_steps 10: rule R19 of the catalogue, from TRL's notes on PPO and the end-of-sequence token; half of 0.9 and
        half of all texts are the same in practice. least_share 0.1: below it half is a matter of one text in a batch of 16. window 30,
        delay 10, fall_z 4.5 and fall_steps 3 are those of KLA603; the standard error is the run's own, so that four texts a batch do not
        alarm by chance. quiet_steps 5 is a convention.

    What to do:
        Read how the sampled texts end. Check that the end-of-sequence token is in the training texts, is not masked from the loss and is
        not the padding token; raise the penalty on texts without an end, or the length limit.

    Example finding:
        12% of texts ended by themselves around step 48, where the steps before led to expect 81%.
    """

    code = "KLA606"
    name = "eos_missing"
    version = 1
    severities = (Severity.WARNING,)
    parameters_model = EosMissingParameters

    series = ENDED
    needs = frozenset({ENDED, *CUT})
    subjects = ("sudden", "gradual")
    in_logs = False
    absent = f"none of {', '.join((ENDED, *CUT))} is logged"
    needed = "values of the share of ended texts in one segment"

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        start = self.watch.start.level
        if not self.has_judged and start is not None and not self.is_start(start):
            yield f"only {start:.0%} of texts ended by themselves at the start, as where sampling has a fixed length"
        else:
            yield from super().explain_silence()

    def read(self, observation: Observation) -> float | None:
        """See DepartureRule."""
        return find_ended_share(observation)

    def is_start(self, level: float) -> bool:
        """See DepartureRule."""
        return level >= self.parameters.least_share

    def list_excursions(self) -> Sequence[Excursion]:
        """See DepartureRule."""
        limits = self.parameters
        return (Excursion(factor=limits.fall, z=limits.fall_z, steps=limits.fall_steps),)

    def judge_fast(self, departure: Departure, excursion: Excursion, *, before: float, step: int) -> Judgement | None:
        """See DepartureRule."""
        return self._tell(
            f"{departure.level:.0%} of texts ended by themselves around step {step}, where the steps before led to expect {before:.0%}.",
            departure=departure,
            level=departure.level,
            before=before,
            first_step=int(excursion.since),
        )

    def judge_slow(self, departure: Departure, *, start: float, step: int) -> Judgement | None:
        """See DepartureRule."""
        limits = self.parameters
        if departure.usual >= limits.fall * start or (self.fast.is_open and not self.slow.is_open):
            return None
        if self.watch.score_drift(departure) > -limits.fall_z:
            return None
        return self._tell(
            f"{departure.usual:.0%} of texts ended by themselves lately, up to step {step}; at the start it was {start:.0%}.",
            departure=departure,
            level=departure.usual,
            before=start,
        )

    def _tell(self, message: str, *, departure: Departure, level: float, before: float, first_step: int | None = None) -> Judgement:
        return Judgement(
            severity=Severity.WARNING,
            badness=1 - level / before,
            message=message,
            remedy="Read how the sampled texts end. Check that the end-of-sequence token is in the training texts, is not masked from the loss and is not the padding token; raise the penalty on texts without an end, or the length limit.",
            value=level,
            threshold=self.parameters.fall * before,
            unit="share of texts",
            evidence=self.describe(departure, before=before),
            first_step=first_step,
        )
