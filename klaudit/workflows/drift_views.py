"""What is measured of checkpoints, read from the store and turned into views."""

from collections.abc import Iterator, Sequence

from klaudit.audit.rules.slice_divergence import SliceDivergenceParameters
from klaudit.records import DriftShard
from klaudit.records.drift_shard import Sampler
from klaudit.report.views.drift_completion import CompletionPair, view_completions
from klaudit.report.views.drift_location import LocationView, view_location
from klaudit.report.views.drift_matrix import MatrixView, view_matrix
from klaudit.report.views.drift_profile import CheckpointProfile, SliceLimits, view_profiles
from klaudit.store import Store

SHARDS_AT_A_TIME = 8
"""Shards in memory together: of 16 prompts each, whatever the size of the measurement."""


def read_profiles(store: Store, run_id: str) -> tuple[CheckpointProfile, ...]:
    """The newest profile of each checkpoint of a run; slices are told of from where rule KLA609 does by default."""
    rule = SliceDivergenceParameters()
    limits = SliceLimits(rule.significance, rule.warning_ratio, rule.least_nats)
    return view_profiles(store.drift.list_profiles(run_id), limits=limits)


def read_matrix(store: Store, run_id: str) -> MatrixView | None:
    """KL between every two checkpoints of a run; None where it was not measured."""
    return view_matrix(store.drift.list_distances(run_id))


def read_location(store: Store, keys: Sequence[str], *, sampler: Sampler) -> LocationView | None:
    """Where the drift of one checkpoint is, from its shards; None where no completion of that sampler was kept."""
    return view_location(iterate_shards(store, keys), sampler=sampler)


def read_completions(store: Store, keys: Sequence[str], *, prompt_index: int) -> tuple[CompletionPair, ...]:
    """The completions of one prompt.

    Args:
        keys: of the shards that hold them, as its `PromptDrift` names them.
        prompt_index: its place in the prompt set.
    """
    return view_completions(iterate_shards(store, keys), prompt_index=prompt_index)


def iterate_shards(store: Store, keys: Sequence[str]) -> Iterator[DriftShard]:
    """The shards that are there, in order, a few at a time."""
    for start in range(0, len(keys), SHARDS_AT_A_TIME):
        part = keys[start : start + SHARDS_AT_A_TIME]
        found = store.drift.find_shards(part)
        yield from (found[key] for key in part if key in found)
