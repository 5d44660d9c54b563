import pytest

from klaudit.errors import RunNotFound, StoreError
from klaudit.records import KLBudget, TextSample
from klaudit.store import Store
from klaudit.workflows.pages import Pages, open_pages
from tests.workflows.recordings import begin, make_step, record_all


@pytest.fixture
def pages(store_url: str) -> Pages:
    with begin(store_url, budgets=[KLBudget(1.0, "nats_per_sequence")]) as recorder:
        recorder.log(make_step(1, 0.1), samples=[TextSample(1, "p", "c", ())])
        record_all(recorder, [0.2, 2.0], first_step=2)
    return open_pages(store_url)


def test_pages_read_what_was_recorded(pages: Pages) -> None:
    run = pages.find_run("run")
    assert len(pages.show_runs().rows) == 1
    assert pages.list_sample_steps(run.id) == [1]
    assert len(pages.show_samples(run.id, step=1)) == 1
    assert [marker.code for marker in pages.show_run(run.id).markers] == ["KLA101"]
    assert pages.show_drift(run.id).run_id == run.id


def test_the_state_of_a_run_changes_with_every_step(pages: Pages, store_url: str) -> None:
    run = pages.find_run("run")
    before = pages.read_state(run.id)
    assert (before.status, before.n_steps) == ("finished", 3)
    with begin(store_url, resumed_from_step=3) as recorder:
        record_all(recorder, [0.3], first_step=4)
        during = pages.read_state(run.id)
    assert (during.status, during.n_steps) == ("running", 4)
    assert pages.read_state(run.id).status == "finished"


def test_pages_cannot_change_the_store(pages: Pages) -> None:
    store: Store = pages._store
    with pytest.raises(StoreError):
        store.runs.delete(pages.find_run("run").id)
    assert pages.find_run("run").name == "run"


def test_a_run_that_is_not_there_is_named(pages: Pages) -> None:
    for read in (pages.find_run, pages.read_state, pages.show_run, pages.show_drift):
        with pytest.raises(RunNotFound, match="nobody"):
            read("nobody")
