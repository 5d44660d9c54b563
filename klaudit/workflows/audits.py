"""Audit what the store holds of a run, by the policy that the run was recorded under or by another."""

from klaudit.audit import PRESETS, Audit, Policy, audit_run, restore_policy
from klaudit.ledger.bodies import describe_audit
from klaudit.records import list_limit_changes
from klaudit.store import Store


def audit_stored_run(store: Store, name: str, *, policy: Policy | None = None) -> Audit:
    """Audit a run; changes nothing.

    Args:
        store: that holds it.
        name: id or name of the run.
        policy: to judge by; None: the run's own.

    Raises:
        RunNotFound: no run has that id or name.
    """
    run = store.runs.get(name)
    return audit_run(
        run,
        store.steps.iterate(run.id),
        policy=policy or find_run_policy(store, run.id),
        budgets=store.budgets.for_run(run),
        segments=store.runs.segments(run.id),
        drift_measurements=store.drift.list(run.id),
        drift_profiles=store.drift.list_profiles(run.id),
        limit_changes=list_limit_changes(store.budgets.history(run)),
    )


def find_run_policy(store: Store, run_id: str) -> Policy:
    """The policy that the last trainer of a run had it audited by; `default` for a run that none was declared of, such as an imported one."""
    entry = store.ledger.find_last("policy_set", run_id=run_id)
    return PRESETS["default"] if entry is None else restore_policy(entry.body)


def keep_findings(store: Store, audit: Audit) -> None:
    """Keep an audit's findings where the pages and the next reader look for them, and in the ledger by which policy it judged.

    A run that is being trained keeps its own.
    """
    if audit.run.status == "running":
        return
    with store.together():
        store.findings.upsert(audit.run.id, audit.findings)
        note_audit(store, audit)


def note_audit(store: Store, audit: Audit) -> None:
    """Put into the ledger that a run was audited, and by which policy."""
    body = describe_audit(
        policy=audit.policy.describe(),
        n_steps=audit.coverage.steps,
        verdict=audit.verdict,
        n_findings=audit.count_findings(),
    )
    store.ledger.note("audited", body, run_id=audit.run.id)
