from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, event, func, select

from klaudit.errors import NameTaken, RunNotFound
from klaudit.records import Checkpoint, KLBudget, KLReading, Run, Segment, Severity
from klaudit.store import Store
from klaudit.store.tables import metadata
from tests.store.examples import DIGEST, FULL, MOMENT, UPDATE, make_alert, make_finding, make_measurement, make_run, make_sample, make_step


@contextmanager
def counting_statements() -> Iterator[list[str]]:
    seen: list[str] = []

    def note(*arguments: object) -> None:
        seen.append(str(arguments[2]))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def fill(store: Store, run: Run) -> None:
    """Something of everything that can belong to a run."""
    store.runs.add(run)
    store.runs.add_segment(Segment(run.id, 0, MOMENT))
    store.steps.add(run.id, make_step(), [make_sample()])
    store.checkpoints.add(Checkpoint(run.id, 10, "checkpoints/10", MOMENT))
    store.drift.add_all([make_measurement(run.id)])
    store.budgets.add(KLBudget(10.0, unit="nats_per_sequence", run_id=run.id))
    store.findings.upsert(run.id, [make_finding(run.id, key=f"finding-of-{run.id}")])
    store.alerts.add(make_alert(run.id, key=f"alert-of-{run.id}", finding_id=f"finding-of-{run.id}"))


def count_rows(store: Store) -> dict[str, int]:
    """Rows by table, but for the ledger, which outlives what it tells of."""
    tables = {name: table for name, table in metadata.tables.items() if name != "ledger_entries"}
    with store._database.reading() as connection:
        return {name: connection.scalar(select(func.count()).select_from(table)) or 0 for name, table in tables.items()}


def test_a_run_comes_back_by_id_and_by_name_as_it_was_stored(store: Store) -> None:
    run = make_run()
    store.runs.add(run)
    assert store.runs.get(run.id) == run
    assert store.runs.get(run.name) == run


def test_a_run_that_declares_nothing_comes_back_too(store: Store) -> None:
    run = Run("bare", "bare", MOMENT, beta=float("-inf"))
    store.runs.add(run)
    assert store.runs.get("bare") == run


def test_a_name_is_given_once(store: Store) -> None:
    store.runs.add(make_run(1, name="demo"))
    with pytest.raises(NameTaken, match="'demo'"):
        store.runs.add(make_run(2, name="demo"))
    assert [one.run.id for one in store.runs.list()] == ["id-1"]


def test_an_unknown_run_is_answered_with_the_nearest_names(store: Store) -> None:
    for number, name in enumerate(["healthy", "healthy-2", "other"]):
        store.runs.add(make_run(number, name=name))
    with pytest.raises(RunNotFound, match=r"got 'healty'\. Nearest names: healthy, healthy-2"):
        store.runs.get("healty")
    with pytest.raises(RunNotFound, match="holds 3 runs"):
        store.runs.get("xyz")


def test_a_word_that_is_one_runs_id_and_anothers_name_is_refused(store: Store) -> None:
    store.runs.add(make_run(1, name="a"))
    store.runs.add(make_run(2, name="id-1"))
    with pytest.raises(RunNotFound, match="id-1 and id-2"):
        store.runs.get("id-1")


def test_the_list_shows_the_latest_run_first_with_its_last_numbers(store: Store) -> None:
    store.runs.add(make_run(1))
    store.runs.add(make_run(2))
    for segment, step, kl in [(0, 5, 0.5), (0, 9, 0.75), (1, 7, float("inf"))]:
        store.steps.add("id-1", make_step(step, segment=segment, kl=kl))
    store.findings.upsert("id-1", [make_finding(key=key) for key in "ab"] + [make_finding(key="c", severity=Severity.CRITICAL)])
    empty, filled = store.runs.list()

    assert empty.run == make_run(2)
    assert (empty.n_steps, empty.last_step, empty.last_kl, empty.n_findings) == (0, None, None, {})
    assert filled.run == make_run(1)
    assert (filled.n_steps, filled.last_step, filled.last_logged_at) == (3, 7, MOMENT)
    assert filled.last_kl == make_step(7, kl=float("inf")).kl
    assert (filled.last_beta, filled.last_score) == (0.05, 0.5)
    assert filled.n_findings == {"warning": 2, "critical": 1}


