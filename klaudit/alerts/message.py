"""What an alert says."""

import hashlib
from datetime import datetime

from klaudit.records import Alert, Finding


def compose_alert(finding: Finding, *, run_name: str, channel: str, created_at: datetime) -> Alert:
    """The alert of a finding at its present severity.

    The id is fixed by finding, severity and channel, so that a message sent twice can be told from a second message.
    """
    identity = hashlib.sha256(f"{finding.id}\x1f{finding.severity}\x1f{channel}".encode()).hexdigest()[:16]
    return Alert(
        id=identity,
        run_id=finding.run_id,
        finding_id=finding.id,
        severity=finding.severity,
        step=finding.detected_step,
        title=f"{finding.severity}: {finding.code} {finding.rule} in run {run_name} at step {finding.detected_step}",
        text=f"{finding.message} {finding.remedy}",
        channel=channel,
        created_at=created_at,
    )
