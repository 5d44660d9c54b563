"""Findings as a person reads them: what happened, why it matters, what shows it, what to do."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klaudit.records import Finding, Run, Severity
from klaudit.report.views.evidence import EvidenceChart, draw_evidence, name_unit, tell_number
from klaudit.report.views.fact import Fact, list_facts
from klaudit.report.views.figure import format_count, format_number, format_percent

FAMILIES: Mapping[str, str] = {
    "KLA1": "KL budget",
    "KLA2": "Change of drift",
    "KLA3": "Telemetry",
    "KLA4": "Governance and configuration",
    "KLA5": "Optimisation step",
    "KLA6": "Behaviour",
    "KLA7": "Rollout mismatch",
}
"""Name of each family of rules, by the head of its codes."""

ACRONYMS = {"kl": "KL", "eos": "EOS"}


@dataclass(frozen=True, slots=True)
class RuleText:
    """What a rule says of itself."""

    code: str
    name: str
    summary: str
    why: str
    """Why it matters."""
    todo: str
    """What to do: the runbook."""
    settings: Mapping[str, str]
    """Unit and meaning of each parameter, by its name."""


@dataclass(frozen=True, slots=True)
class FindingView:
    """One finding."""

    id: str
    run_id: str
    run_name: str
    code: str
    rule: str
    """In plain words, such as `KL jump`."""
    rule_version: int
    family: str
    """Head of the code, a key of `FAMILIES`."""
    severity: str
    status: str
    segment: int
    series: str | None
    first_step: int
    detected_step: int
    last_step: int
    span: str
    """`step 30` or `steps 30 to 41`."""
    message: str
    remedy: str
    summary: str
    """What the rule checks; empty for a rule that this klaudit does not know."""
    why: str
    todo: str
    value: str
    """The judged number with its unit, or that there is none."""
    threshold: str
    charts: tuple[EvidenceChart, ...]
    facts: tuple[Fact, ...]
    settings: tuple[Fact, ...]
    """The rule's parameters when it judged, each under its unit and meaning."""

    @property
    def family_name(self) -> str:
        """The family in plain words."""
        return name_family(self.family)

    @property
    def moments(self) -> str:
        """When it began, when it was seen and when it ended, in words."""
        late = self.detected_step - self.first_step
        seen = f"detected at step {self.detected_step:,}" + (f", {format_count(late, 'step')} later" if late else "")
        end = f"goes on, last seen at step {self.last_step:,}" if self.status == "open" else f"ended at step {self.last_step:,}"
        return f"began at step {self.first_step:,}, {seen}; {end}"


@dataclass(frozen=True, slots=True)
class FindingsView:
    """What the page Findings shows."""

    findings: tuple[FindingView, ...]
    n_left_out: int = 0
    """Findings of older runs that are not among them."""

    def find(self, finding_id: str) -> FindingView | None:
        """The finding of that id."""
        return next((one for one in self.findings if one.id == finding_id), None)

    def count(self, field: str) -> Counter[str]:
        """How many findings have each `severity`, `family` or `status`."""
        return Counter(getattr(one, field) for one in self.findings)

    def select(self, *, severities: Sequence[str] = (), families: Sequence[str] = (), statuses: Sequence[str] = ()) -> "FindingsView":
        """Those of the given kinds; an empty choice leaves all in."""
        wanted = (("severity", severities), ("family", families), ("status", statuses))
        kept = tuple(one for one in self.findings if all(not chosen or getattr(one, field) in chosen for field, chosen in wanted))
        return FindingsView(kept, self.n_left_out)


@dataclass(frozen=True, slots=True)
class JudgedView:
    """What was judged of a run, and what could not be."""

    statement: str
    silent: tuple[tuple[str, str, str], ...]
    """Code, rule in plain words and reason of each rule, or part of one, that could not judge."""


