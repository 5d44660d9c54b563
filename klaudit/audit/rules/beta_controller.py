"""KLA403 beta_controller."""

import math
from collections.abc import Iterator

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.records import Finding, Run, Severity, StepRecord


class BetaControllerParameters(RuleParameters):
    """Parameters of KLA403."""

    moved: float = Field(
        default=0.05, gt=0, description="how far beta had moved from its first value for a reset to be told, as a share of it"
    )
    same: float = Field(default=0.01, gt=0, description="how near to its first value beta is after a reset, as a share of it")


class BetaController(Rule[BetaControllerParameters]):
    """A resumed trainer has forgotten where its controller had taken beta.

    What it checks:
        Beta at the first step of a segment, against the first and the last beta of the segment before it.

    Formula:
        |last - first| > moved x |first| in the segment before, and |beta - first| <= same x |first| now.

    Why it matters:
        A controller that starts again from its initial beta undoes what it had learnt: KL runs away, or the policy is pulled back, for as
        many steps as it took to get there.

    Parameters and where the defaults come from:
        moved 0.05 and same 0.01: one update of the Ziegler controller moves beta by at most 0.5% with 256 sequences and horizon 10,000
        (arXiv 1909.08593), so that a reset is told from a controller that has hardly moved. Rule R24 of the catalogue; verl issue 2653.

    What to do:
        Save the controller's state with the checkpoint, and restore it.

    Example finding:
        Beta was 0.121 at the end of segment 0 and starts segment 1 at 0.2, its first value: the controller's state was not restored.
    """

    code = "KLA403"
    name = "beta_controller"
    version = 1
    severities = (Severity.CRITICAL,)
    parameters_model = BetaControllerParameters

    def __init__(self, run: Run, *, parameters: BetaControllerParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.n_betas = 0
        self._segment: int | None = None
        self._first: float | None = None
        self._last: float | None = None

    def observe(self, record: StepRecord) -> Iterator[Finding]:
        """See Rule."""
        if record.beta is None or not math.isfinite(record.beta):
            return
        self.n_betas += 1
        if record.segment != self._segment:
            if self._is_reset(record.beta):
                yield from self._tell(record)
            self._segment, self._first = record.segment, record.beta
        self._last = record.beta

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.n_betas:
            yield "no finite beta is on record"

    def _is_reset(self, beta: float) -> bool:
        if self._first is None or self._last is None or self._first == 0:
            return False
        moved = abs(self._last - self._first) > self.parameters.moved * abs(self._first)
        return moved and abs(beta - self._first) <= self.parameters.same * abs(self._first)

    def _tell(self, record: StepRecord) -> Iterator[Finding]:
        episode = self.start_episode(series="beta", quiet_steps=1)
        judgement = Judgement(
            severity=Severity.CRITICAL,
            badness=1.0,
            message=f"Beta was {self._last:.4g} at the end of segment {self._segment} and starts segment {record.segment} at "
            f"{record.beta:.4g}, its first value: the controller's state was not restored.",
            remedy="Save the controller's state with the checkpoint, and restore it.",
            value=record.beta,
            threshold=self._last,
            unit="reward/nat",
            evidence={"first": self._first, "last": self._last, "now": record.beta},
        )
        finding = episode.observe(record, judgement)
        self.episodes.remove(episode)
        if finding is not None:
            yield finding
