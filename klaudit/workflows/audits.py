"""Audit what the store holds of a run."""

from klaudit.audit import PRESETS, Audit, Policy, audit_run
from klaudit.store import Store


def audit_stored_run(store: Store, name: str, *, policy: Policy = PRESETS["default"]) -> Audit:
    """Audit a run; changes nothing.

    Raises:
        RunNotFound: no run has that id or name.
    """
    run = store.runs.get(name)
    return audit_run(
        run,
        store.steps.iterate(run.id),
        policy=policy,
        budgets=store.budgets.for_run(run),
        segments=store.runs.segments(run.id),
        drift_measurements=store.drift.list(run.id),
    )


def keep_findings(store: Store, audit: Audit) -> None:
    """Keep an audit's findings where the pages and the next reader look for them; a run that is being trained keeps its own."""
    if audit.run.status == "running":
        return
    store.findings.upsert(audit.run.id, audit.findings)
