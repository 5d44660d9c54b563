"""What dead trainers had left in their journals, once the store took it in."""

from klaudit.store import Store
from klaudit.workflows.audits import audit_stored_run, keep_findings


def keep_replayed_findings(store: Store) -> None:
    """Audit the runs that the opening of the store completed, whose trainers did not live to do it."""
    for one in store.replayed:
        keep_findings(store, audit_stored_run(store, one.run.id))
    store.replayed = ()
