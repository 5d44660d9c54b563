"""A store that is held to its ledger, on every backend: what is done to it behind klaudit's back, and what then shows."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, update

from klaudit.ledger import EMPTY_HEAD, seal
from klaudit.records import Checkpoint, KLBudget, KLReading, LoggedStep, Segment
from klaudit.records.ledger import Actor, LedgerDraft, LedgerHead, RunHead
from klaudit.store import Store
from klaudit.store.tables import ledger_entries, steps
from klaudit.workflows.ledger import Verification, verify_ledger
from tests.store.examples import DIGEST, FULL, MOMENT, UPDATE, make_measurement, make_profile, make_run, make_sample, make_shard, make_step

STRANGE_METRICS = {"nan": math.nan, "inf": math.inf, "zero": -0.0, "whole": 3, "huge": 2**70, "tiny": 5e-324, "ünï\ud800": 1e16}


@pytest.fixture
def recorded(store: Store) -> Store:
    """Two runs side by side: batches of one and of many, two segments, checkpoints, budgets, drift, samples."""
    for number in (1, 2):
        store.runs.add(make_run(number))
        store.runs.add_segment(Segment(f"id-{number}", 0, MOMENT, host="trainer-3", pid=7))
    store.steps.add_all("id-1", [LoggedStep(make_step(step), (make_sample(step),)) for step in (1, 2, 3)])
    store.steps.add("id-2", make_step(1))
    store.steps.add_all("id-1", [LoggedStep(replace(make_step(4), metrics=STRANGE_METRICS, score=math.nan, beta=math.inf))])
    store.steps.add_all("id-2", [LoggedStep(make_step(step)) for step in (10, 20, 30, 31)])
    store.runs.add_segment(Segment("id-1", 1, MOMENT, resumed_from_step=3))
    store.steps.add_all("id-1", [LoggedStep(replace(make_step(4, segment=1), kl=KLReading.absent(FULL, "an empty batch\0")))])
    store.checkpoints.add(Checkpoint("id-1", 4, "checkpoints/4", MOMENT))
    store.checkpoints.add(Checkpoint("id-1", 4, "checkpoints/4", MOMENT, digest=DIGEST))
    store.budgets.add(KLBudget(2.0, "nats_per_sequence", id="b-run", run_id="id-1", owner="Ada"))
    store.budgets.add(KLBudget(4.0, "nats_per_token", id="b-all", match="prod-*"))
    store.budgets.remove("b-all")
    store.drift.add_all([make_measurement(), make_measurement(part="held-out"), make_measurement(None)])
    store.drift.add_shard(make_shard(), run_id="id-1")
    store.drift.add_profile(make_profile(shards=(make_shard().key, make_shard(2).key)))
    store.drift.add_distances([make_measurement()])
    store.runs.end_segment("id-1", 0, MOMENT)
    store.runs.set_status("id-1", "finished", MOMENT)
    return store


def execute(store: Store, *statements: Any) -> None:
    """As somebody does who can write to the database and has no use for klaudit."""
    with store._database.writing() as connection:
        for statement in statements:
            if isinstance(statement, str):
                connection.exec_driver_sql(statement)
            else:
                connection.execute(statement)


def whats(found: Verification) -> list[str]:
    return [one.what for one in found.breaks]


def test_a_store_that_nobody_touched_is_intact(recorded: Store) -> None:
    found = verify_ledger(recorded, anchor=recorded.ledger.head())
    assert whats(found) == []
    assert found.is_intact
    assert (found.n_steps, found.n_batches, found.n_older_runs, found.n_deleted_runs) == (10, 5, 0, 0)
    assert (found.n_entries, found.head.hash) == (recorded.ledger.head().n_entries, recorded.ledger.head().hash)


def test_an_empty_store_is_intact(store: Store) -> None:
    assert verify_ledger(store, anchor=EMPTY_HEAD).is_intact


INSERT_STEP = """INSERT INTO steps (run_id, segment, step, logged_at, kl_not_measured, readings, metrics)
VALUES ('{run}', {segment}, {step}, '2026-11-22T10:00:00.000000Z', 'none', '{{}}', '{{}}')"""

TAMPERS: dict[str, tuple[str, str]] = {
    "a value of a step": ("UPDATE steps SET kl = 0.2500001 WHERE run_id = 'id-1' AND step = 2", "steps 1 to 3 of segment 0: edited"),
    "a NaN made a number": (
        "UPDATE steps SET score = 1, score_kind = 'finite' WHERE run_id = 'id-1' AND step = 4 AND segment = 0",
        "step 4 of",
    ),
    "a number made absent": ("UPDATE steps SET beta_kind = NULL, beta = NULL WHERE run_id = 'id-2' AND step = 20", "edited in the store"),
    "a metric": (
        "UPDATE steps SET metrics = '{\"entropy\":9}' WHERE run_id = 'id-2' AND step = 31",
        "4 steps between 10 and 31 of segment 0",
    ),
    "a time": (
        "UPDATE steps SET logged_at = '2026-11-22T10:00:00.000251Z' WHERE run_id = 'id-2' AND step = 1",
        "step 1 of segment 0: edited",
    ),
    "why a KL is missing": ("UPDATE steps SET kl_not_measured = 'x' WHERE kl_not_measured IS NOT NULL", "step 4 of segment 1: edited"),
    "metrics that are no JSON": ("UPDATE steps SET metrics = '{' WHERE run_id = 'id-1' AND step = 2", "step 2 of segment 0 cannot be read"),
    "a time that is none": ("UPDATE steps SET logged_at = 'noon' WHERE run_id = 'id-1' AND step = 2", "step 2 of segment 0 cannot be read"),
    "a step deleted": ("DELETE FROM steps WHERE run_id = 'id-2' AND step = 20", "step 20 of segment 0: deleted"),
    "the last step deleted": ("DELETE FROM steps WHERE run_id = 'id-2' AND step = 31", "step 31 of segment 0: deleted"),
    "all steps of a segment deleted": ("DELETE FROM steps WHERE run_id = 'id-1' AND segment = 1", "step 4 of segment 1: deleted"),
    "a step inserted between": (INSERT_STEP.format(run="id-2", segment=0, step=15), "step 15 of segment 0: in the store, but no entry"),
    "a step inserted behind": (INSERT_STEP.format(run="id-2", segment=0, step=99), "step 99 of segment 0: in the store, but no entry"),
    "a segment inserted": (INSERT_STEP.format(run="id-2", segment=5, step=1), "step 1 of segment 5: in the store, but no entry"),
    "a step moved": ("UPDATE steps SET step = 25 WHERE run_id = 'id-2' AND step = 20", "step 20 of segment 0: deleted"),
    "a step given to another run": (
        "UPDATE steps SET run_id = 'id-2' WHERE run_id = 'id-1' AND segment = 1",
        "step 4 of segment 1: deleted",
    ),
    "a text sample deleted": ("DELETE FROM text_samples WHERE step = 2", "text samples of segment 0"),
    "a run's policy": ("UPDATE runs SET policy = 'another' WHERE id = 'id-1'", "the run was edited: policy"),
    "a run's reference": (
        f"UPDATE runs SET reference_digest = 'sha256:{'0' * 64}' WHERE id = 'id-1'",
        "the run was edited: reference_digest",
    ),
    "a run's framework": ("UPDATE runs SET framework = 'trl' WHERE id = 'id-2'", "the run was edited: framework"),
    "a run's configuration": ("UPDATE runs SET config = '{}' WHERE id = 'id-1'", "the run was edited: config_digest"),
    "a run's start": ("UPDATE runs SET started_at = 'noon' WHERE id = 'id-1'", "the run cannot be read"),
    "a run deleted": ("DELETE FROM runs WHERE id = 'id-2'", "the run is not in the store any more"),
    "a run inserted": (
        "INSERT INTO runs (id, name, status, started_at, config) VALUES ('x', 'x', 'running', '2026-11-22T10:00:00.000000Z', '{}')",
        "the run is in the store, but no entry tells of it",
    ),
    "an estimator": ("UPDATE kl_series SET estimator = 'k3' WHERE run_id = 'id-1' AND key = 'kl'", "KL series 'kl' was edited: estimator"),
    "a series deleted": ("DELETE FROM kl_series WHERE run_id = 'id-1' AND key = 'kl_update'", "KL series 'kl_update' is not in the store"),
    "who wrote a segment": ("UPDATE segments SET host = 'elsewhere' WHERE run_id = 'id-1' AND segment = 0", "segment 0 was edited: host"),
    "what a segment lost": ("UPDATE segments SET n_lost = 7 WHERE run_id = 'id-1' AND segment = 0", "segment 0 was edited: n_lost"),
    "a checkpoint's digest": (f"UPDATE checkpoints SET digest = 'sha256:{'0' * 64}'", "step 4 was edited: digest"),
    "a checkpoint deleted": ("DELETE FROM checkpoints", "checkpoint checkpoints/4 of segment 0, step 4 is not in the store"),
    "a budget loosened": ("UPDATE kl_budgets SET kl_limit = 200 WHERE id = 'b-run'", "budget b-run was edited: limit"),
    "a budget deleted": ("DELETE FROM kl_budgets WHERE id = 'b-run'", "budget b-run is not in the store"),
    "a budget taken back": (
        "UPDATE kl_budgets SET removed_at = '2026-11-22T10:00:00.000000Z' WHERE id = 'b-run'",
        "budget b-run was edited: removed_at",
    ),
    "a budget put back": ("UPDATE kl_budgets SET removed_at = NULL WHERE id = 'b-all'", "budget b-all was edited: removed_at"),
    "a budget inserted": (
        """INSERT INTO kl_budgets (id, kl_limit, unit, scope, breach_on, action, created_at)
        VALUES ('b-new', 1, 'nats_per_token', 'per_step', 'bound', 'alert', '2026-11-22T10:00:00.000000Z')""",
        "budget b-new is in the store, but no entry tells of it",
    ),
    "a measured drift": ("UPDATE drift_measurements SET value = 0.26 WHERE slice IS NULL AND run_id = 'id-1'", "drift measurement sha256:"),
    "a drift measurement deleted": ("DELETE FROM drift_measurements WHERE run_id IS NULL", "drift measurement sha256:"),
    "a distance": ("UPDATE checkpoint_distances SET low = 0.1", "distance between checkpoints sha256:"),
    "a distance taken for a drift": ("DELETE FROM checkpoint_distances", "distance between checkpoints sha256:"),
    "a drift profile": ("UPDATE drift_profiles SET contrasts = '[]'", "drift profile sha256:"),
    "a drift profile that is no JSON": ("UPDATE drift_profiles SET layers = '['", "drift profile sha256:"),
    "a drift profile deleted": ("DELETE FROM drift_profiles", "drift profile sha256:"),
    "sampled completions": ("UPDATE drift_shards SET content = 'x'", "was edited: completions"),
    "sampled completions deleted": ("DELETE FROM drift_shards", "was edited: completions"),
    "an entry's body": ("UPDATE ledger_entries SET body = '{}' WHERE seq = 8", "entry 8 (steps) was edited"),
    "an entry's body that is no JSON": ("UPDATE ledger_entries SET body = '{' WHERE seq = 8", "entry 8 (steps) was edited"),
    "an entry's actor": ("UPDATE ledger_entries SET actor = '{}' WHERE seq = 8", "entry 8 (steps) was edited"),
    "an entry's time": ("UPDATE ledger_entries SET at = '2020-01-01T00:00:00.000000Z' WHERE seq = 8", "entry 8 (steps) was edited"),
    "an entry's kind": ("UPDATE ledger_entries SET kind = 'checkpoint' WHERE seq = 8", "entry 8 (checkpoint) was edited"),
    "an entry's run": ("UPDATE ledger_entries SET run_id = 'id-2' WHERE seq = 8", "entry 8 (steps) was edited"),
    "an entry's hash": (f"UPDATE ledger_entries SET hash = 'sha256:{'0' * 64}' WHERE seq = 8", "entry 9 ("),
    "an entry deleted": ("DELETE FROM ledger_entries WHERE seq = 8", "entry 8 is missing"),
    "the first entry deleted": ("DELETE FROM ledger_entries WHERE seq = 1", "entry 1 is missing"),
    "an entry deleted and the gap closed": (
        """DELETE FROM ledger_entries WHERE seq = 8; UPDATE ledger_entries SET seq = -seq WHERE seq > 8;
        UPDATE ledger_entries SET seq = -seq - 1 WHERE seq < 0""",
        "entry 8 (",
    ),
    "two entries swapped": (
        """UPDATE ledger_entries SET seq = -1 WHERE seq = 8; UPDATE ledger_entries SET seq = 8 WHERE seq = 9;
        UPDATE ledger_entries SET seq = 9 WHERE seq = -1""",
        "entry 8 (steps) does not follow entry 7",
    ),
}


class Undone(Exception):
    """Ends a transaction that is not to be kept."""


@contextlib.contextmanager
def undoing(store: Store) -> Iterator[None]:
    """Whatever is done to the store inside is not done afterwards: one store serves for all tampers."""
    with contextlib.suppress(Undone), store.together():
        yield
        raise Undone


def test_what_is_done_behind_the_ledgers_back_shows(recorded: Store) -> None:
    unseen = {}
    for name, (statements, what) in TAMPERS.items():
        with undoing(recorded):
            execute(recorded, *statements.split(";"))
            found = verify_ledger(recorded)
            if found.is_intact or not any(what in one for one in whats(found)):
                unseen[name] = whats(found)
    assert unseen == {}
    assert verify_ledger(recorded).is_intact, "nothing of it was kept"


def test_a_break_names_run_entry_and_what_came(recorded: Store) -> None:
    execute(
        recorded, "UPDATE kl_budgets SET kl_limit = 200 WHERE id = 'b-run'", "DELETE FROM steps WHERE run_id = 'id-2' AND step IN (10, 20)"
    )
    deleted, loosened = verify_ledger(recorded).breaks
    assert (deleted.run_id, deleted.what) == ("id-2", "2 steps between 10 and 20 of segment 0: deleted from the store")
    assert deleted.seq is not None
    assert recorded.ledger.list(after_seq=deleted.seq - 1, limit=1)[0].body["last_step"] == 31
    assert (loosened.run_id, loosened.expected, loosened.came) == ("id-1", "2", "200")


def rechain(store: Store, edit: dict[str, Any]) -> None:
    """What somebody can do who may write everything: a false number, and a ledger that fits it."""
    entries = store.ledger.list()
    execute(store, delete(ledger_entries))
    head, heads = EMPTY_HEAD, dict[str | None, RunHead]()
    with store._database.writing() as connection:
        for old in entries:
            body = {**old.body, **edit} if old.kind == "budget_set" and old.body["budget"] == "b-run" else old.body
            draft: Any = LedgerDraft(old.kind, body, old.run_id)  # type: ignore[arg-type]
            new = seal(draft, at=old.at, actor=old.actor, after=head, run_head=heads.get(old.run_id))
            head = LedgerHead(new.seq, new.hash)
            if new.run_id is not None and new.run_seq is not None:
                heads[new.run_id] = RunHead(new.run_id, new.run_seq, new.seq, new.hash)
            row = {column.name: getattr(new, column.name) for column in ledger_entries.columns}
            connection.execute(
                insert(ledger_entries),
                row | {"actor": {"user": new.actor.user, "host": new.actor.host, "pid": new.actor.pid, "name": None}},
            )


def test_a_cut_tail_shows_with_an_anchor_only(recorded: Store) -> None:
    anchor = recorded.ledger.head()
    recorded.runs.add(make_run(3))
    assert verify_ledger(recorded, anchor=anchor).is_intact, "a ledger that grew still holds its anchor"
    anchor = recorded.ledger.head()
    recorded.steps.add("id-3", make_step(1))
    execute(recorded, f"DELETE FROM ledger_entries WHERE seq >= {anchor.seq}", "DELETE FROM kl_series WHERE run_id = 'id-3'")
    execute(recorded, "DELETE FROM steps WHERE run_id = 'id-3'")
    assert verify_ledger(recorded).is_intact
    (cut,) = verify_ledger(recorded, anchor=anchor).breaks
    assert cut.what == f"the ledger was cut off, or the anchor is of another store: it ends before the anchored entry {anchor.seq}"


def test_a_ledger_made_anew_shows_with_an_anchor_only(recorded: Store) -> None:
    anchor = recorded.ledger.head()
    rechain(recorded, edit={"limit": 200.0})
    execute(recorded, "UPDATE kl_budgets SET kl_limit = 200 WHERE id = 'b-run'")
    assert whats(verify_ledger(recorded)) == []
    (anew,) = verify_ledger(recorded, anchor=anchor).breaks
    assert anew.what == f"the ledger was made anew, or the anchor is of another store: entry {anchor.seq} is not the anchored one"


def test_an_emptied_ledger_shows_with_an_anchor_only(recorded: Store) -> None:
    anchor = recorded.ledger.head()
    # Profiles and distances came when stores had ledgers.
    execute(recorded, delete(ledger_entries), "DELETE FROM drift_profiles", "DELETE FROM checkpoint_distances")
    found = verify_ledger(recorded)
    assert found.is_intact
    assert (found.n_older_runs, found.n_older_steps) == (2, 10)
    assert not verify_ledger(recorded, anchor=anchor).is_intact


def test_runs_from_before_the_ledger_are_counted_and_not_called_broken(recorded: Store) -> None:
    # Profiles and distances came when stores had ledgers.
    execute(recorded, delete(ledger_entries), "DELETE FROM drift_profiles", "DELETE FROM checkpoint_distances")
    recorded.runs.add(make_run(3))
    recorded.steps.add("id-3", make_step(1))
    recorded.runs.add_segment(Segment("id-1", 2, MOMENT))
    recorded.steps.add("id-1", make_step(9, segment=2))
    recorded.runs.set_trainer("id-1", framework="trl", algorithm="grpo")
    recorded.budgets.remove("b-run")
    found = verify_ledger(recorded)
    assert whats(found) == []
    assert (found.n_steps, found.n_older_runs, found.n_older_steps) == (2, 2, 10)
    execute(recorded, INSERT_STEP.format(run="id-1", segment=2, step=1))
    execute(recorded, "UPDATE runs SET framework = 'klaudit' WHERE id = 'id-1'", "DELETE FROM runs WHERE id = 'id-2'")
    assert sorted(whats(verify_ledger(recorded))) == [
        "step 1 of segment 2: in the store, but no entry covers them",
        "the run is not in the store any more, and no entry says that it was removed",
        "the run was edited: framework",
    ]


def test_a_deleted_run_leaves_its_entries(recorded: Store) -> None:
    recorded.runs.delete("id-1")
    found = verify_ledger(recorded)
    assert whats(found) == []
    assert (found.n_deleted_runs, found.n_steps) == (1, 5)
    assert len(recorded.ledger.list(run_id="id-1")) > 5


def test_a_run_that_comes_again_under_its_id_is_held_to_its_later_entries(recorded: Store) -> None:
    recorded.runs.delete("id-1")
    recorded.runs.add(make_run(1))
    recorded.steps.add("id-1", make_step(7))
    assert whats(verify_ledger(recorded)) == []


def test_steps_that_fill_gaps_later_do_not_pass_for_inserted(store_with_run: Store) -> None:
    for batch in ([1, 3, 5, 7], [2, 6], [4], [10, 20, 30], [8], [9, 11]):
        store_with_run.steps.add_all("id-1", [LoggedStep(make_step(step)) for step in batch])
    assert whats(verify_ledger(store_with_run)) == []
    execute(store_with_run, "UPDATE steps SET kl = 7 WHERE step = 6")
    assert whats(verify_ledger(store_with_run)) == ["2 steps between 2 and 6 of segment 0: edited in the store"]
    execute(store_with_run, INSERT_STEP.format(run="id-1", segment=0, step=12))
    assert "step 12 of segment 0: in the store, but no entry covers them" in whats(verify_ledger(store_with_run))


def test_a_forged_body_ends_as_a_break_and_not_as_an_error(store_with_run: Store) -> None:
    bodies: Sequence[dict[str, Any]] = [
        {},
        {"segment": 0, "spans": [[1, 10**15, 1]], "n_steps": 10**15, "n_samples": 0, "root": DIGEST},
        {"segment": 0, "spans": [], "n_steps": 0, "n_samples": 0, "root": DIGEST},
        {"segment": [], "spans": [[1, 1, 1]], "n_steps": 1, "n_samples": 0, "root": DIGEST},
        {"segment": 0, "spans": "spans", "n_steps": "n", "n_samples": None, "root": 7},
    ]
    for body in bodies:
        store_with_run.ledger.note("steps", body, run_id="id-1")
    store_with_run.ledger.note("budget_set", {"budget": ["b"]})
    store_with_run.ledger.note("of a newer klaudit", {"a": 1}, run_id="id-1")  # type: ignore[arg-type]
    found = verify_ledger(store_with_run)
    assert (
        whats(found)
        == [f"entry {seq} ({'steps' if seq < 9 else 'budget_set'}) cannot be read" for seq in range(4, 10)][: len(whats(found))]
    )
    assert len(whats(found)) == 6


def test_many_breaks_are_counted_and_the_first_described(store_with_run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klaudit.workflows.ledger.MOST_BREAKS", 3)
    for step in range(8):
        store_with_run.steps.add("id-1", make_step(step))
    execute(store_with_run, update(steps).values(kl=9.0))
    found = verify_ledger(store_with_run)
    assert (found.n_breaks, len(found.breaks)) == (8, 3)


def test_progress_ends_at_the_last_entry(recorded: Store) -> None:
    seen: list[tuple[int, int]] = []
    verify_ledger(recorded, on_progress=lambda done, total: seen.append((done, total)))
    last = recorded.ledger.head().seq
    assert seen[-1] == (last, last)


def test_more_steps_than_are_read_at_once(store_with_run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klaudit.store.ledger_snapshot.STEPS_AHEAD", 3)
    monkeypatch.setattr("klaudit.store.ledger_snapshot.RUNS_AT_HAND", 1)
    monkeypatch.setattr("klaudit.store.ledger_snapshot.ENTRIES_AT_A_TIME", 2)
    store_with_run.runs.add(make_run(2))
    for first in range(0, 40, 5):
        for run_id in ("id-1", "id-2"):
            store_with_run.steps.add_all(run_id, [LoggedStep(make_step(step)) for step in range(first, first + 5)])
    found = verify_ledger(store_with_run)
    assert (whats(found), found.n_steps) == ([], 80)
    execute(store_with_run, delete(steps).where(steps.c.step.in_([4, 5, 39])))
    assert len(whats(verify_ledger(store_with_run))) == 6


NUMBERS = st.floats() | st.integers(-(2**80), 2**80)
ABSENT_OR_NUMBER = st.none() | NUMBERS


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    kl=NUMBERS,
    error=st.none() | st.floats(min_value=0),
    beta=ABSENT_OR_NUMBER,
    score=ABSENT_OR_NUMBER,
    metrics=st.dictionaries(st.text(max_size=8), NUMBERS, max_size=4),
    moment=st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1)),  # noqa: DTZ001
    update_kl=NUMBERS,
)
def test_whatever_a_step_holds_it_verifies_when_read_back(store_with_run: Store, moment: datetime, **numbers: Any) -> None:
    last = store_with_run.steps.last("id-1")
    record = replace(
        make_step(1 if last is None else last.step + 1),
        kl=KLReading(FULL, numbers["kl"], numbers["error"], 16),
        beta=numbers["beta"],
        score=numbers["score"],
        metrics=numbers["metrics"],
        readings={"kl_update": KLReading(UPDATE, numbers["update_kl"])},
        logged_at=moment,
    )
    store_with_run.steps.add("id-1", record)
    assert whats(verify_ledger(store_with_run)) == []


def test_an_actor_that_is_spoiled_can_still_be_listed(recorded: Store) -> None:
    execute(recorded, "UPDATE ledger_entries SET actor = '[]', at = 'noon' WHERE seq = 2")
    spoiled = recorded.ledger.list(after_seq=1, limit=1)[0]
    assert spoiled.actor == Actor("", "", 0)
    assert recorded.ledger.list()[2] == recorded.ledger.list(after_seq=2, limit=1)[0]
    with recorded._database.reading() as connection:
        assert connection.scalar(select(ledger_entries.c.kind).where(ledger_entries.c.seq == 2)) == "run_opened"


def test_what_is_written_meanwhile_is_not_called_inserted(recorded: Store) -> None:
    written: list[int] = []

    def write(_done: int, _total: int) -> None:
        # Of a store in memory there is one connection, and nobody can write meanwhile.
        if not recorded._database.is_memory:
            recorded.steps.add("id-2", make_step(40 + len(written)))
            written.append(1)

    before = recorded.ledger.head()
    found = verify_ledger(recorded, on_progress=write)
    assert whats(found) == []
    assert found.head.hash == before.hash
    assert len(written) == (0 if recorded._database.is_memory else 1)
