import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klaudit.errors import DuplicateStep, InvalidRecord, RunNotFound
from klaudit.records import KLReading, KLSeries, LoggedStep, StepRecord
from klaudit.records.series import Estimator
from klaudit.store import Store, open_store
from tests.store.examples import FULL, IN_TOKYO, MOMENT, UPDATE, make_finding, make_run, make_sample, make_step

ANY_FLOAT = st.floats().map(lambda value: value + 0.0)  # SQLite keeps no sign of zero
STANDARD_ERRORS = st.none() | st.floats(min_value=0).map(abs) | st.just(float("nan"))
COUNTS = st.none() | st.integers(1, 2**31 - 1)


def readings_of(series: KLSeries) -> st.SearchStrategy[KLReading]:
    measured = st.builds(KLReading, st.just(series), ANY_FLOAT, STANDARD_ERRORS, COUNTS, st.none() | ANY_FLOAT)
    return measured | st.builds(
        KLReading.absent, st.just(series), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    )


RECORDS = st.builds(
    StepRecord,
    step=st.integers(0, 2**63 - 1),
    segment=st.integers(0, 2**31 - 1),
    kl=readings_of(FULL),
    logged_at=st.just(MOMENT),
    beta=st.none() | ANY_FLOAT,
    score=st.none() | ANY_FLOAT,
    readings=st.fixed_dictionaries({}, optional={"kl_update": readings_of(UPDATE)}),
    metrics=st.dictionaries(st.text(), st.floats()),
)


@pytest.mark.parametrize("page", [1, 2, 5, 6, 100])
def test_pages_of_any_size_give_every_step_once_and_in_order(store_with_run: Store, page: int) -> None:
    written = [replace(make_step(), step=step, segment=segment) for segment, step in [(0, 3), (0, 7), (0, 9), (1, 2), (1, 8)]]
    store_with_run.steps.add_all("id-1", [LoggedStep(one) for one in reversed(written)])
    assert list(store_with_run.steps.iterate("id-1", page=page)) == written


def test_a_run_without_steps_gives_none(store_with_run: Store) -> None:
    assert not list(store_with_run.steps.iterate("id-1"))


def test_a_step_comes_back_as_it_was_stored(store_with_run: Store) -> None:
    store_with_run.steps.add("id-1", make_step())
    assert store_with_run.steps.list("id-1") == [make_step()]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(record=RECORDS)
def test_whatever_a_trainer_computed_comes_back_non_finite_numbers_included(store: Store, record: StepRecord) -> None:
    run = make_run()
    store.runs.add(run)
    try:
        store.steps.add(run.id, record)
        assert repr(store.steps.last(run.id)) == repr(record)
    finally:
        store.runs.delete(run.id)


def test_times_come_back_with_a_zone(store_with_run: Store) -> None:
    store_with_run.steps.add("id-1", replace(make_step(), logged_at=IN_TOKYO))
    (found,) = store_with_run.steps.list("id-1")
    assert found.logged_at == IN_TOKYO
    assert found.logged_at.tzinfo is not None


def test_a_stored_step_is_never_overwritten(store_with_run: Store) -> None:
    store_with_run.steps.add("id-1", make_step(3, kl=0.25))
    with pytest.raises(DuplicateStep, match="segment 0 has step 3 already"):
        store_with_run.steps.add("id-1", make_step(3, kl=9.0), [make_sample(3)])
    assert store_with_run.steps.list("id-1") == [make_step(3, kl=0.25)]
    assert store_with_run.samples.list("id-1") == []


def test_the_same_step_of_another_segment_is_another_step(store_with_run: Store) -> None:
    store_with_run.steps.add("id-1", make_step(3))
    store_with_run.steps.add("id-1", make_step(3, segment=1))
    assert store_with_run.steps.count("id-1") == 2


def test_a_step_of_an_unknown_run_is_refused(store: Store) -> None:
    with pytest.raises(RunNotFound, match="got 'id-1'"):
        store.steps.add("id-1", make_step())
    assert store.steps.count("id-1") == 0


def test_samples_of_another_step_are_refused_and_nothing_is_written(store_with_run: Store) -> None:
    with pytest.raises(InvalidRecord, match="got one of segment 0, step 4"):
        store_with_run.steps.add("id-1", make_step(3), [make_sample(3), make_sample(4)])
    with pytest.raises(InvalidRecord, match=r"an index each; got \[1, 1\]"):
        store_with_run.steps.add("id-1", make_step(3), [make_sample(3, index=1), make_sample(3, index=1)])
    assert store_with_run.steps.count("id-1") == 0


