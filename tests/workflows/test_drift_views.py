from datetime import UTC, datetime
from pathlib import Path

from klaudit.store import Store, open_store
from klaudit.workflows.drift_views import SHARDS_AT_A_TIME, read_completions, read_location, read_matrix, read_profiles
from tests.browser.planted_drift import N_PROMPTS, N_SAMPLES, SLICES, make_forward, make_profile, make_shards
from tests.browser.planted_store import describe_run


def open_measured(directory: Path, *, steps: tuple[int, ...]) -> tuple[Store, str]:
    """A store with a run, measured at each of the steps."""
    store = open_store(f"sqlite:///{directory / 'klaudit.db'}", create=True)
    run = describe_run("measured", started_at=datetime(2026, 11, 22, tzinfo=UTC), status="finished")
    store.runs.add(run)
    for step in steps:
        shards = list(make_shards(step))
        for shard in shards:
            store.drift.add_shard(shard, run_id=run.id)
        keys = tuple(one.key for one in shards)
        store.drift.add_profile(
            make_profile(f"checkpoint-{step}", step, shards=keys, run_id=run.id), make_forward(run.id, f"checkpoint-{step}", step)
        )
    return store, run.id


def test_profiles_come_by_step_and_tell_of_slices_from_where_the_rule_does(tmp_path: Path) -> None:
    store, run_id = open_measured(tmp_path, steps=(8, 4))
    with store:
        profiles = read_profiles(store, run_id)

        assert [one.step for one in profiles] == [4, 8]
        assert [one.slice for one in profiles[0].slices if one.is_told] == [SLICES[2]]
        assert read_matrix(store, run_id) is None


def test_shards_are_read_a_few_at_a_time_and_those_that_are_gone_are_passed_over(tmp_path: Path) -> None:
    store, run_id = open_measured(tmp_path, steps=(4,))
    with store:
        (profile,) = read_profiles(store, run_id)
        gone = tuple("sha256:" + f"{at:064x}" for at in range(SHARDS_AT_A_TIME + 1))
        location = read_location(store, (*gone, *profile.shards), sampler="policy")
        assert location is not None

        assert location.n_sequences == N_PROMPTS * N_SAMPLES
        assert read_location(store, gone, sampler="policy") is None


def test_the_completions_of_a_prompt_come_from_the_shards_that_it_names(tmp_path: Path) -> None:
    store, run_id = open_measured(tmp_path, steps=(4,))
    with store:
        (profile,) = read_profiles(store, run_id)
        location = read_location(store, profile.shards, sampler="policy")
        assert location is not None
        prompt = location.prompts[0]

        assert len(prompt.shards) == 2
        pairs = read_completions(store, prompt.shards, prompt_index=prompt.index)
        assert sorted(one.sample for one in pairs) == list(range(N_SAMPLES))
        assert all(one.policy is not None and one.reference is not None for one in pairs)