def test_the_list_shows_the_governing_reading_not_the_logged_one(store: Store) -> None:
    k1 = replace(FULL, estimator="k1")
    store.runs.add(replace(make_run(), series={"kl": k1, "kl_full": FULL}))
    store.steps.add("id-1", replace(make_step(1), kl=KLReading(k1, -0.5), readings={"kl_full": KLReading(FULL, 0.25)}))
    assert store.runs.list()[0].last_kl == KLReading(FULL, 0.25)
    store.steps.add("id-1", replace(make_step(2), kl=KLReading(k1, -0.5), readings={}))
    assert store.runs.list()[0].last_kl == KLReading.absent(FULL, "step 2 has no kl_full")


def test_the_list_takes_as_many_queries_for_many_runs_as_for_one(store: Store) -> None:
    fill(store, make_run(1))
    with counting_statements() as for_one:
        store.runs.list()
    for number in range(2, 12):
        fill(store, make_run(number))
    with counting_statements() as for_many:
        store.runs.list()
    assert len(for_many) == len(for_one) > 0


def test_names_that_begin_alike_are_found_letter_by_letter(store: Store) -> None:
    for number, name in enumerate(["a%b", "a%b-2", "axb-3", "A%B-4"]):
        store.runs.add(make_run(number, name=name))
    assert store.runs.names_like("a%b") == ["a%b", "a%b-2"]


def test_a_run_can_finish(store_with_run: Store) -> None:
    end = MOMENT + timedelta(hours=1)
    store_with_run.runs.set_status("id-1", "finished", end)
    found = store_with_run.runs.get("id-1")
    assert (found.status, found.finished_at) == ("finished", end)


def test_series_of_other_keys_stay_when_some_are_declared(store_with_run: Store) -> None:
    forward = replace(FULL, direction="forward")
    store_with_run.runs.set_series("id-1", {"kl_forward": forward, "kl": replace(FULL, temperature=None)})
    assert store_with_run.runs.get("id-1").series == {"kl": replace(FULL, temperature=None), "kl_forward": forward, "kl_update": UPDATE}


def test_a_removed_run_takes_everything_of_its_own_along_and_nothing_else(store: Store) -> None:
    fill(store, make_run(1))
    before = count_rows(store)
    fill(store, make_run(2))
    store.runs.delete("id-2")
    assert count_rows(store) == before
    store.runs.delete("id-1")
    assert {name for name, count in count_rows(store).items() if count} == {"klaudit_meta"}


def test_segments_come_back_in_order_and_end(store_with_run: Store) -> None:
    first, second = Segment("id-1", 0, MOMENT, host="gpu-1", pid=4711), Segment("id-1", 1, MOMENT, resumed_from_step=10)
    store_with_run.runs.add_segment(second)
    store_with_run.runs.add_segment(first)
    store_with_run.runs.end_segment("id-1", 0, MOMENT)
    assert store_with_run.runs.segments("id-1") == [replace(first, ended_at=MOMENT), second]
    with pytest.raises(NameTaken, match="segment 1 is there already"):
        store_with_run.runs.add_segment(second)


def test_no_verb_works_on_a_run_that_is_not_there(store: Store) -> None:
    acts: list[Callable[[], None]] = [
        lambda: store.runs.set_status("id-1", "finished"),
        lambda: store.runs.set_series("id-1", {}),
        lambda: store.runs.set_identity("id-1", {}),
        lambda: store.runs.set_loss("id-1", 0, n_lost=1, reason=None),
        lambda: store.runs.delete("id-1"),
        lambda: store.runs.add_segment(Segment("id-1", 0, MOMENT)),
        lambda: store.runs.end_segment("id-1", 0, MOMENT),
        lambda: store.checkpoints.add(Checkpoint("id-1", 10, "checkpoints/10", MOMENT)),
        lambda: store.drift.add_all([make_measurement(None), make_measurement("id-1")]),
        lambda: store.findings.upsert("id-1", [make_finding()]),
        lambda: store.alerts.add(make_alert()),
    ]
    for act in acts:
        with pytest.raises(RunNotFound, match="'id-1'"):
            act()
    with pytest.raises(RunNotFound, match="'id-1'"):
        store.budgets.add(KLBudget(1.0, unit="nats_per_token", run_id="id-1"))
    assert {name for name, count in count_rows(store).items() if count} == {"klaudit_meta"}


def test_a_segment_keeps_what_its_session_says(store_with_run: Store) -> None:
    segment = Segment(
        "id-1",
        0,
        MOMENT,
        session="journal-1",
        heartbeat_at=MOMENT,
        lease_until=MOMENT + timedelta(minutes=1),
        process_started="boot 1, tick 2",
        reference_digest=DIGEST,
        controller={"beta": 0.05, "integral": float("nan")},
    )
    store_with_run.runs.add_segment(segment)
    assert repr(store_with_run.runs.find_session("journal-1")) == repr(segment)
    assert store_with_run.runs.find_session("journal-2") is None
    with pytest.raises(NameTaken, match="its session has another"):
        store_with_run.runs.add_segment(replace(segment, index=1))
    store_with_run.runs.add_segment(Segment("id-1", 1, MOMENT))
    store_with_run.runs.add_segment(Segment("id-1", 2, MOMENT))


