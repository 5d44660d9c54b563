"""KLA304 step_gap."""

from collections.abc import Iterator, Sequence

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.audit.spacing import count_missing
from klaudit.records import Finding, Run, Segment, Severity


class StepGapParameters(RuleParameters):
    """Parameters of KLA304."""

    known_after: int = Field(
        default=3,
        ge=1,
        le=1_000_000,
        description="times in a row that a distance between two records has to come before it is the logging interval",
    )
    quiet_steps: int = Field(default=10, ge=1, le=1_000_000, description="records without a gap that end an episode")


class StepGap(Rule[StepGapParameters]):
    """Steps of the training are not on record.

    What it checks:
        The recorder's own count of steps whose `log()` returned and that neither the store nor a journal took, segment by segment. And
        the step index: a distance between two records that is longer than the logging interval, within a segment or between one
        segment and the next. A run that is logged every 10 steps has no gap; a resume that takes steps back has none either.

    Formula:
        n_lost > 0, in any segment of the run. Or distance // interval - 1 > 0, where distance is that between two records, in steps, and
        interval the last distance that came known_after times in a row. Gaps that the recorder counted are not told a second time.

    Why it matters:
        What is not on record cannot be judged: a breach may have fallen into the gap, and a change that began there is seen late.

    Parameters and where the defaults come from:
        The recorder's count is exact, so there is no noise to allow for (rule R31 of the catalogue). known_after 3: Hugging Face's
        trainer logs step 1 and then steps 10, 20, 30, so the first distance may be an odd one. quiet_steps 10 is a convention, so
        that a flaky connection is one finding.

    What to do:
        Free the disk of the store and of the journal, or give the journal a second directory with KLAUDIT_JOURNAL. Where the index
        jumps, look for the missing steps in the trainer's own logs and import them; judge what lies in the gap by hand.

    Example finding:
        3 steps are missing between step 120 and step 124, in a run that is logged every step.
    """

    code = "KLA304"
    name = "step_gap"
    version = 2
    severities = (Severity.WARNING,)
    parameters_model = StepGapParameters

    def __init__(self, run: Run, *, parameters: StepGapParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.has_count = False
        self.lost: dict[int, tuple[int, int]] = {}
        self.interval: int | None = None
        self.gaps = self.start_episode(series=None, subject="index", quiet_steps=parameters.quiet_steps)
        self._last: int | None = None
        self._distance = 0
        self._n_same = 0
        self._n_missing = self._n_gaps = self._first_step = 0

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule: the interval goes on over segments, because the logger is the same."""
        step, last = observation.record.step, self._last
        self._last = step
        if last is None or step <= last:
            return ()
        distance = step - last
        if distance == self.interval == self._distance and not self.gaps.is_open:
            return ()
        missing = self._count_missing(last, step)
        finding = self.gaps.observe(observation.record, self._judge_gap(last, step, missing=missing) if missing else None)
        self._learn(distance)
        return () if finding is None else (finding,)

    def observe_segment(self, segment: Segment) -> Iterator[Finding]:
        """See Rule."""
        self.has_count = self.has_count or segment.session is not None
        if not segment.n_lost:
            return
        # An episode of its own, found where the first lost step is: a count that grows revises the same finding.
        episode = self.start_episode(series=None, quiet_steps=1)
        first, last = find_span(segment)
        self.lost[segment.index] = (first, last)
        judgement = self._judge_loss(segment)
        episode.observe_at(first, judgement, segment=segment.index)
        finding = episode.observe_at(last, judgement, segment=segment.index)
        self.episodes.remove(episode)
        if finding is not None:
            yield finding

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.has_count:
            yield "nobody counted what was lost: the run was not recorded live"
        if self.interval is None:
            yield f"no distance between two records came {self.parameters.known_after} times in a row, so the logging interval is unknown"

    def _count_missing(self, last: int, step: int) -> int:
        if self.interval is None:
            return 0
        if any(first < step and last < end for first, end in self.lost.values()):
            return 0
        return count_missing(step - last, interval=self.interval)

    def _learn(self, distance: int) -> None:
        self._n_same = self._n_same + 1 if distance == self._distance else 1
        self._distance = distance
        if self._n_same >= self.parameters.known_after:
            self.interval = distance

    def _judge_gap(self, last: int, step: int, *, missing: int) -> Judgement:
        assert self.interval is not None
        if not self.gaps.is_open:
            self._n_missing, self._n_gaps, self._first_step = 0, 0, last
        self._n_missing += missing
        self._n_gaps += 1
        steps, are = ("1 step", "is") if self._n_missing == 1 else (f"{self._n_missing} steps", "are")
        many = "" if self._n_gaps == 1 else f", in {self._n_gaps} gaps"
        every = "every step" if self.interval == 1 else f"every {self.interval} steps"
        return Judgement(
            severity=Severity.WARNING,
            badness=self._n_missing,
            message=f"{steps} {are} missing between step {self._first_step} and step {step}{many}, in a run that is logged {every}.",
            remedy="Look for the missing steps in the trainer's own logs and import them; judge what lies in the gap by hand.",
            value=float(self._n_missing),
            threshold=0.0,
            unit="steps",
            evidence={
                "n_missing": self._n_missing,
                "n_gaps": self._n_gaps,
                "interval": self.interval,
                "last_gap": [last, step],
            },
            first_step=self._first_step,
        )

    def _judge_loss(self, segment: Segment) -> Judgement:
        first, last = find_span(segment)
        where = f", between step {first} and step {last}" if segment.lost_first_step is not None else ""
        steps, were, are = ("1 step", "was", "is") if segment.n_lost == 1 else (f"{segment.n_lost} steps", "were", "are")
        return Judgement(
            severity=Severity.WARNING,
            badness=segment.n_lost,
            message=f"{steps} of segment {segment.index} {were} logged and {are} lost{where}: {segment.lost_reason or 'nobody knows why'}.",
            remedy="Free the disk of the store and of the journal, or give the journal a second directory with KLAUDIT_JOURNAL.",
            value=float(segment.n_lost),
            threshold=0.0,
            unit="steps",
            evidence={
                "n_lost": segment.n_lost,
                "first_step": segment.lost_first_step,
                "last_step": segment.lost_last_step,
                "reason": segment.lost_reason,
            },
        )


def find_span(segment: Segment) -> tuple[int, int]:
    """The first and the last lost step; the segment's beginning where they are not known."""
    beginning = segment.resumed_from_step or 0
    known = [step for step in (segment.lost_first_step, segment.lost_last_step) if step is not None]
    return min(known, default=beginning), max(known, default=beginning)
