"""What an audit says, and the JSON of it."""

from collections import Counter
from dataclasses import dataclass, fields
from typing import Any, Literal

from klaudit.audit.policy import Policy
from klaudit.records import Finding, KLSeries, Run, Severity
from klaudit.records.non_finite import encode_json

SCHEMA_VERSION = 1
"""Of `audit --json`."""

Verdict = Literal["pass", "warn", "fail"]

FINDING_KEYS = (
    "id", "code", "rule", "rule_version", "severity", "status", "segment", "series", "first_step", "detected_step", "last_step",
    "value", "threshold", "unit", "message", "remedy", "evidence",
)  # fmt: skip


SWITCHED_OFF = "switched off by the policy"
"""Why a rule that a policy switches off did not judge."""


@dataclass(frozen=True, slots=True)
class SilentRule:
    """A rule, or a part of it, that could not judge."""

    code: str
    why: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """What share of the run the audit could see."""

    steps: int = 0
    kl_measured: int = 0
    """Steps with a finite governing KL (the step's own `kl` where no series governs)."""
    gaps: int = 0
    """Steps missing inside segments, at the logging interval that is most common there."""
    non_finite: int = 0
    """Steps that hold a NaN or an infinity."""
    rules_not_run: tuple[SilentRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Audit:
    """One run of the engine over one run of training."""

    run: Run
    policy: Policy
    governing_key: str | None
    coverage: Coverage
    findings: tuple[Finding, ...]
    """Sorted by first_step, code, id."""

    @property
    def governing_series(self) -> KLSeries | None:
        """The series that budgets and change rules looked at."""
        return None if self.governing_key is None else self.run.series[self.governing_key]

    @property
    def verdict(self) -> Verdict:
        """Fail with a critical finding, warn with a warning, else pass."""
        worst = max((finding.severity.rank for finding in self.findings), default=0)
        verdicts: tuple[Verdict, ...] = ("pass", "warn", "fail")
        return verdicts[worst]

    def has_findings_at(self, severity: Severity) -> bool:
        """Whether a finding is at or above `severity`."""
        return any(finding.severity.rank >= severity.rank for finding in self.findings)

    def count_findings(self) -> dict[str, int]:
        """Findings by severity, the worst first, those at zero left out."""
        counts = Counter(finding.severity.value for finding in self.findings)
        return {severity.value: counts[severity.value] for severity in reversed(Severity) if counts[severity.value]}

    def to_dict(self) -> dict[str, Any]:
        """What `audit --json` prints, which is a promise: keys are added and never renamed; non-finite numbers are strings."""
        series = self.governing_series
        coverage = {
            "steps": self.coverage.steps,
            "kl_measured": self.coverage.kl_measured,
            "gaps": self.coverage.gaps,
            "non_finite": self.coverage.non_finite,
            "rules_not_run": [{"code": silent.code, "why": silent.why} for silent in self.coverage.rules_not_run],
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "run": {"id": self.run.id, "name": self.run.name},
            "policy": self.policy.describe(),
            "governing_series": None if series is None else {"key": self.governing_key, **describe_series(series)},
            "coverage": coverage,
            "verdict": self.verdict,
            "findings": [describe_finding(finding) for finding in self.findings],
        }


def describe_series(series: KLSeries) -> dict[str, Any]:
    """A series as JSON."""
    return {one.name: getattr(series, one.name) for one in fields(series)}


def describe_finding(finding: Finding) -> dict[str, Any]:
    """A finding as JSON; non-finite numbers are strings."""
    described = {key: getattr(finding, key) for key in FINDING_KEYS} | {
        "severity": finding.severity.value,
        "evidence": dict(finding.evidence),
    }
    return {key: encode_json(value) for key, value in described.items()}
