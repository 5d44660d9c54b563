"""Write a report of a run."""

from datetime import datetime
from pathlib import Path

import klaudit
from klaudit.audit import Policy
from klaudit.errors import StoreError
from klaudit.exchange.whole_file import write_whole
from klaudit.report import build_report, render_report
from klaudit.store import Store
from klaudit.workflows.audits import audit_stored_run
from klaudit.workflows.drift_views import read_profiles


def compose_report(store: Store, name: str, *, report_format: str, generated_at: datetime, policy: Policy | None = None) -> str:
    """The text of a report.

    Args:
        store: that holds the run.
        name: id or name of the run.
        report_format: of `klaudit.report.render_report`.
        generated_at: what the report says of itself.
        policy: to audit by; None: the run's own.

    Raises:
        RunNotFound: no run has that id or name.
    """
    audit = audit_stored_run(store, name, policy=policy)
    run = audit.run
    report = build_report(
        run=run,
        steps=store.steps.list(run.id),
        audit=audit.to_dict(),
        budgets=store.budgets.for_run(run),
        checkpoints=store.checkpoints.list(run.id),
        drift=store.drift.list(run.id),
        profiles=read_profiles(store, run.id),
        samples=store.samples.list(run.id),
        generated_at=generated_at,
        klaudit_version=klaudit.__version__,
    )
    return render_report(report, format=report_format)


def save_report(path: Path, text: str) -> None:
    """Write a report's file; it appears whole or not at all.

    Raises:
        StoreError: the place cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as file:
            file.write(text)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
