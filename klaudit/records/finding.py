"""A rule's judgement about a stretch of a run. One episode, one finding."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from klaudit.errors import InvalidRecord
from klaudit.records.series import require_member

FindingStatus = Literal["open", "ended"]


class Severity(StrEnum):
    """How bad; compare with `rank`."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info, 1 for warning, 2 for critical."""
        return list(Severity).index(self)


def identify_finding(*, run_id: str, segment: int, code: str, series: str | None, detected_step: int, subject: str = "") -> str:
    """The id of an episode, fixed when it is first detected: 16 hex digits of SHA-256.

    Args:
        subject: what tells two findings of one rule, series and step apart, such as a budget's id.
    """
    parts = "\x1f".join((run_id, str(segment), code, series or "", str(detected_step), subject))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Finding:
    """One episode. It may grow in severity, be dated back and end; `id` and `detected_step` never change.

    Raises:
        InvalidRecord: steps out of order, or a status outside its vocabulary.
    """

    id: str
    run_id: str
    code: str
    """Such as `KLA101`; never reused."""
    rule: str
    """The rule's name, such as `budget_exceeded`."""
    rule_version: int
    severity: Severity
    first_step: int
    """Where the episode began; may be earlier than it could be seen."""
    detected_step: int
    """The step whose record made the rule fire."""
    last_step: int
    """The last step of the episode so far."""
    message: str
    """What happened, in one sentence with numbers and units."""
    remedy: str
    """What to do, in one sentence."""
    segment: int = 0
    series: str | None = None
    """Key of the series or metric."""
    status: FindingStatus = "open"
    value: float | None = None
    """The number that was judged, in `unit`; the worst of the episode."""
    threshold: float | None = None
    """What it was compared with, in `unit`."""
    unit: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """What is needed to judge again, as JSON."""

    def __post_init__(self) -> None:
        require_member("Finding", "status", self.status, FindingStatus)
        if not self.first_step <= self.detected_step <= self.last_step:
            raise InvalidRecord(
                f"Finding {self.code} needs first_step <= detected_step <= last_step; got {self.first_step}, {self.detected_step}, {self.last_step}"
            )
