import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert

from klaudit.errors import DuplicateStep, InvalidRecord
from klaudit.ledger import EMPTY_HEAD, verify_entries
from klaudit.records import Checkpoint, KLBudget, LoggedStep, Segment
from klaudit.records.ledger import LedgerDraft
from klaudit.store import Store, open_store
from klaudit.store.actor import identify_actor
from klaudit.store.tables import ledger_entries
from tests.store.examples import DIGEST, FULL, MOMENT, make_measurement, make_run, make_sample, make_step


def kinds(store: Store, run_id: str | None = None) -> list[str]:
    return [one.kind for one in store.ledger.list(run_id=run_id)]


def test_an_empty_ledger_has_a_head(store: Store) -> None:
    assert store.ledger.head() == EMPTY_HEAD
    assert store.ledger.list() == []


def test_the_last_entry_of_a_kind_about_a_run_is_found(store: Store) -> None:
    run = make_run()
    store.runs.add(run)
    for number in range(3):
        store.ledger.note("policy_set", {"segment": number, "rules": {"KLA201": {"critical_kl": 0.5}}}, run_id=run.id)
    store.ledger.note("policy_set", {"segment": 9}, run_id="another")
    found = store.ledger.find_last("policy_set", run_id=run.id)
    assert found == store.ledger.list(run_id=run.id)[-1]
    assert found.body == {"segment": 2, "rules": {"KLA201": {"critical_kl": 0.5}}}
    assert store.ledger.find_last("audited", run_id=run.id) is None
    assert store.ledger.find_last("policy_set", run_id="nobody") is None


def test_everything_that_is_done_to_a_run_has_an_entry(store: Store) -> None:
    run = make_run()
    store.runs.add(run)
    store.runs.add_segment(Segment(run.id, 0, MOMENT, host="trainer-3", pid=7))
    store.steps.add_all(run.id, [LoggedStep(make_step(1), (make_sample(1),)), LoggedStep(make_step(2))])
    store.runs.set_trainer(run.id, framework="trl", algorithm="grpo")
    store.runs.set_identity(run.id, {"policy": DIGEST})
    store.runs.set_series(run.id, {"kl_k1": replace(FULL, estimator="k1")})
    store.checkpoints.add(Checkpoint(run.id, 2, "checkpoints/2", MOMENT))
    store.drift.add_all([make_measurement(), make_measurement(part="held-out")])
    budget = store.budgets.add(KLBudget(2.0, "nats_per_sequence", run_id=run.id))
    store.budgets.remove(budget.id)
    store.runs.set_loss(run.id, 0, n_lost=3, reason="no disk")
    store.runs.end_segment(run.id, 0, MOMENT)
    store.runs.delete(run.id)
    assert kinds(store) == [
        "ledger_began",
        "run_opened",
        "series_declared",
        "segment_began",
        "steps",
        "trainer_declared",
        "identity_declared",
        "series_declared",
        "checkpoint",
        "drift_measured",
        "budget_set",
        "budget_removed",
        "steps_lost",
        "segment_ended",
        "run_deleted",
    ]
    entries = store.ledger.list()
    assert list(verify_entries(entries)) == []
    batch = entries[4].body
    assert {name: batch[name] for name in ("segment", "first_step", "last_step", "n_steps", "n_samples")} == {
        "segment": 0,
        "first_step": 1,
        "last_step": 2,
        "n_steps": 2,
        "n_samples": 1,
    }
    assert entries[-1].body == {"name": run.name, "n_steps": 2}


def test_heads_are_those_of_the_last_entries(store: Store) -> None:
    for number in (1, 2):
        store.runs.add(make_run(number))
    for step in range(3):
        store.steps.add("id-1", make_step(step))
    store.budgets.add(KLBudget(2.0, "nats_per_sequence"))
    entries, head = store.ledger.list(), store.ledger.head()
    assert (head.seq, head.hash, head.at, head.n_entries) == (len(entries), entries[-1].hash, entries[-1].at, len(entries))
    heads = store.ledger.heads_by_run()
    assert tuple(heads.values()) == head.runs
    for run_id in ("id-1", "id-2"):
        last = store.ledger.list(run_id=run_id)[-1]
        assert (heads[run_id].run_seq, heads[run_id].seq, heads[run_id].hash) == (last.run_seq, last.seq, last.hash)


def test_entries_come_a_few_at_a_time(store_with_run: Store) -> None:
    whole = store_with_run.ledger.list()
    assert store_with_run.ledger.list(after_seq=1, limit=1) == whole[1:2]
    assert store_with_run.ledger.list(after_seq=len(whole)) == []


