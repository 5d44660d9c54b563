"""Which series of a run measure its distance from the reference."""

from klaudit.records import Run


def list_reference_series(run: Run) -> list[str]:
    """Keys of the run's KLs to the reference whose estimator and unit are declared, in the order of their declaration."""
    return [
        key
        for key, series in run.series.items()
        if series.kind == "reference" and series.estimator != "unknown" and series.unit != "unknown"
    ]
