"""Which profiles of checkpoints speak for a run."""

from collections.abc import Iterable

from klaudit.records import DriftProfile


def list_latest_profiles(profiles: Iterable[DriftProfile], *, run_id: str) -> list[DriftProfile]:
    """Profiles of the run's checkpoints, by step; of a checkpoint measured twice, the later one. Those of no step or another run are left out."""
    latest: dict[int, DriftProfile] = {}
    for one in sorted(profiles, key=lambda profile: profile.measured_at):
        if one.step is not None and one.run_id in {None, run_id}:
            latest[one.step] = one
    return [latest[step] for step in sorted(latest)]
