"""KLA605 length_drift."""

import math
from collections import deque
from collections.abc import Sequence

from pydantic import Field

from klaudit.audit.departure_rule import DepartureParameters, DepartureRule
from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rules.eos_missing import find_ended_share
from klaudit.detectors.baseline import FirstValues, find_median
from klaudit.detectors.departure import Departure, Excursion
from klaudit.records import Severity

REMEDIES = {
    True: "Read the longest sampled texts and compare their scores with those of short ones. Penalise length, score texts that were cut as failed, or raise beta; check that the end-of-sequence token is learnt.",
    False: "Read the sampled texts: short ones may be refusals, or answers that skip the reasoning and still score. Check the reward on them, and that the end-of-sequence token is not rewarded by itself.",
}
LATEST = 5
"""Shares of ended texts whose median is their level."""


class LengthDriftParameters(DepartureParameters):
    """Parameters of KLA605."""

    longer: float = Field(default=1.5, gt=1, description="times the length before above which texts have grown, without unit")
    shorter: float = Field(default=0.5, gt=0, lt=1, description="times the length before below which texts have shrunk, without unit")
    critical_times: float = Field(default=3.0, gt=1, description="times longer or shorter than before from which a fast change is critical")
    change_z: float = Field(default=3.5, gt=0, description="standard errors that a change must exceed")
    change_steps: int = Field(default=3, ge=1, le=1000, description="values in a row that make a fast change")
    more_cut: float = Field(default=0.3, gt=0, lt=1, description="by how much the share of texts that are cut must have grown to be told")
    correlation: float = Field(default=0.7, gt=0, lt=1, description="correlation of score and length over the window from which it is told")


