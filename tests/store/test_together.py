"""Several writes as one: all of them are kept, or none."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from klaudit.errors import NameTaken
from klaudit.store import Store, open_store
from tests.store.examples import make_run

OTHER = replace(make_run(), id="b", name="b")


def test_what_is_written_together_is_kept_together(store: Store) -> None:
    with store.together():
        store.runs.add(make_run())
        store.runs.set_status(make_run().id, "failed")
        # What was written is read back inside the block.
        assert store.runs.get(make_run().id).status == "failed"
    assert [one.run.status for one in store.runs.list()] == ["failed"]


def fail_together(store: Store, write: Callable[[], object]) -> None:
    with store.together():
        write()
        raise ZeroDivisionError


def add_twice_together(store: Store) -> None:
    with store.together():
        store.runs.add(make_run())
        store.runs.add(make_run())


def test_an_exception_undoes_all_of_it(store: Store) -> None:
    def add_two() -> None:
        store.runs.add(make_run())
        with store.together():
            store.runs.add(OTHER)

    with pytest.raises(ZeroDivisionError):
        fail_together(store, add_two)
    assert store.runs.list() == []
    store.runs.add(make_run())
    assert len(store.runs.list()) == 1


def test_a_broken_constraint_is_said_as_always_and_undoes_all_of_it(store: Store) -> None:
    with pytest.raises(NameTaken, match="expected a new name"):
        add_twice_together(store)
    assert store.runs.list() == []


def test_another_thread_writes_for_itself(store_url: str) -> None:
    with open_store(store_url) as store:
        other = threading.Thread(target=store.runs.add, args=(OTHER,))

        def add_while_other_waits() -> None:
            other.start()
            store.runs.add(make_run())

        with pytest.raises(ZeroDivisionError):
            fail_together(store, add_while_other_waits)
        other.join()
        assert [one.run.name for one in store.runs.list()] == ["b"]
