"""Reward against d of stored runs."""

from collections.abc import Sequence

from klaudit.errors import InvalidConfig
from klaudit.frontier import FrontierStudy, read_points, study_frontier
from klaudit.store import Store

LARGEST_OFFSET = 1e9
"""Reward."""


def study_stored_runs(store: Store, names: Sequence[str], *, heldout_offset: float | None = None) -> FrontierStudy:
    """Study one run, or several as a sweep; a run that is named twice counts once.

    Args:
        store: that holds the runs.
        names: ids or names, one or more.
        heldout_offset: held-out score of the reference, in reward, where it is known.

    Raises:
        RunNotFound: one of them is not there.
        InvalidConfig: an offset that is no reward.
    """
    runs = {run.id: run for run in (store.runs.get(name) for name in names)}
    points = [point for run in runs.values() for point in read_points(run, store.steps.iterate(run.id))]
    if heldout_offset is not None and not abs(heldout_offset) < LARGEST_OFFSET:
        raise InvalidConfig(f"--heldout-offset: expected a reward, a number between -1e9 and 1e9; got {heldout_offset!r}")
    return study_frontier(points, heldout_offset=heldout_offset)