def view_findings(findings: Sequence[Finding], *, run: Run, rules: Mapping[str, RuleText]) -> tuple[FindingView, ...]:
    """The findings of one run: the worst first, of these the open ones, then by step."""
    ordered = sorted(findings, key=lambda one: (-one.severity.rank, one.status != "open", one.segment, one.first_step, one.code, one.id))
    return tuple(view_finding(one, run_name=run.name, rule=rules.get(one.code)) for one in ordered)


def view_finding(finding: Finding, *, run_name: str, rule: RuleText | None) -> FindingView:
    """One finding, with what its rule says of itself where the rule is known."""
    unit = name_unit(finding.unit)
    return FindingView(
        id=finding.id,
        run_id=finding.run_id,
        run_name=run_name,
        code=finding.code,
        rule=name_plainly(finding.rule),
        rule_version=finding.rule_version,
        family=finding.code[:4],
        severity=finding.severity.value,
        status=finding.status,
        segment=finding.segment,
        series=finding.series,
        first_step=finding.first_step,
        detected_step=finding.detected_step,
        last_step=finding.last_step,
        span=name_span(finding.first_step, finding.last_step),
        message=finding.message,
        remedy=finding.remedy,
        summary="" if rule is None else rule.summary,
        why="" if rule is None else rule.why,
        todo="" if rule is None else rule.todo,
        value="no number" if finding.value is None else tell_number(finding.value, unit),
        threshold="no number" if finding.threshold is None else tell_number(finding.threshold, unit),
        charts=draw_evidence(finding),
        facts=list_facts(finding),
        settings=list_settings(finding.evidence.get("limits"), {} if rule is None else rule.settings),
    )


def list_settings(limits: Any, meanings: Mapping[str, str]) -> tuple[Fact, ...]:
    """The rule's parameters when it judged; their unit stands in their meaning."""
    if not isinstance(limits, Mapping):
        return ()
    told = {name: meanings.get(name, name.replace("_", " ")) for name in limits}
    return tuple(Fact(f"{told[name][:1].upper()}{told[name][1:]}", tell_setting(value)) for name, value in limits.items())


def tell_setting(value: Any) -> str:
    """A parameter's number, whose unit its meaning says."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return format_number(float(value)) if is_number else str(value)


def view_judged(audit: Mapping[str, Any], *, rules: Mapping[str, RuleText]) -> JudgedView:
    """What an audit says of its own reach.

    Args:
        audit: what `klaudit audit --json` prints.
        rules: every rule, by code.
    """
    coverage = audit.get("coverage") or {}
    n_steps, n_measured = int(coverage.get("steps", 0)), int(coverage.get("kl_measured", 0))
    silent = tuple(
        (str(one["code"]), name_plainly(rules[one["code"]].name) if one["code"] in rules else "", str(one["why"]))
        for one in coverage.get("rules_not_run", ())
    )
    n_whole = len(set(rules) - {code for code, _, _ in silent})
    policy = audit.get("policy") or {}
    measured = f"KL measured on {n_measured:,} of them" + (f" ({format_percent(100 * n_measured / n_steps)})" if n_steps else "")
    gaps = f", {format_count(int(coverage['gaps']), 'step')} missing" if coverage.get("gaps") else ""
    statement = (
        f"{format_count(n_steps, 'step')} judged by the policy {policy.get('name', 'default')}, {measured}{gaps}; "
        f"{n_whole} of {format_count(len(rules), 'rule')} judged without reserve"
    )
    return JudgedView(statement, silent)


def name_plainly(rule: str) -> str:
    """A rule's name in words: `KL jump`."""
    words = " ".join(ACRONYMS.get(one, one) for one in rule.split("_"))
    return words[:1].upper() + words[1:]


def name_family(family: str) -> str:
    """A family in plain words."""
    return FAMILIES.get(family, f"{family}xx")


def name_span(first: int, last: int) -> str:
    """`step 4` or `steps 4 to 9`."""
    return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"


SEVERITIES = tuple(one.value for one in reversed(Severity))
"""The worst first."""
