"""KLA603 entropy_collapse."""

from collections import deque
from collections.abc import Iterator, Sequence

from pydantic import Field

from klaudit.audit.departure_rule import DepartureParameters, DepartureRule
from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.detectors.baseline import FirstValues, find_median
from klaudit.detectors.departure import Departure, Excursion
from klaudit.records import Run, Severity

REMEDY = (
    "Read the sampled texts of these steps. Raise the entropy bonus, the sampling temperature or the upper clip bound, lower the learning rate, "
    "or raise beta; if the texts have become one text, go back to the last checkpoint before the fall."
)

LATEST = 5
"""Values of distinct_2 whose median is its level."""


class EntropyCollapseParameters(DepartureParameters):
    """Parameters of KLA603."""

    fall: float = Field(
        default=0.5, gt=0, lt=1, description="share of what the window led to expect below which entropy has fallen fast, without unit"
    )
    fall_z: float = Field(default=4.5, gt=0, description="standard errors that a fall must exceed")
    fall_steps: int = Field(default=3, ge=1, le=1000, description="values in a row that make a fall")
    low: float = Field(default=0.5, gt=0, lt=1, description="share of the start below which entropy is low, without unit")
    collapsed: float = Field(
        default=0.2, gt=0, lt=1, description="share of the level before below which entropy has collapsed, without unit"
    )
    collapsed_nats: float = Field(
        default=0.1, ge=0, description="nats/token below which it has collapsed too, if it was at least twice that before"
    )
    repetition: float = Field(
        default=0.5, gt=0, lt=1, description="share of its start below which distinct_2 says that texts repeat themselves, without unit"
    )


