import subprocess
import sys
import threading
import time
import zlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, text, update

from klaudit.errors import InvalidRecord, RunNotFound, StoreError
from klaudit.records.ledger import LedgerDraft
from klaudit.store import Store, open_store
from klaudit.store.shards import encode_shard
from klaudit.store.tables import drift_shards, runs
from klaudit.workflows.ledger import verify_ledger
from tests.store.examples import MOMENT, make_measurement, make_profile, make_run, make_shard

MEASURE_ALL = """
import sys
from dataclasses import replace
from datetime import UTC, datetime
from klaudit.store import open_store
from tests.store.examples import make_measurement, make_profile, make_shard

with open_store(sys.argv[1]) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for step in range(40):
        shard, now = make_shard(step), datetime.now(UTC)
        store.drift.add_shard(shard, run_id="id-1")
        measurement = replace(make_measurement(step=step), measured_at=now)
        store.drift.add_profile(replace(make_profile(step=step, shards=(shard.key,)), measured_at=now), [measurement])
        store.drift.add_distances([measurement])
"""
"""Stores 40 measurements, with the time at which it does."""


def test_measurements_come_back_by_step_as_they_were_stored(store_with_run: Store) -> None:
    measurements = [make_measurement(step=20), make_measurement(step=10), make_measurement(step=10, part="trigger")]
    store_with_run.drift.add_all(measurements)
    assert store_with_run.drift.list("id-1") == [measurements[1], measurements[2], measurements[0]]


def test_a_measurement_without_numbers_comes_back(store_with_run: Store) -> None:
    nan = float("nan")
    broken = replace(make_measurement(), value=nan, low=nan, high=nan, mean_length=nan)
    store_with_run.drift.add_all([broken])
    assert repr(store_with_run.drift.list("id-1")) == repr([broken])


def test_checkpoints_of_no_run_are_kept_apart(store_with_run: Store) -> None:
    store_with_run.drift.add_all([make_measurement(None, step=None), make_measurement("id-1")])
    assert store_with_run.drift.list(None) == [make_measurement(None, step=None)]
    assert store_with_run.drift.list("id-1") == [make_measurement("id-1")]


def test_measurements_are_stored_all_or_none(store_with_run: Store) -> None:
    with pytest.raises(InvalidRecord, match="type object"):
        store_with_run.drift.add_all([make_measurement(), replace(make_measurement(), settings={"prompts": object()})])
    assert store_with_run.drift.list("id-1") == []


def test_a_shard_comes_back_bit_by_bit(store_with_run: Store) -> None:
    shard = make_shard()
    store_with_run.drift.add_shard(shard, run_id="id-1")
    found = store_with_run.drift.find_shards([make_shard(2).key, shard.key])
    # NaN is not equal to itself; repr tells floats, tuples and -0.0 apart.
    assert repr(found) == repr({shard.key: shard})


def test_a_shard_of_many_floats_takes_less_than_the_floats(store: Store) -> None:
    (sequence, *_) = make_shard().sequences
    numbers = tuple(1 / n for n in range(3, 503))
    ids = tuple(range(500))
    long = replace(
        sequence,
        tokens=(" the",) * 500,
        token_ids=ids,
        full=numbers,
        policy_logprobs=numbers,
        reference_logprobs=numbers,
        policy_entropy=numbers,
        top_tokens=(),
        top_contributions=(),
    )
    assert len(encode_shard(replace(make_shard(), sequences=(long,)))) < 4 * 8 * 500


def test_a_shard_that_is_there_is_not_stored_again(store: Store) -> None:
    first = make_shard()
    store.drift.add_shard(first)
    store.drift.add_shard(replace(first, sequences=first.sequences[:1]))
    assert len(store.drift.find_shards([first.key])[first.key].sequences) == 2


