"""`klaudit audit`."""

from collections.abc import Sequence
from typing import Annotated

import typer

from klaudit.audit import Audit, find_policy
from klaudit.audit.audit import SWITCHED_OFF
from klaudit.cli.options import JsonOption, PolicyOption, RunArgument, StoreOption, open_given_store
from klaudit.cli.output import SEVERITY_STYLES, console, print_json
from klaudit.records import Severity
from klaudit.report.views import format_count
from klaudit.workflows.audits import audit_stored_run, find_run_policy, keep_findings
from klaudit.workflows.stops import Stop, list_stops


def audit_run(
    run: RunArgument,
    policy: PolicyOption = None,
    fail_on: Annotated[Severity, typer.Option("--fail-on", help="Exit with 1 when a finding is at or above this.")] = Severity.CRITICAL,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Audit a recorded run. Exits with 1 when it finds something at or above --fail-on. What the run's own policy finds is kept."""
    chosen = None if policy is None else find_policy(policy)
    with open_given_store(store) as opened:
        audit = audit_stored_run(opened, run, policy=chosen)
        if chosen is None or chosen.digest == find_run_policy(opened, audit.run.id).digest:
            keep_findings(opened, audit)
        stops = list_stops(opened, audit.run.id)
    if as_json:
        print_json(audit.to_dict())
    else:
        print_audit(audit, stops=stops)
    return 1 if audit.has_findings_at(fail_on) else 0


def print_audit(audit: Audit, *, stops: Sequence[Stop] = ()) -> None:
    """An audit for people, with the stops that a budget made of the training."""
    coverage, series = audit.coverage, audit.governing_series
    console.print("Audit of run", style="bold", end=" ")
    console.print(f"{audit.run.name}: {audit.verdict}", markup=False, soft_wrap=True)
    console.print(
        f"  {format_count(coverage.steps, 'step')}; {series.label if series else 'no governing KL'} measured on {coverage.kl_measured}; "
        f"{coverage.gaps} missing, {coverage.non_finite} with a non-finite number; policy {audit.policy.name} {audit.policy.version}",
        markup=False,
        soft_wrap=True,
    )
    for one in stops:
        console.print(f"  stopped {one.label}", markup=False, soft_wrap=True)
    for finding in audit.findings:
        style = SEVERITY_STYLES[finding.severity]
        span = (
            f"step {finding.first_step}"
            if finding.first_step == finding.last_step
            else f"steps {finding.first_step} to {finding.last_step}"
        )
        console.print(
            f"  [{style}]{finding.severity}[/{style}] {finding.code} {finding.rule}, {span}, seen at {finding.detected_step}",
            soft_wrap=True,
        )
        console.print(f"    {finding.message}", markup=False, soft_wrap=True)
        console.print(f"    What to do: {finding.remedy}", markup=False, soft_wrap=True)
    if not audit.findings:
        console.print("  no findings", markup=False)
    off = [silent.code for silent in coverage.rules_not_run if silent.why == SWITCHED_OFF]
    for silent in coverage.rules_not_run:
        if silent.code not in off:
            console.print(f"  not judged: {silent.code}, {silent.why}", markup=False, style="dim", soft_wrap=True)
    if off:
        console.print(f"  {SWITCHED_OFF}: {', '.join(off)}", markup=False, style="dim", soft_wrap=True)
