"""One episode, one finding: from when it is first seen, through its growth, to its end."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from klaudit.records import Finding, Severity, StepRecord, identify_finding


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a rule says of one step."""

    severity: Severity
    badness: float
    """Orders the steps of an episode: the finding tells of the worst one."""
    message: str
    remedy: str
    value: float | None = None
    """In `unit`."""
    threshold: float | None = None
    """In `unit`."""
    unit: str | None = None
    evidence: Mapping[str, Any] | None = None
    """As JSON."""
    first_step: int | None = None
    """Where it began, if before this step."""


class Episode:
    """Turns the judgements of step after step into one finding an episode."""

    def __init__(
        self, *, run_id: str, code: str, rule: str, rule_version: int, series: str | None, subject: str = "", quiet_steps: int
    ) -> None:
        self.run_id = run_id
        self.code = code
        self.rule = rule
        self.rule_version = rule_version
        self.series = series
        self.subject = subject
        self.quiet_steps = quiet_steps
        self._open: Finding | None = None
        self._worst: tuple[int, float] = (0, 0.0)
        self._n_quiet = 0

    @property
    def is_open(self) -> bool:
        """Whether an episode is going on."""
        return self._open is not None

    def observe(self, record: StepRecord, judgement: Judgement | None) -> Finding | None:
        """Take in what a rule says of the next step; None is a quiet step, and `quiet_steps` of them in a row end an episode.

        Returns:
            The finding, where this step began, changed or ended it.
        """
        if judgement is None and self._open is None:
            return None
        return self.observe_at(record.step, judgement, segment=record.segment)

    def observe_at(self, step: int, judgement: Judgement | None, *, segment: int) -> Finding | None:
        """As `observe`, for what is no step record."""
        if judgement is None:
            self._n_quiet += 1
            return self.end() if self._n_quiet >= self.quiet_steps else None
        self._n_quiet = 0
        if self._open is None:
            self._open = self._begin(judgement, step=step, segment=segment)
        else:
            self._open = self._extend(self._open, judgement, step=step)
        return self._open

    def revise(self, *, severity: Severity, message: str, evidence: Mapping[str, Any], last_step: int) -> None:
        """Tell of the open episode what became of it."""
        if self._open is not None:
            self._open = replace(self._open, severity=severity, message=message, evidence=evidence, last_step=last_step)

    @property
    def finding(self) -> Finding | None:
        """Of the open episode."""
        return self._open

    def end(self) -> Finding | None:
        """End the episode, if one is open."""
        if self._open is None:
            return None
        ended = replace(self._open, status="ended")
        self._open = None
        self._n_quiet = 0
        return ended

    def _begin(self, judgement: Judgement, *, step: int, segment: int) -> Finding:
        self._worst = (judgement.severity.rank, judgement.badness)
        finding_id = identify_finding(
            run_id=self.run_id, segment=segment, code=self.code, series=self.series, detected_step=step, subject=self.subject
        )
        first_step = step if judgement.first_step is None else min(step, judgement.first_step)
        return Finding(
            id=finding_id,
            run_id=self.run_id,
            code=self.code,
            rule=self.rule,
            rule_version=self.rule_version,
            severity=judgement.severity,
            first_step=first_step,
            detected_step=step,
            last_step=step,
            message=judgement.message,
            remedy=judgement.remedy,
            segment=segment,
            series=self.series,
            value=judgement.value,
            threshold=judgement.threshold,
            unit=judgement.unit,
            evidence=judgement.evidence or {},
        )

    def _extend(self, finding: Finding, judgement: Judgement, *, step: int) -> Finding:
        first_step = step if judgement.first_step is None else judgement.first_step
        longer = replace(finding, last_step=step, first_step=min(finding.first_step, first_step))
        rank = (judgement.severity.rank, judgement.badness)
        if rank <= self._worst:
            return longer
        self._worst = rank
        return replace(
            longer,
            severity=judgement.severity,
            message=judgement.message,
            remedy=judgement.remedy,
            value=judgement.value,
            threshold=judgement.threshold,
            unit=judgement.unit,
            evidence=judgement.evidence or {},
        )
