"""KLA304 step_gap."""

from collections.abc import Iterator

from klaudit.audit.episode import Judgement
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.records import Finding, Run, Segment, Severity, StepRecord


class StepGapParameters(RuleParameters):
    """Parameters of KLA304: none."""


class StepGap(Rule[StepGapParameters]):
    """Steps that the trainer logged are not on record.

    What it checks:
        The recorder's own count of steps whose `log()` returned and that neither the store nor a journal took, segment by segment.

    Formula:
        n_lost > 0, in any segment of the run.

    Why it matters:
        What is not on record cannot be judged: a breach may have fallen into the gap, and a change that began there is seen late.

    Parameters and where the defaults come from:
        None. The count is exact, so there is no noise to allow for (rule R31 of the catalogue).

    What to do:
        Free the disk of the store and of the journal, or give the journal a second directory with KLAUDIT_JOURNAL.

    Example finding:
        3 steps of segment 0 were logged and are lost, between step 120 and step 122: neither the store nor a journal took them.
    """

    code = "KLA304"
    name = "step_gap"
    version = 1
    severities = (Severity.WARNING,)
    parameters_model = StepGapParameters

    def __init__(self, run: Run, *, parameters: StepGapParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.has_count = False

    def observe(self, record: StepRecord) -> Iterator[Finding]:
        """See Rule."""
        del record
        yield from ()

    def observe_segment(self, segment: Segment) -> Iterator[Finding]:
        """See Rule."""
        self.has_count = self.has_count or segment.session is not None
        if not segment.n_lost:
            return
        # An episode of its own, found where the first lost step is: a count that grows revises the same finding.
        episode = self.start_episode(series=None, quiet_steps=1)
        first, last = find_span(segment)
        judgement = self._judge(segment)
        episode.observe_at(first, judgement, segment=segment.index)
        finding = episode.observe_at(last, judgement, segment=segment.index)
        self.episodes.remove(episode)
        if finding is not None:
            yield finding

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.has_count:
            yield "nobody counted what was lost: the run was not recorded live"

    def _judge(self, segment: Segment) -> Judgement:
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
    first = beginning if segment.lost_first_step is None else segment.lost_first_step
    return first, first if segment.lost_last_step is None else segment.lost_last_step