class LengthDrift(DepartureRule[LengthDriftParameters]):
    """Sampled texts become much longer or shorter.

    What it checks:
        `response_length`, the mean tokens of a step's texts, against what the run itself had: a change within some ten steps against the
        steps before it, a slow one against the segment's start. Told with it: the share of texts that are cut (from `eos_fraction`,
        `completions/clipped_ratio` or `response_length/clip_ratio`), and how score and length go together.

    Formula:
        level = median of the last three values; e and s = what the line through ln(length) of `window` values, which ended `delay` values
        ago, leads to expect, and its standard error. Fast: level > longer x e or < shorter x e, and change_z x s off it, change_steps
        values in a row; it lasts while level is as far off the e of its beginning. Warning; critical from critical_times longer or
        shorter. Slow: the window's mean > longer or < shorter x median of the first baseline_steps values, and change_z standard errors off
        it. Info; warning where texts have grown and the share of cut ones has too, by more_cut since the start.

    Why it matters:
        Length is what a reward model most easily mistakes for quality, and what an answer without reasoning saves. A sudden change says
        that the policy has found either; the KL per sequence moves with it.

    Parameters and where the defaults come from:
        longer 1.5, shorter 0.5, more_cut 0.3 and correlation 0.7: rule R18 of the catalogue, from reports on OpenRLHF and TRL.
        critical_times 3 and baseline_steps 10 are of that rule too. Slow growth is info because reasoning runs lengthen their texts manifold
        over hundreds of steps, and rightly so. window 30, delay 10, change_z 3.5 and change_steps 3: by simulation (tests/audit/rules)
        at least 95% of doublings or more within 10 to 20 steps are found within 20, half of them within 12, with noise of 2 to 30%, and
        healthy runs give less than 0.1 warnings per 1,000 steps. The standard error is the run's own: the mean of four texts varies
        by half of it from step to step. quiet_steps 5 is a convention.

    What to do:
        Read the longest and shortest sampled texts, and compare their scores. Penalise length, or score cut texts as failed; raise beta.

    Example finding:
        Texts grew to 412 tokens at step 57, 2.3 times the 180 tokens that the steps before led to expect. Score and length go together: correlation 0.84 over the last 40 steps.
    """

    code = "KLA605"
    name = "length_drift"
    version = 1
    severities = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)
    parameters_model = LengthDriftParameters

    series = "response_length"
    needs = frozenset({series})
    absent = "no finite 'response_length' (tokens) is logged"
    needed = "values of 'response_length' in one segment, and a start above 0 tokens"

    def reset(self) -> None:
        """See Rule."""
        super().reset()
        limits = self.parameters
        self.ended_start = FirstValues(limits.baseline_steps)
        self.ended: deque[float] = deque(maxlen=LATEST)
        self.pairs: deque[tuple[float, float]] = deque(maxlen=limits.window + limits.delay)

    def list_excursions(self) -> Sequence[Excursion]:
        """See DepartureRule."""
        limits = self.parameters
        return [Excursion(factor=one, z=limits.change_z, steps=limits.change_steps) for one in (limits.longer, limits.shorter)]

    def watch_witnesses(self, observation: Observation, value: float) -> None:
        """See DepartureRule."""
        ended, score = find_ended_share(observation), observation.number("score")
        if ended is not None:
            self.ended_start.observe(ended)
            self.ended.append(ended)
        if score is not None:
            self.pairs.append((score, value))

    def _find_more_cut(self) -> float | None:
        """By how much the share of cut texts has grown since the start, where that is much."""
        start = self.ended_start.level
        more_cut = 0.0 if start is None else start - find_median(list(self.ended))
        return more_cut if more_cut > self.parameters.more_cut else None

    def judge_fast(self, departure: Departure, excursion: Excursion, *, before: float, step: int) -> Judgement | None:
        """See DepartureRule."""
        if not before:
            return None
        times = self.parameters.critical_times
        is_critical = not before / times <= departure.level <= before * times
        return self._tell(
            Severity.CRITICAL if is_critical else Severity.WARNING,
            f"Texts {'grew' if excursion.factor > 1 else 'shrank'} to {departure.level:.3g} tokens at step {step}, "
            f"{departure.level / before:.2g} times the {before:.3g} tokens that the steps before led to expect",
            departure=departure,
            level=departure.level,
            before=before,
            first_step=int(excursion.since),
        )

    def judge_slow(self, departure: Departure, *, start: float, step: int) -> Judgement | None:
        """See DepartureRule."""
        limits, usual = self.parameters, departure.usual
        if limits.shorter * start <= usual <= limits.longer * start or (self.fast.is_open and not self.slow.is_open):
            return None
        if abs(self.watch.score_drift(departure)) < limits.change_z:
            return None
        return self._tell(
            Severity.INFO if usual < start or self._find_more_cut() is None else Severity.WARNING,
            f"Texts have slowly come to {usual:.3g} tokens by step {step}, {usual / start:.2g} times the {start:.3g} tokens of the start",
            departure=departure,
            level=usual,
            before=start,
        )

    def _tell(
        self, severity: Severity, text: str, *, departure: Departure, level: float, before: float, first_step: int | None = None
    ) -> Judgement:
        limits = self.parameters
        more_cut, correlation = self._find_more_cut(), correlate(self.pairs)
        if more_cut is not None:
            text += f". {more_cut:.0%} more of them than at the start are cut at the limit"
        if correlation is not None and correlation > limits.correlation:
            text += f". Score and length go together: correlation {correlation:.2f} over the last {len(self.pairs)} steps"
        grew = level > before
        return Judgement(
            severity=severity,
            badness=abs(math.log(max(level, 1e-4) / before)),
            message=f"{text}.",
            remedy=REMEDIES[grew],
            value=level,
            threshold=(limits.longer if grew else limits.shorter) * before,
            unit="tokens",
            evidence=self.describe(departure, before=before, more_cut=more_cut, correlation=correlation),
            first_step=first_step,
        )


def correlate(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Pearson correlation of ten pairs or more; None for fewer, and where either does not vary."""
    n = len(pairs)
    if n < 10:
        return None
    mean_x, mean_y = sum(x for x, _ in pairs) / n, sum(y for _, y in pairs) / n
    xx = sum((x - mean_x) * (x - mean_x) for x, _ in pairs)
    yy = sum((y - mean_y) * (y - mean_y) for _, y in pairs)
    scale = math.sqrt(xx) * math.sqrt(yy)
    if not 0 < scale < math.inf:
        return None
    return sum((x - mean_x) * (y - mean_y) for x, y in pairs) / scale
