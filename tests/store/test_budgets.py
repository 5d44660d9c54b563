from dataclasses import replace

import pytest
from sqlalchemy import func, select

from klaudit.errors import InvalidRecord
from klaudit.records import KLBudget
from klaudit.store import Store
from klaudit.store.tables import kl_budgets
from tests.store.examples import MOMENT, make_run

WINDOW = KLBudget(
    2.5,
    unit="nats_per_token",
    scope="window",
    window_steps=20,
    on="value",
    action="stop",
    owner="Ada",
    reason="release 7",
    match="prod-*",
    id="b-1",
    created_at=MOMENT,
)


def test_a_budget_comes_back_as_it_was_set(store: Store) -> None:
    assert store.budgets.add(WINDOW) == WINDOW
    assert store.budgets.list() == [WINDOW]


def test_the_store_gives_a_budget_its_id_and_time(store: Store) -> None:
    plain = KLBudget(10.0, unit="nats_per_sequence")
    one, other = store.budgets.add(plain), store.budgets.add(plain)
    assert one.id
    assert one.id != other.id
    assert one.created_at is not None
    assert replace(one, id="", created_at=None) == plain
    assert {budget.id for budget in store.budgets.list()} == {one.id, other.id}


def test_a_run_gets_the_budgets_that_cover_it(store: Store) -> None:
    prod, dev = make_run(1, name="prod-7"), make_run(2, name="dev-7")
    store.runs.add(prod)
    store.runs.add(dev)
    by_name = store.budgets.add(WINDOW)
    by_run = store.budgets.add(KLBudget(10.0, unit="nats_per_sequence", run_id=dev.id))
    for_all = store.budgets.add(KLBudget(20.0, unit="nats_per_sequence"))
    assert {one.id for one in store.budgets.for_run(prod)} == {by_name.id, for_all.id}
    assert {one.id for one in store.budgets.for_run(dev)} == {by_run.id, for_all.id}


def test_a_removed_budget_binds_nobody_but_its_row_stays(store: Store) -> None:
    store.budgets.add(WINDOW)
    store.budgets.remove("b-1")
    assert store.budgets.list() == []
    with store._database.reading() as connection:
        assert connection.scalar(select(func.count()).where(kl_budgets.c.removed_at.is_not(None))) == 1
    with pytest.raises(InvalidRecord, match="got 'b-1'"):
        store.budgets.remove("b-1")
    with pytest.raises(InvalidRecord, match="there is or was one with id 'b-1'"):
        store.budgets.add(WINDOW)


def test_the_history_of_a_run_says_until_when_a_budget_held_and_who_removed_it(store: Store) -> None:
    prod, dev = make_run(1, name="prod-7"), make_run(2, name="dev-7")
    for run in (prod, dev):
        store.runs.add(run)
    store.budgets.add(WINDOW)
    store.budgets.add(KLBudget(10.0, unit="nats_per_sequence", run_id=dev.id, id="b-2", created_at=MOMENT))
    store.budgets.remove("b-1")
    (term,) = store.budgets.history(prod)
    assert term.budget == WINDOW
    assert term.removed_at is not None
    assert term.removed_by == store.ledger.actor.label
    (other,) = store.budgets.history(dev)
    assert (other.budget.id, other.removed_at, other.removed_by) == ("b-2", None, None)