@pytest.mark.parametrize("prompt", ["half a \ud83d character"])
def test_text_that_is_no_text_is_refused_and_nothing_is_written(store_with_run: Store, prompt: str) -> None:
    with pytest.raises(InvalidRecord, match="nothing was written"):
        store_with_run.steps.add("id-1", make_step(), [replace(make_sample(), prompt=prompt)])
    assert store_with_run.steps.count("id-1") == 0


def test_a_count_beyond_64_bits_is_refused(store_with_run: Store) -> None:
    step = make_step()
    with pytest.raises(InvalidRecord):
        store_with_run.steps.add("id-1", replace(step, kl=replace(step.kl, n_sequences=2**63)))
    assert store_with_run.steps.count("id-1") == 0


def test_a_metric_that_is_no_number_is_refused_and_nothing_is_written(store_with_run: Store) -> None:
    with pytest.raises(InvalidRecord, match=r"step 1: expected metrics that are numbers; got \{'entropy': 'high'\}"):
        store_with_run.steps.add("id-1", replace(make_step(), metrics={"entropy": "high"}))  # type: ignore[dict-item]
    assert store_with_run.steps.count("id-1") == 0


def test_series_that_nobody_declared_are_declared_by_the_first_step_that_has_them(store: Store) -> None:
    store.runs.add(replace(make_run(), series={}))
    store.steps.add("id-1", make_step())
    assert store.runs.get("id-1").series == {"kl": FULL, "kl_update": UPDATE}
    assert store.steps.list("id-1") == [make_step()]


@pytest.mark.parametrize("estimator", [one for one in get_args(Estimator) if one != "full"])
def test_a_reading_of_another_series_than_declared_is_refused(store_with_run: Store, estimator: Estimator) -> None:
    other = replace(FULL, estimator=estimator)
    with pytest.raises(InvalidRecord, match="step 1: expected the reading 'kl'"):
        store_with_run.steps.add("id-1", replace(make_step(), kl=KLReading(other, 0.5)))
    assert store_with_run.steps.count("id-1") == 0


def test_a_reading_that_was_not_measured_needs_no_declared_series(store_with_run: Store) -> None:
    absent = KLReading.absent(KLSeries(), "no reference model")
    store_with_run.steps.add("id-1", replace(make_step(), kl=absent, readings={"kl_new": absent}))
    (found,) = store_with_run.steps.list("id-1")
    assert found.kl == KLReading.absent(FULL, "no reference model")
    assert found.readings["kl_new"].not_measured == "no reference model"
    assert found.readings["kl_new"].series.kind == "unknown"


def test_series_declared_anew_hold_for_the_next_step(store_with_run: Store) -> None:
    k3 = replace(FULL, estimator="k3")
    store_with_run.steps.add("id-1", replace(make_step(1), readings={}))
    store_with_run.runs.set_series("id-1", {"kl": k3})
    store_with_run.steps.add("id-1", replace(make_step(2), kl=KLReading(k3, 0.5)))
    assert [step.kl.series for step in store_with_run.steps.list("id-1")] == [k3, k3]


def test_steps_are_listed_in_order_of_segment_and_step(store_with_run: Store) -> None:
    keys = [(1, 2), (0, 3), (1, 1), (0, 1)]
    for segment, step in keys:
        store_with_run.steps.add("id-1", make_step(step, segment=segment))

    def find(segment: int | None = None, after: tuple[int, int] | None = None, limit: int | None = None) -> list[tuple[int, int]]:
        return [(one.segment, one.step) for one in store_with_run.steps.list("id-1", segment=segment, after=after, limit=limit)]

    assert find() == [(0, 1), (0, 3), (1, 1), (1, 2)]
    assert find(segment=1) == [(1, 1), (1, 2)]
    assert find(after=(0, 3)) == [(1, 1), (1, 2)]
    assert find(after=(0, 1), limit=2) == [(0, 3), (1, 1)]
    last = store_with_run.steps.last("id-1")
    assert last is not None
    assert (last.segment, last.step) == (1, 2)


def test_a_run_without_steps_has_no_last_one(store_with_run: Store) -> None:
    assert store_with_run.steps.last("id-1") is None
    assert store_with_run.steps.list("id-1") == []