def test_many_shards_are_found_at_once(store: Store) -> None:
    keys = [make_shard(number).key for number in range(1_200)]
    for number in (0, 700, 1_199):
        store.drift.add_shard(make_shard(number))
    assert sorted(store.drift.find_shards(keys)) == [keys[0], keys[700], keys[1_199]]
    assert store.drift.find_shards([]) == {}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not compressed", "incorrect header"),
        (zlib.compress(b"\xff"), "utf-8"),
        (zlib.compress(b"{"), "cannot be read"),
        (zlib.compress(b"[]"), "cannot be read"),
        (zlib.compress(b'{"format": "klaudit-shard/2"}'), "klaudit-shard/2"),
        (zlib.compress(b'{"format": "klaudit-shard/1", "fields": ["prompt"], "sequences": [[]]}'), "zip"),
        (zlib.compress(b'{"format": "klaudit-shard/1", "fields": [], "sequences": []}'), "at least one sequence"),
        (encode_shard(make_shard())[:-20], "incomplete"),
    ],
)
def test_a_spoiled_shard_is_named_and_what_to_do(store: Store, content: bytes, why: str) -> None:
    shard = make_shard()
    store.drift.add_shard(shard)
    with store._database.writing() as connection:
        connection.execute(update(drift_shards).values(content=content))
    with pytest.raises(StoreError, match=f"row {shard.key} of drift_shards.*{why}.*Restore the store") as caught:
        store.drift.find_shards([shard.key])
    assert type(caught.value) is StoreError


def test_a_profile_comes_back_with_its_measurements_and_its_shards(store_with_run: Store) -> None:
    shards = [make_shard(number) for number in (2, 1)]
    for shard in shards:
        store_with_run.drift.add_shard(shard, run_id="id-1")
    profile = make_profile(shards=tuple(shard.key for shard in shards))
    bare = replace(make_profile(step=5), retention=None, layers=(), contrasts=())
    store_with_run.drift.add_profile(profile, [make_measurement()])
    store_with_run.drift.add_profile(bare)
    assert repr(store_with_run.drift.list_profiles("id-1")) == repr([bare, profile])
    assert repr(store_with_run.drift.find_profiles(profile.key)) == repr([profile, bare])
    assert store_with_run.drift.list_profiles(None) == store_with_run.drift.find_profiles(shards[0].key) == []
    assert store_with_run.drift.list("id-1") == [make_measurement()]
    assert repr(store_with_run.drift.list_shards(profile)) == repr(shards)
    assert store_with_run.drift.list_shards(bare) == []


def test_a_profile_and_its_measurements_are_stored_all_or_none(store_with_run: Store) -> None:
    with pytest.raises(InvalidRecord, match="type object"):
        store_with_run.drift.add_profile(make_profile(), [replace(make_measurement(), settings={"prompts": object()})])
    with pytest.raises(RunNotFound):
        store_with_run.drift.add_profile(make_profile("id-9"))
    with pytest.raises(RunNotFound):
        store_with_run.drift.add_shard(make_shard(), run_id="id-9")
    assert (store_with_run.drift.list_profiles("id-1"), store_with_run.drift.list("id-1")) == ([], [])


def test_distances_between_checkpoints_are_no_measurements(store_with_run: Store) -> None:
    distances = [make_measurement(step=20), make_measurement(step=10)]
    store_with_run.drift.add_distances(distances)
    assert store_with_run.drift.list_distances("id-1") == distances[::-1]
    assert store_with_run.drift.list("id-1") == store_with_run.drift.list_distances(None) == []


def test_what_is_stored_is_not_stored_again_under_a_later_time(store_with_run: Store) -> None:
    drift, later = store_with_run.drift, MOMENT + timedelta(seconds=1)
    profile, measurement = make_profile(), make_measurement()
    assert drift.add_profile(profile, [measurement]) is profile
    assert drift.add_distances([measurement]) == (measurement,)
    n_entries = store_with_run.ledger.head().seq
    again = replace(profile, measured_at=later)
    assert repr(drift.add_profile(again, [replace(measurement, measured_at=later)])) == repr(profile)
    other = replace(measurement, checkpoint="checkpoints/20", measured_at=later)
    assert drift.add_distances([other, replace(measurement, measured_at=later)]) == (other, measurement)
    assert (len(drift.list_profiles("id-1")), drift.list("id-1")) == (1, [measurement])
    assert drift.list_distances("id-1") == [measurement, other]
    # of the other distance alone
    assert store_with_run.ledger.head().seq == n_entries + 1


@pytest.mark.parametrize("other", [{"run_id": None}, {"step": 20}, {"checkpoint": "checkpoints/20"}, {"key": make_shard().key}])
def test_what_differs_in_run_step_checkpoint_or_key_is_another_measurement(store_with_run: Store, other: dict[str, object]) -> None:
    profiles = [make_profile(), replace(make_profile(), **other)]  # type: ignore[arg-type]
    assert [store_with_run.drift.add_profile(one) is one for one in profiles] == [True, True]