class EntropyCollapse(DepartureRule[EntropyCollapseParameters]):
    """The policy's entropy collapses: it always writes the same.

    What it checks:
        `entropy`, in nats per token, against what the run itself had: a fall within some ten steps against the steps before it, a slow one
        against the segment's start. `distinct_2`, the share of different bigrams, is the witness of repetition.
        `entropy_per_sequence`, which moves with the length too, is not judged.

    Formula:
        level = median of the last three values; e and s = what the line through ln(entropy) of `window` values, which ended `delay` values
        ago, leads to expect, and its standard error. Fall: level < fall x e, and fall_z x s below it, fall_steps values in a row; it lasts
        while level < fall x the e of its beginning. Warning; critical where level < collapsed x that e, where level < collapsed_nats and
        e was twice that, or with repetition. Low: the window's mean < low x median of the first baseline_steps values, and fall_z standard
        errors below it. Info; with
        repetition (distinct_2 < repetition x its own start) warning, as soon as the level is low; critical where it has collapsed. What one
        of the two has begun to tell, the other does not begin to tell again.

    Why it matters:
        A policy without entropy explores nothing: the samples of a group are the same text, advantages vanish, and what has been learnt
        is often one answer that the reward likes. It cannot be trained out of it.

    Parameters and where the defaults come from:
        baseline_steps 10, low 0.5, collapsed 0.2 and collapsed_nats 0.1: rule R14 of the catalogue; TRL's notes on GRPO call 0.2
        "near-complete collapse". A run that starts at 0.05 to 0.3 nats, as GRPO on mathematics does, is judged by its own level alone.
        A slow fall is info, however deep, unless texts repeat themselves: entropy of verl's PPO runs of Qwen2.5-0.5B on GSM8K fell to 11% over
        400 steps while the score rose from 0.01 to 0.7. fall 0.5 is R14's too: on those runs, as the score rose fastest, entropy fell to
        0.58 of what was expected. window 30, delay 10, fall_z 4.5, fall_steps 3: by simulation (tests/audit/rules), at least 95% of falls
        to 10 to 30% within 10 to 20 steps are found within 20, half of them within 12, with noise of 1 to 10%, and healthy runs
        give less than 0.1 warnings per 1,000 steps. repetition 0.5: beta 0.0001 in the sample
        runs takes distinct_2 from 0.97 to 0.15; healthy ones stay above 0.9. quiet_steps 5 is a convention.

    What to do:
        Read the sampled texts. Raise the entropy bonus, the temperature or the upper clip bound, or lower the learning rate; if the texts
        have become one text, go back to the last checkpoint before the fall.

    Example finding:
        Entropy fell to 0.61 nats/token at step 44, 29% of the 2.1 nats/token that the steps before led to expect. Texts repeat themselves: distinct_2 is 0.38, and was 0.95 at the start.
    """

    code = "KLA603"
    name = "entropy_collapse"
    version = 1
    severities = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)
    parameters_model = EntropyCollapseParameters

    series = "entropy"
    needs = frozenset({series})
    subjects = ("fall", "low")
    absent = "no finite 'entropy' (nats per token) is logged"
    needed = "values of 'entropy' in one segment, and a start above 0 nats/token"

    def __init__(self, run: Run, *, parameters: EntropyCollapseParameters, budgets: object = ()) -> None:
        self.has_distinct = False
        super().__init__(run, parameters=parameters)

    def reset(self) -> None:
        """See Rule."""
        super().reset()
        self.distinct_start = FirstValues(self.parameters.baseline_steps)
        self.distinct: deque[float] = deque(maxlen=LATEST)

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        yield from super().explain_silence()
        if self.has_judged and not self.has_distinct:
            yield "no 'distinct_2' is logged, so a slow fall of entropy is info, never a warning"

    def list_excursions(self) -> Sequence[Excursion]:
        """See DepartureRule."""
        limits = self.parameters
        return (Excursion(factor=limits.fall, z=limits.fall_z, steps=limits.fall_steps),)

    def watch_witnesses(self, observation: Observation, value: float) -> None:
        """See DepartureRule."""
        distinct = observation.number("distinct_2")
        if distinct is not None:
            self.has_distinct = True
            self.distinct_start.observe(distinct)
            self.distinct.append(distinct)

    def _find_distinct(self) -> float | None:
        """The level of distinct_2."""
        return find_median(list(self.distinct)) if self.distinct else None

    def _find_repetition(self) -> tuple[float, float] | None:
        """Level and start of distinct_2, where texts repeat themselves."""
        start, level = self.distinct_start.level, self._find_distinct()
        if start is None or level is None or level >= self.parameters.repetition * start:
            return None
        return level, start

    def _has_collapsed(self, level: float, *, before: float) -> bool:
        limits = self.parameters
        return level < limits.collapsed * before or level < limits.collapsed_nats <= before / 2

    def _is_low(self, departure: Departure, *, start: float) -> bool:
        limits = self.parameters
        if departure.usual >= limits.low * start:
            return False
        return self.watch.score_drift(departure) <= -limits.fall_z

    def judge_fast(self, departure: Departure, excursion: Excursion, *, before: float, step: int) -> Judgement | None:
        """See DepartureRule."""
        repetition = self._find_repetition()
        if repetition is not None and self.slow.is_open and not self.fast.is_open:
            return None
        is_critical = repetition is not None or self._has_collapsed(departure.level, before=before)
        return self._tell(
            Severity.CRITICAL if is_critical else Severity.WARNING,
            f"Entropy fell to {departure.level:.3g} nats/token at step {step}, {departure.level / before:.0%} of the {before:.3g} nats/token "
            "that the steps before led to expect",
            departure=departure,
            before=before,
            share=self.parameters.fall,
            repetition=repetition,
            first_step=int(excursion.since),
        )

    def judge_slow(self, departure: Departure, *, start: float, step: int) -> Judgement | None:
        """See DepartureRule."""
        limit = self.parameters.low
        repetition = self._find_repetition() if departure.level < limit * start else None
        if repetition is None and not self._is_low(departure, start=start):
            return None
        if self.fast.is_open and not self.slow.is_open:
            return None
        severity = Severity.INFO
        if repetition is not None:
            severity = Severity.CRITICAL if self._has_collapsed(departure.level, before=start) else Severity.WARNING
        return self._tell(
            severity,
            f"Entropy is at {departure.level:.3g} nats/token at step {step}, {departure.level / start:.0%} of the {start:.3g} nats/token "
            "that it started with",
            departure=departure,
            before=start,
            share=limit,
            repetition=repetition,
        )

    def _tell(
        self,
        severity: Severity,
        text: str,
        *,
        departure: Departure,
        before: float,
        share: float,
        repetition: tuple[float, float] | None,
        first_step: int | None = None,
    ) -> Judgement:
        if repetition is not None:
            text += f". Texts repeat themselves: distinct_2 is {repetition[0]:.2g}, and was {repetition[1]:.2g} at the start"
        return Judgement(
            severity=severity,
            badness=before / max(departure.level, 1e-9),
            message=f"{text}.",
            remedy=REMEDY,
            value=departure.level,
            threshold=share * before,
            unit="nats_per_token",
            evidence=self.describe(
                departure, before=before, distinct_2={"level": self._find_distinct(), "start": self.distinct_start.level}
            ),
            first_step=first_step,
        )
