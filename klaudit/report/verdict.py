"""The sentences of a report. None says "safe" or "compliant": they say what was measured, and what KL cannot show."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from klaudit.records import Finding, Run, Severity
from klaudit.report.views import RunView, format_count, format_number

LIMITS = (
    "KL is a distance from the reference, not a judgement of the text: a policy can stay near and be wrong, or move far and be better.",
    "It is an average over the sampled prompts. Conduct that only other prompts bring out, such as a rare trigger, is not in it.",
    "Logged KL was computed by the trainer, on its own samples and at its own sampling temperature; klaudit records it "
    "and cannot see a number that was wrong before it was logged.",
    "No finding means that no rule that ran has fired. Rules that could not run are listed under coverage.",
    "This report is not signed: whoever can write the store can change what it was made from.",
)
"""What a reader must not conclude."""

REASONS: Mapping[str, str] = {
    "KLA1": "A person set this limit on how far the policy may move from the reference.",
    "KLA2": "The distance from the reference changed in a way that the noise of its estimator does not explain.",
    "KLA3": "What was logged is not what can be relied on, so other rules see less than they should.",
    "KLA4": "The set-up changed, or does not say what the numbers are; before and after may not be comparable.",
    "KLA5": "An update of the policy was larger or rougher than PPO's own trust region expects.",
    "KLA6": "The text changed in a way that the reward does not show; this is what reward hacking and collapse look like.",
    "KLA7": "The model that sampled the text and the model that was trained on it disagree.",
}
"""Why a family of rules matters."""


def state_headline(verdict: str, *, view: RunView, findings: Sequence[Finding]) -> str:
    """The one sentence that must be right in five seconds."""
    if not view.n_steps:
        return "Nothing to judge: no step was recorded"
    counts = Counter(one.severity for one in findings)
    worst = [one for one in findings if one.severity is (Severity.CRITICAL if counts[Severity.CRITICAL] else Severity.WARNING)]
    if verdict == "pass" or not worst:
        begin = f"No critical finding and no warning in {format_count(view.n_steps, 'recorded step')}"
        return begin if view.governing_key else f"{begin}, but no KL that a budget or a change rule could judge"
    first = min(worst, key=lambda one: (one.first_step, one.code, one.id))
    parts = [format_count(counts[Severity.CRITICAL], "critical finding")] if counts[Severity.CRITICAL] else []
    parts += [format_count(counts[Severity.WARNING], "warning")] if counts[Severity.WARNING] else []
    return f"{' and '.join(parts)}; the {'worst began' if len(findings) > 1 else 'episode began'} at step {first.first_step}: {name_rule(first)}"


def name_rule(finding: Finding) -> str:
    """`budget exceeded (KLA101)`."""
    return f"{finding.rule.replace('_', ' ').replace('kl ', 'KL ')} ({finding.code})"


def state_measured(view: RunView) -> str:
    """What was measured, on what share of steps, and where it ended and peaked."""
    sentences = [view.statement[:1].upper() + view.statement[1:]]
    curve, last = view.governing, view.figure("kl")
    if curve is not None and curve.last is not None and last is not None:
        finite = [(value, step) for step, value in zip(curve.steps, curve.values, strict=True) if math.isfinite(value)]
        peak, step = max(finite)
        sentences.append(f"Last {last.text} {last.note}; highest {format_number(peak)} {curve.unit} at step {step}")
    budget = view.figure("budget_used")
    if budget is not None:
        used = f"Budget used: {budget.text}, {budget.note}" if budget.value is not None else f"Budget: {budget.text} ({budget.note})"
        sentences.append(used)
    return ". ".join(sentences) + "."


def list_not_measured(audit: Mapping[str, Any], view: RunView) -> tuple[str, ...]:
    """Every hole that a reader must know of: missing steps, non-finite numbers, rules that did not run, budgets not compared."""
    coverage = audit.get("coverage") or {}
    lines = []
    if "steps" in coverage:
        lines.append(
            f"The audit saw {format_count(coverage['steps'], 'step')}; KL was measured on {coverage.get('kl_measured', 0):,} of them"
        )
    if coverage.get("gaps"):
        lines.append(f"{format_count(coverage['gaps'], 'step')} left no record between the first and the last")
    lines += [f"{one.label}: {gap.kind} at {name_steps(gap.first_step, gap.last_step)}" for one in view.curves for gap in one.gaps]
    lines += [f"{one['code']} did not judge: {one['why']}" for one in coverage.get("rules_not_run", ())]
    lines += [f"Budget {one.label}: {one.statement}" for one in view.budgets if one.value is None and one.scope != "checkpoint"]
    return tuple(f"{line.rstrip('.')}." for line in lines)


def name_steps(first: int, last: int) -> str:
    """`step 4` or `steps 4 to 9`."""
    return f"step {first}" if first == last else f"steps {first} to {last}"


def describe_run(run: Run, audit: Mapping[str, Any], *, n_segments: int) -> tuple[tuple[str, str], ...]:
    """Name and value of every fact about a run, `not declared` where the trainer said nothing."""
    policy = audit.get("policy") or {}
    reference = run.reference
    facts = {
        "Run": run.name,
        "Id": run.id,
        "Status": run.status,
        "Started": run.started_at.isoformat(),
        "Finished": None if run.finished_at is None else run.finished_at.isoformat(),
        "Algorithm": run.algorithm,
        "Framework": run.framework,
        "Policy model": run.policy,
        "Reference model": None if reference is None else reference.name,
        "Reference digest": None if reference is None else reference.digest or "not computed",
        "Batch size": None if run.batch_size is None else format_count(run.batch_size, "sequence"),
        "Beta at the start": None if run.beta is None else f"{format_number(run.beta)} reward/nat",
        "Planned steps": None if run.planned_steps is None else f"{run.planned_steps:,}",
        "Segments": str(n_segments),
        "Audit policy": " ".join(str(policy[key]) for key in ("name", "version") if policy.get(key)) or None,
        "Audit policy digest": policy.get("digest"),
    }
    return tuple((name, "not declared" if value is None else str(value)) for name, value in facts.items())