def measure_at_once(url: str) -> None:
    """Let two processes store the same measurements, beginning together; then look that each is there once."""
    with open_store(url) as store:
        store.runs.add(make_run())
    command, root = [sys.executable, "-c", MEASURE_ALL, url], Path(__file__).parents[2]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[1] for process in processes] == ["", ""]
    steps = [*range(40)]
    with open_store(url) as store:
        profiles = store.drift.list_profiles("id-1")
        assert [one.step for one in profiles] == steps
        assert [one.step for one in store.drift.list_distances("id-1")] == steps
        # The measurements are those of whoever was first with the profile.
        assert [(one.step, one.measured_at) for one in store.drift.list("id-1")] == [(one.step, one.measured_at) for one in profiles]
        assert len(store.drift.list_stored([make_shard(step).key for step in steps])) == 40
        assert verify_ledger(store).breaks == ()


def test_two_processes_that_measure_the_same_at_once_store_it_once_in_one_sqlite_file(store_url: str) -> None:
    measure_at_once(store_url)


def test_two_processes_that_measure_the_same_at_once_store_it_once_on_postgresql(postgresql_url: str) -> None:
    measure_at_once(postgresql_url)


def test_whoever_measures_a_run_that_is_being_deleted_waits_for_that_and_holds_nobody_up(postgresql_url: str) -> None:
    refused: list[str] = []

    def measure() -> None:
        with open_store(postgresql_url) as other:
            for add in (lambda: other.drift.add_profile(make_profile()), lambda: other.drift.add_distances([make_measurement()])):
                try:
                    add()
                except RunNotFound as error:
                    refused.append(str(error))

    thread = threading.Thread(target=measure)
    with open_store(postgresql_url) as store:
        store.runs.add(make_run())
        with store._database.writing() as connection:
            connection.execute(delete(runs))
            thread.start()
            while not connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                time.sleep(0.01)
            store.ledger.append(connection, [LedgerDraft("run_deleted", {"name": "run-1", "n_steps": 0}, "id-1")])
        thread.join(timeout=30)
        assert len(refused) == 2
        assert (store.drift.list_profiles("id-1"), store.drift.list_distances("id-1")) == ([], [])


def test_the_runs_with_measured_checkpoints_are_counted_by_name(store_with_run: Store) -> None:
    for number, name in ((2, "b"), (3, "a")):
        store_with_run.runs.add(make_run(number, name=name))
    measured = [make_measurement("id-2", step=step) for step in (10, 20)]
    distinct = [replace(one, checkpoint=f"checkpoints/{one.step}") for one in measured]
    store_with_run.drift.add_all([*distinct, make_measurement("id-3"), make_measurement("id-3", part="trigger"), make_measurement(None)])
    assert [*store_with_run.drift.count_measured().items()] == [("a", 1), ("b", 2)]


def test_with_a_run_go_its_shards_but_those_that_others_have_need_of(store_with_run: Store) -> None:
    store, drift = store_with_run, store_with_run.drift
    store.runs.add(make_run(2))
    own, lent, unfinished, borrowed, of_none = (make_shard(number) for number in range(1, 6))
    for shard in (own, lent, unfinished):
        drift.add_shard(shard, run_id="id-1")
    drift.add_shard(borrowed, run_id="id-2")
    drift.add_shard(of_none)
    drift.add_profile(make_profile("id-1", shards=(own.key, lent.key, borrowed.key)), [make_measurement()])
    drift.add_profile(make_profile("id-2", shards=(borrowed.key,)))
    drift.add_profile(make_profile(None, shards=(lent.key,)))
    drift.add_distances([make_measurement()])
    keys = [shard.key for shard in (own, lent, unfinished, borrowed, of_none)]

    store.runs.delete("id-1")
    assert [key in drift.find_shards(keys) for key in keys] == [False, True, False, True, True]
    assert (drift.list("id-1"), drift.list_distances("id-1"), drift.list_profiles("id-1")) == ([], [], [])
    assert verify_ledger(store).breaks == ()
    # Borrowed from id-1, whose profiles are gone: the last to have need of it was id-2.
    store.runs.delete("id-2")
    assert [key in drift.find_shards(keys) for key in keys] == [False, True, False, False, True]
    assert verify_ledger(store).breaks == ()
