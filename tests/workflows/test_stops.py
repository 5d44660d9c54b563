from klaudit.records import KLBudget
from klaudit.store import Store
from klaudit.workflows.ledger import verify_ledger
from klaudit.workflows.stops import list_stops
from tests.workflows.recordings import begin, make_step

BUDGET = KLBudget(1.0, "nats_per_sequence", on="value", action="stop", owner="Ada")


def test_a_stop_says_after_which_step_and_why(store_url: str, store: Store) -> None:
    with begin(store_url, budgets=[BUDGET]) as recorder:
        assert recorder.log(make_step(1, 0.5)) == ()
        (finding,) = [one for one in recorder.log(make_step(2, 3.0)) if one.code == "KLA101"]
        recorder.note_stop(finding)
    (stop,) = list_stops(store, recorder.run.id)
    assert (stop.segment, stop.step, stop.budget["owner"]) == (0, 2, "Ada")
    assert stop.label == f"after step 2 of segment 0, by a KL budget: {finding.message}"
    assert set(stop.to_dict()) == {"at", "segment", "step", "why", "budget"}
    assert verify_ledger(store).is_intact


def test_a_run_that_nothing_stopped_has_no_stops(store_url: str, store: Store) -> None:
    with begin(store_url, budgets=[BUDGET]) as recorder:
        recorder.log(make_step(1, 0.5))
    assert list_stops(store, recorder.run.id) == ()


def test_a_stop_of_a_spoiled_entry_is_listed_as_far_as_it_can_be_read(store_url: str, store: Store) -> None:
    with begin(store_url) as recorder:
        recorder.log(make_step(1, 0.5))
    store.ledger.note("stopped", {}, run_id=recorder.run.id)
    (stop,) = list_stops(store, recorder.run.id)
    assert (stop.segment, stop.step, stop.why, dict(stop.budget)) == (None, None, "", {})
