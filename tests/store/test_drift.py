from dataclasses import replace

import pytest

from klaudit.errors import InvalidRecord
from klaudit.store import Store
from tests.store.examples import make_measurement


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
