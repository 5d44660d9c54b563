import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klaudit.records import KLReading, LoggedStep, RollUp, StepRecord
from klaudit.store import LEVELS, Store
from klaudit.store.rollups import MAX_KEYS, list_values
from tests.store.examples import FULL, make_run, make_step

VALUES = st.floats().map(lambda value: value + 0.0) | st.just(math.nan) | st.sampled_from([0.5, 0.25])
STEPS = st.dictionaries(st.tuples(st.integers(0, 1), st.integers(0, 200)), VALUES, max_size=40)


def summarize(key: str, level: int, records: Sequence[StepRecord]) -> list[RollUp]:
    """The same by its definition."""
    found = []
    for segment, bucket in sorted({(one.segment, one.step // level) for one in records}):
        inside = [one for one in records if (one.segment, one.step // level) == (segment, bucket) and key in list_values(one)]
        points = [(list_values(one)[key], one.step) for one in inside]
        finite = [point for point in points if math.isfinite(point[0])]
        low = min((value for value, _ in finite), default=None)
        high = max((value for value, _ in finite), default=None)
        found.append(
            RollUp(
                key,
                level,
                segment,
                bucket,
                n=len(finite),
                min=low,
                min_step=min((step for value, step in finite if value == low), default=None),
                max=high,
                max_step=min((step for value, step in finite if value == high), default=None),
                total=None,
                n_non_finite=len(points) - len(finite),
                first_step=min(step for _, step in points),
                last_step=max(step for _, step in points),
            )
        )
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(values=STEPS, cut=st.integers(0, 40))
def test_buckets_hold_the_extremes_of_their_steps_however_these_came_in_batches(
    store: Store, values: dict[tuple[int, int], float], cut: int
) -> None:
    records = [make_step(step, segment=segment, kl=value) for (segment, step), value in sorted(values.items())]
    logged = [LoggedStep(one) for one in records]
    store.runs.add(make_run())
    try:
        store.steps.add_all("id-1", logged[:cut])
        store.steps.add_all("id-1", logged[max(0, cut - 3) :])
        for level in LEVELS:
            assert [replace(one, total=None) for one in store.rollups.read("id-1", "kl", level)] == summarize("kl", level, records)
    finally:
        store.runs.delete("id-1")


def test_a_bucket_has_the_sum_of_its_finite_values(store_with_run: Store) -> None:
    for step, kl in enumerate([0.5, math.nan, 1.5, 4.0]):
        store_with_run.steps.add("id-1", make_step(step, kl=kl))
    (bucket,) = store_with_run.rollups.read("id-1", "kl", 1024)
    assert (bucket.n, bucket.n_non_finite, bucket.total) == (3, 1, 6.0)


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_a_sum_beyond_the_range_of_a_float_is_none(store_with_run: Store, in_one_batch: bool) -> None:
    logged = [LoggedStep(make_step(step, kl=1.7e308)) for step in range(3)]
    for batch in [logged] if in_one_batch else [[one] for one in logged]:
        store_with_run.steps.add_all("id-1", batch)
    (bucket,) = store_with_run.rollups.read("id-1", "kl", 64)
    assert (bucket.n, bucket.total, bucket.max) == (3, None, 1.7e308)


def test_every_number_of_a_step_has_a_bucket_and_its_own_fields_come_first(store_with_run: Store) -> None:
    step = replace(make_step(), metrics={"entropy": 2.0, "beta": 99.0, "kl": 99.0})
    store_with_run.steps.add("id-1", step)
    found = {
        key: one.max for key in ("kl", "kl_update", "beta", "score", "entropy") for one in store_with_run.rollups.read("id-1", key, 64)
    }
    assert found == {"kl": 0.25, "kl_update": 0.125, "beta": 0.05, "score": 0.5, "entropy": 2.0}


def test_the_first_keys_of_a_run_are_rolled_up_and_no_more(store_with_run: Store) -> None:
    for step in (1, 2):
        metrics = {f"metric_{step}_{number}": 1.0 for number in range(MAX_KEYS)}
        store_with_run.steps.add("id-1", replace(make_step(step), metrics=metrics))
    keys = [f"metric_1_{number}" for number in range(MAX_KEYS)]
    rolled_up = [key for key in keys if store_with_run.rollups.read("id-1", key, 64)]
    assert rolled_up == keys[: MAX_KEYS - 4]  # beside kl, kl_update, beta and score
    assert store_with_run.rollups.read("id-1", "metric_2_0", 64) == []
    assert [one.n for one in store_with_run.rollups.read("id-1", "kl", 64)] == [2]


def test_one_segment_can_be_read_alone(store_with_run: Store) -> None:
    store_with_run.steps.add_all("id-1", [LoggedStep(make_step(step, segment=segment)) for segment in (0, 1) for step in (1, 70)])
    assert [(one.segment, one.bucket) for one in store_with_run.rollups.read("id-1", "kl", 64)] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [one.bucket for one in store_with_run.rollups.read("id-1", "kl", 64, segment=1)] == [0, 1]


def test_buckets_with_something_broken_are_found(store_with_run: Store) -> None:
    logged = [LoggedStep(make_step(step)) for step in range(300)]
    logged[70] = LoggedStep(make_step(70, kl=math.nan))
    logged[130] = LoggedStep(replace(make_step(130), kl=KLReading.absent(FULL, "no reference model")))
    logged[260] = LoggedStep(replace(make_step(260), metrics={"entropy": math.inf}))
    store_with_run.steps.add_all("id-1", logged)
    assert store_with_run.rollups.list_broken("id-1", ["kl", "entropy"]) == [(0, 1), (0, 2), (0, 4)]
    assert store_with_run.rollups.list_broken("id-1", ["entropy"]) == [(0, 4)]
