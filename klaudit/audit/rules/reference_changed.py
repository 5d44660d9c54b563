"""KLA401 reference_changed."""

from collections.abc import Iterator

from klaudit.audit.episode import Judgement
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.records import Finding, Run, Segment, Severity, StepRecord


class ReferenceChangedParameters(RuleParameters):
    """Parameters of KLA401: none."""


class ReferenceChanged(Rule[ReferenceChangedParameters]):
    """A resumed trainer measures its KL against another reference than before.

    What it checks:
        The digest of the reference model's weights as each segment begins, against the first segment that has one.

    Formula:
        digest of this segment != digest of the first segment that has one of the same kind: of files, or of tensors in memory.

    Why it matters:
        KL is a distance from one model. With another reference it starts again at zero: every resume grants a fresh budget of drift, and
        the curve hides how far the policy is from where it began.

    Parameters and where the defaults come from:
        None (rule R25 of the catalogue; NeMo-RL pull request 3722).

    What to do:
        Resume with the reference of the first segment. If the change was meant, measure the checkpoints against the first reference with
        klaudit drift measure, and begin a new run for the new one.

    Example finding:
        Segment 1 measures KL against other reference weights (sha256:77aa12cd…) than segment 0 (sha256:0d3f9e21…).
    """

    code = "KLA401"
    name = "reference_changed"
    version = 1
    severities = (Severity.CRITICAL,)
    parameters_model = ReferenceChangedParameters

    def __init__(self, run: Run, *, parameters: ReferenceChangedParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.anchors: dict[str, Segment] = {}

    def observe(self, record: StepRecord) -> Iterator[Finding]:
        """See Rule."""
        del record
        yield from ()

    def observe_segment(self, segment: Segment) -> Iterator[Finding]:
        """See Rule."""
        if segment.reference_digest is None:
            return
        # Digests of files and of tensors in memory are not comparable.
        anchor = self.anchors.setdefault(segment.reference_digest.partition(":")[0], segment)
        if segment.reference_digest == anchor.reference_digest:
            return
        episode = self.start_episode(series=None, quiet_steps=1)
        finding = episode.observe_at(
            segment.resumed_from_step or 0,
            Judgement(
                severity=Severity.CRITICAL,
                badness=1.0,
                message=f"Segment {segment.index} measures KL against other reference weights ({shorten(segment.reference_digest)}) than "
                f"segment {anchor.index} ({shorten(anchor.reference_digest)}).",
                remedy="Resume with the reference of the first segment. If the change was meant, measure the checkpoints against the first "
                "reference with klaudit drift measure, and begin a new run for the new one.",
                evidence={"before": anchor.reference_digest, "now": segment.reference_digest},
            ),
            segment=segment.index,
        )
        self.episodes.remove(episode)
        if finding is not None:
            yield finding

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.anchors:
            yield "no digest of the reference's weights is on record"


def shorten(digest: str | None) -> str:
    """The beginning of a digest, for people."""
    return f"{(digest or 'none')[:15]}…"