def test_a_person_with_sqlite_sees_one_row_a_step_with_its_numbers(store_file: Path) -> None:
    with open_store(f"sqlite:///{store_file}") as store:
        store.runs.add(make_run())
        store.steps.add("id-1", make_step(1))
        store.steps.add("id-1", make_step(2, kl=float("nan")))
    with sqlite3.connect(store_file) as connection:
        rows = connection.execute("select step, kl, kl_kind, beta, score from steps").fetchall()
    connection.close()
    assert rows == [(1, 0.25, "finite", 0.05, 0.5), (2, None, "nan", 0.05, 0.5)]


def test_a_batch_that_is_sent_again_is_stored_once(store_with_run: Store) -> None:
    logged = [LoggedStep(make_step(step), (make_sample(step),)) for step in range(1, 6)]
    assert store_with_run.steps.add_all("id-1", logged[:3], findings=[make_finding()]) == 3
    assert store_with_run.steps.add_all("id-1", logged, findings=[make_finding(last_step=9)]) == 2
    assert store_with_run.steps.add_all("id-1", logged) == 0
    assert store_with_run.steps.list("id-1") == [one.record for one in logged]
    assert repr(store_with_run.samples.list("id-1")) == repr([sample for one in logged for sample in one.samples])
    assert [one.last_step for one in store_with_run.findings.list("id-1")] == [9]
    assert store_with_run.runs.summarize("id-1").n_steps == 5
    assert [one.n for one in store_with_run.rollups.read("id-1", "kl", 64)] == [5]


def test_steps_that_are_there_stay_as_they_are(store_with_run: Store) -> None:
    store_with_run.steps.add("id-1", make_step(3, kl=0.25))
    assert store_with_run.steps.add_all("id-1", [LoggedStep(make_step(step, kl=9.0)) for step in (4, 3, 2, 2)]) == 2
    assert [(one.step, one.kl.value) for one in store_with_run.steps.list("id-1")] == [(2, 9.0), (3, 0.25), (4, 9.0)]


def test_a_batch_with_one_bad_step_is_refused_whole(store_with_run: Store) -> None:
    bad = replace(make_step(2), kl=KLReading(replace(FULL, estimator="k1"), 0.5))
    with pytest.raises(InvalidRecord, match="step 2: expected the reading 'kl'"):
        store_with_run.steps.add_all("id-1", [LoggedStep(make_step(1)), LoggedStep(bad)], findings=[make_finding()])
    assert store_with_run.steps.count("id-1") == 0
    assert store_with_run.findings.list("id-1") == []
    assert store_with_run.rollups.read("id-1", "kl", 64) == []


def test_a_batch_for_an_unknown_run_is_refused(store: Store) -> None:
    with pytest.raises(RunNotFound, match="got 'id-1'"):
        store.steps.add_all("id-1", [LoggedStep(make_step())])


def test_a_batch_of_nothing_does_nothing(store: Store) -> None:
    assert store.steps.add_all("id-1", []) == 0


def test_steps_are_read_by_their_places(store_with_run: Store) -> None:
    store_with_run.steps.add_all("id-1", [LoggedStep(make_step(step, segment=segment)) for segment in (0, 1) for step in range(600)])
    places = {(0, 0), (1, 599), (1, 7), (2, 1), (0, 600), *((0, step) for step in range(1, 600, 2))}
    found = [(one.segment, one.step) for one in store_with_run.steps.read("id-1", places)]
    assert found == sorted(places - {(2, 1), (0, 600)})


def test_a_nul_in_a_text_is_kept_as_its_sign_on_every_database(store_with_run: Store) -> None:
    store_with_run.steps.add("id-1", make_step(), [replace(make_sample(), prompt="a\0b", completion="\0")])
    (found,) = store_with_run.samples.list("id-1")
    assert (found.prompt, found.completion) == ("a\u2400b", "\u2400")


@pytest.mark.parametrize("name", ["a\0b", "half a \ud83d character", "x" * 256])
def test_a_metric_whose_name_cannot_be_a_key_is_stored_and_not_rolled_up(store_with_run: Store, name: str) -> None:
    step = replace(make_step(), metrics={name: 1.0, "entropy": 2.0})
    store_with_run.steps.add("id-1", step)
    assert store_with_run.steps.list("id-1") == [step]
    assert len(store_with_run.rollups.read("id-1", "entropy", 64)) == 1