def test_an_entry_is_kept_with_its_change_or_not_at_all(store_with_run: Store) -> None:
    store_with_run.steps.add("id-1", make_step(1))
    before = store_with_run.ledger.head()
    with pytest.raises(DuplicateStep):
        store_with_run.steps.add("id-1", make_step(1))
    assert store_with_run.steps.add_all("id-1", [LoggedStep(make_step(1))]) == 0

    def add_both() -> None:
        with store_with_run.together():
            store_with_run.steps.add("id-1", make_step(2))
            store_with_run.steps.add("id-1", make_step(1))

    with pytest.raises(DuplicateStep):
        add_both()
    assert store_with_run.ledger.head() == before


def test_steps_of_two_segments_make_two_entries(store_with_run: Store) -> None:
    store_with_run.steps.add_all(
        "id-1", [LoggedStep(make_step(step, segment=segment)) for step, segment in ((7, 1), (3, 0), (8, 1), (4, 0))]
    )
    batches = [one.body for one in store_with_run.ledger.list() if one.kind == "steps"]
    assert [(one["segment"], one["first_step"], one["last_step"]) for one in batches] == [(0, 3, 4), (1, 7, 8)]


def test_a_batch_needs_steps(store_with_run: Store) -> None:
    before = store_with_run.ledger.head()
    with store_with_run._database.writing() as connection:
        store_with_run.ledger.append_batch(connection, "id-1", [], leaves=[])
    assert store_with_run.ledger.head() == before


def test_what_json_cannot_hold_makes_no_entry(store_with_run: Store) -> None:
    before = store_with_run.ledger.head()
    with pytest.raises(InvalidRecord, match="expected what JSON can hold"):
        store_with_run.ledger.note("run_imported", {"file": object()}, run_id="id-1")
    assert store_with_run.ledger.head() == before


def test_the_first_entry_names_what_is_older(store_with_run: Store) -> None:
    with store_with_run._database.writing() as connection:
        connection.execute(ledger_entries.delete())
    store_with_run.runs.add(make_run(2))
    first = store_with_run.ledger.list(limit=1)[0]
    assert (first.kind, first.body["runs"], first.body["budgets"]) == ("ledger_began", ["id-1"], [])


def test_a_number_is_given_once(store_with_run: Store) -> None:
    last = store_with_run.ledger.list()[-1]
    row = {column.name: getattr(last, column.name) for column in ledger_entries.columns} | {"actor": {}, "hash": DIGEST}
    with pytest.raises(Exception, match="refused a row"), store_with_run._database.writing() as connection:
        connection.execute(insert(ledger_entries), row)


def test_an_entry_names_who_wrote_it(store_file: Path) -> None:
    with open_store(f"sqlite:///{store_file}", actor="Ada") as opened:
        opened.ledger.note("run_imported", {})
        actor = opened.ledger.list()[-1].actor
    assert (actor.name, actor.pid) == ("Ada", os.getpid())
    assert actor.label == f"Ada ({actor.user}@{actor.host})"


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert identify_actor().user == f"uid {2**31 - 7}"
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert identify_actor().user == "root"


def test_many_writers_make_one_chain(store: Store, request: pytest.FixtureRequest) -> None:
    """Threads of one store; of a store in memory there is one connection, which is for one thread."""
    writers = ["id-0"] if "memory" in request.node.callspec.id else ["id-0", "id-1", "id-2", "id-3"]
    for run_id in writers:
        store.runs.add(replace(make_run(), id=run_id, name=run_id))

    def write(run_id: str) -> None:
        for step in range(12):
            store.steps.add(run_id, make_step(step))

    threads = [threading.Thread(target=write, args=(one,)) for one in writers[1:]]
    for thread in threads:
        thread.start()
    write("id-0")
    for thread in threads:
        thread.join()
    entries = store.ledger.list()
    assert list(verify_entries(entries)) == []
    assert sum(one.kind == "steps" for one in entries) == 12 * len(writers)


def test_one_append_may_hold_several_entries(store_with_run: Store) -> None:
    with store_with_run._database.writing() as connection:
        store_with_run.ledger.append(
            connection,
            [LedgerDraft("run_imported", {"part": number}, run_id) for number, run_id in enumerate(("id-1", None, "id-1", "id-9"))],
        )
    entries = store_with_run.ledger.list()
    assert list(verify_entries(entries)) == []
    assert [one.body["part"] for one in entries[-4:]] == [0, 1, 2, 3]