def test_a_lease_is_renewed_until_its_segment_ends(store_with_run: Store) -> None:
    now, until = MOMENT + timedelta(seconds=1), MOMENT + timedelta(seconds=61)
    store_with_run.runs.add_segment(Segment("id-1", 0, MOMENT))
    assert store_with_run.runs.renew_lease("id-1", 0, now=now, until=until)
    (found,) = store_with_run.runs.segments("id-1")
    assert (found.heartbeat_at, found.lease_until) == (now, until)
    assert not store_with_run.runs.renew_lease("id-1", 1, now=now, until=until)
    store_with_run.runs.end_segment("id-1", 0, MOMENT)
    assert not store_with_run.runs.renew_lease("id-1", 0, now=now, until=until)


def test_lost_steps_are_counted_by_segment_and_summed_by_run(store_with_run: Store) -> None:
    for index in (0, 1):
        store_with_run.runs.add_segment(Segment("id-1", index, MOMENT))
    store_with_run.runs.set_loss("id-1", 0, n_lost=3, reason="the disk was full")
    store_with_run.runs.set_loss("id-1", 1, n_lost=4, reason=None)
    store_with_run.runs.set_loss("id-1", 0, n_lost=5, reason="the disk was full")
    assert [(one.n_lost, one.lost_reason) for one in store_with_run.runs.segments("id-1")] == [(5, "the disk was full"), (4, None)]
    assert store_with_run.runs.summarize("id-1").n_lost == 9


def test_the_identity_of_a_run_is_what_was_said_last(store_with_run: Store) -> None:
    assert store_with_run.runs.get("id-1").identity is None
    store_with_run.runs.set_identity("id-1", {"git": {"commit": "a"}})
    store_with_run.runs.set_identity("id-1", {"git": {"commit": "b", "dirty": True}})
    assert store_with_run.runs.get("id-1").identity == {"git": {"commit": "b", "dirty": True}}
    store_with_run.runs.add(replace(make_run(2), identity={"packages": {"torch": "2.13.0"}}))
    assert store_with_run.runs.get("id-2").identity == {"packages": {"torch": "2.13.0"}}


def test_a_summary_counts_what_was_measured_and_what_was_not_finite(store_with_run: Store) -> None:
    nan, inf = float("nan"), float("inf")
    for step, kl, entropy in [(1, 0.5, 1.0), (2, nan, 1.0), (3, 0.25, inf), (4, -inf, nan)]:
        store_with_run.steps.add("id-1", replace(make_step(step, kl=kl), metrics={"entropy": entropy}))
    store_with_run.steps.add("id-1", replace(make_step(5), kl=KLReading.absent(FULL, "no reference model")))
    summary = store_with_run.runs.summarize("id-1")
    assert (summary.n_steps, summary.n_kl_measured, summary.n_non_finite) == (5, 2, 3)
    assert summary.last_kl == KLReading.absent(FULL, "no reference model")
    assert store_with_run.runs.list() == [summary]


def test_a_summary_follows_the_series_that_governs(store: Store) -> None:
    k1 = replace(FULL, estimator="k1")
    store.runs.add(replace(make_run(), series={"kl": k1}))
    for step in (1, 2):
        store.steps.add("id-1", replace(make_step(step), kl=KLReading(k1, -0.5), readings={}))
    assert store.runs.summarize("id-1").n_kl_measured == 2
    store.steps.add("id-1", replace(make_step(3), kl=KLReading(k1, -0.5), readings={"kl_full": KLReading(FULL, 0.25)}))
    assert (store.runs.summarize("id-1").last_kl, store.runs.summarize("id-1").n_kl_measured) == (KLReading(FULL, 0.25), 1)
    store.runs.set_series("id-1", {"kl_full": replace(FULL, estimator="unknown")})
    assert (store.runs.summarize("id-1").last_kl, store.runs.summarize("id-1").n_kl_measured) == (KLReading(k1, -0.5), 3)


def test_a_run_that_is_not_there_has_no_summary(store_with_run: Store) -> None:
    with pytest.raises(RunNotFound, match=r"got 'run-2'\. Nearest names: run-1"):
        store_with_run.runs.summarize("run-2")
