from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from klaudit.errors import InvalidRecord, RunNotFound, StoreUnreachable
from klaudit.records import KLReading, LoggedStep
from klaudit.store import Store, open_store
from klaudit.store.intake import Refused, apply_entry, store_findings, store_steps
from klaudit.store.steps import StepRepository
from tests.store.examples import FULL, UPDATE, make_finding, make_run, make_sample, make_step


def refuse_rows(store: Store, table: str, when: str) -> None:
    """A constraint that a store of ours does not have, and that somebody's may."""
    with store._database.writing() as connection:
        connection.execute(
            text(f"CREATE TRIGGER {table}_refused BEFORE INSERT ON {table} WHEN {when} BEGIN SELECT RAISE(ABORT, 'no room'); END")
        )


@pytest.fixture
def sqlite_store(store_url: str) -> Iterator[Store]:
    with open_store(store_url) as opened:
        opened.runs.add(make_run())
        yield opened


def test_a_batch_is_stored_but_for_the_steps_that_no_store_can_hold(store_with_run: Store) -> None:
    store = store_with_run
    steps = [LoggedStep(make_step(step), (make_sample(step),)) for step in range(1, 41)]
    steps[6] = replace(steps[6], samples=(make_sample(7), make_sample(7)))
    bad = replace(make_step(30), kl=KLReading(FULL, 0.1, n_sequences=2**70))
    steps[29] = LoggedStep(bad)
    steps[30] = LoggedStep(replace(make_step(31), kl=KLReading(UPDATE, 0.1)))
    told: list[int | None] = []
    refused = store_steps(
        store, "id-1", steps, findings=[make_finding()], on_refused=lambda _, one: told.append(None if one is None else one.record.step)
    )
    assert (refused, told) == (Refused((30, 31)), [None, 7, 30, 31])
    assert [one.step for one in store.steps.list("id-1")] == [step for step in range(1, 41) if step not in (30, 31)]
    assert store.samples.steps_with_samples("id-1") == [step for step in range(1, 41) if step not in (7, 30, 31)]
    assert [one.id for one in store.findings.list("id-1")] == ["finding-1"]
    with pytest.raises(RunNotFound):
        store_steps(store, "nobody", steps, on_refused=lambda *_: None)


def test_a_store_that_fails_in_the_middle_of_a_batch_is_no_refusal(store_with_run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Iterator[Exception] = iter([InvalidRecord("one of them"), StoreUnreachable("locked")])
    monkeypatch.setattr(StepRepository, "add_all", lambda *_, **__: (_ for _ in ()).throw(next(answers)))
    told: list[object] = []
    with pytest.raises(StoreUnreachable):
        store_steps(store_with_run, "id-1", [LoggedStep(make_step())], on_refused=lambda _, one: told.append(one))
    assert told == [None]


def test_a_row_that_a_constraint_refuses_does_not_keep_its_batch_out(sqlite_store: Store) -> None:
    refuse_rows(sqlite_store, "steps", "NEW.step IN (7, 30)")
    told: list[Any] = []
    steps = [LoggedStep(make_step(step), (make_sample(step),)) for step in range(1, 41)]
    refused = store_steps(sqlite_store, "id-1", steps, findings=[make_finding()], on_refused=lambda error, one: told.append((error, one)))
    assert refused == Refused((7, 30))
    assert [one.step for one in sqlite_store.steps.list("id-1")] == [step for step in range(1, 41) if step not in (7, 30)]
    assert [one.id for one in sqlite_store.findings.list("id-1")] == ["finding-1"]
    assert {str(error).partition(" refused a row")[2] for error, one in told if one is not None} == {", and nothing was written: no room"}


def test_a_finding_that_a_constraint_refuses_does_not_keep_the_others_out(sqlite_store: Store) -> None:
    refuse_rows(sqlite_store, "findings", "NEW.id = 'finding-2'")
    findings = [replace(make_finding(), id=f"finding-{n}") for n in (1, 2, 3)]
    told: list[Exception] = []
    refused = store_findings(sqlite_store, "id-1", findings, on_refused=lambda error, _: told.append(error))
    assert ([one.id for one in refused], [type(error) for error in told]) == (["finding-2"], [InvalidRecord])
    assert [one.id for one in sqlite_store.findings.list("id-1")] == ["finding-1", "finding-3"]
    assert store_findings(sqlite_store, "id-1", findings[:1], on_refused=lambda error, _: told.append(error)) == ()
    with pytest.raises(RunNotFound):
        store_findings(sqlite_store, "nobody", findings, on_refused=lambda *_: None)


def test_a_stop_is_in_the_ledger_once_however_often_it_is_told(store_with_run: Store) -> None:
    entry = ("stopped", {"step": 3, "finding": "finding-1", "code": "KLA101", "why": "over", "budget": {"limit": 1.0}})
    for segment in (0, 0, 1, 0):
        apply_entry(store_with_run, "id-1", segment, entry)
    stops = store_with_run.ledger.list(run_id="id-1", kind="stopped")
    assert [(one.body["segment"], one.body["step"]) for one in stops] == [(0, 3), (1, 3)]
