"""Freeze a store of this klaudit's schema: `python -m tests.upgrade_assets.freeze` writes NNNN.sqlite.sql and NNNN.postgresql.sql.

Run once for a schema, before the release that has it; a frozen store is never changed afterwards.
"""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from klaudit.records import Checkpoint, KLBudget, KLReading, Run, Segment
from klaudit.records.ledger import Actor
from klaudit.store import Store, open_store
from klaudit.store.tables import SCHEMA_REVISION
from tests.postgresql_server import PASSWORD, find_programs, make_directory, make_server
from tests.store.examples import (
    DIGEST,
    FULL,
    MOMENT,
    make_alert,
    make_finding,
    make_measurement,
    make_profile,
    make_run,
    make_sample,
    make_shard,
    make_step,
)

HERE = Path(__file__).parent


def fill(store: Store) -> None:
    """Something of everything, in every shape that it can have."""
    store.runs.add(make_run(1))
    store.runs.add_segment(Segment("id-1", 0, MOMENT, ended_at=MOMENT + timedelta(minutes=5), host="gpu-1", pid=4711))
    store.runs.add_segment(Segment("id-1", 1, MOMENT + timedelta(minutes=6), host="gpu-1", pid=4712, resumed_from_step=100))
    for step in range(130):
        kl = {70: float("nan"), 71: float("inf")}.get(step, step / 16)
        store.steps.add("id-1", replace(make_step(step, kl=kl), metrics={"entropy": 2.0 - step / 64, "grad_norm": float(step == 90)}))
    for step in range(100, 110):
        store.steps.add("id-1", make_step(step, segment=1, kl=0.5), [make_sample(step, segment=1)])
    store.steps.add("id-1", replace(make_step(110, segment=1), kl=KLReading.absent(FULL, "no reference model"), readings={}, score=None))
    store.checkpoints.add(Checkpoint("id-1", 100, "checkpoints/100", MOMENT, digest="sha256:" + "5" * 64))
    store.drift.add_all([make_measurement("id-1"), make_measurement("id-1", part="trigger"), make_measurement(None, step=None)])
    store.budgets.add(KLBudget(10.0, unit="nats_per_sequence", run_id="id-1", id="budget-1", created_at=MOMENT))
    store.budgets.add(
        KLBudget(0.5, unit="nats_per_token", match="demo*", id="budget-2", created_at=MOMENT, owner="ada", reason='it\'s a "limit"')
    )
    store.findings.upsert("id-1", [make_finding("id-1")])
    store.alerts.add(make_alert("id-1"))
    store.runs.set_status("id-1", "finished", MOMENT + timedelta(hours=1))

    k1 = replace(FULL, estimator="k1")
    store.runs.add(replace(make_run(2, name="two KLs; naïve"), series={"kl": k1, "kl_full": FULL}))
    for step in range(1, 4):
        readings = {"kl_full": KLReading(FULL, step / 8, standard_error=0.25, n_sequences=8, mean_length=20.0)}
        store.steps.add("id-2", replace(make_step(step), kl=KLReading(k1, -float(step)), readings=readings, beta=float("-inf")))
    store.runs.add(Run("id-3", "bare", MOMENT))


def fill_sessions(store: Store) -> None:
    """What came with schema 0002."""
    store.runs.set_identity("id-3", {"git": {"commit": "0123abc", "dirty": False}, "packages": {"torch": "2.13.0"}})
    segment = Segment("id-3", 0, MOMENT, session="journal-1", heartbeat_at=MOMENT, lease_until=MOMENT + timedelta(minutes=1))
    store.runs.add_segment(replace(segment, process_started="boot 1, tick 2", reference_digest=DIGEST, controller={"beta": 0.05}))
    store.runs.set_loss("id-3", 0, n_lost=7, reason="the disk was full")


def fill_drift(store: Store) -> None:
    """What came with schema 0003."""
    shards = [make_shard(number) for number in (1, 2)]
    for shard in shards:
        store.drift.add_shard(shard, run_id="id-1")
    store.drift.add_shard(make_shard(3))
    keys = tuple(shard.key for shard in shards)
    store.drift.add_profile(make_profile(shards=keys), [make_measurement(part="profiled")])
    store.drift.add_profile(replace(make_profile(None, step=None, shards=keys[:1]), retention=None, layers=(), contrasts=()))
    store.drift.add_distances([make_measurement(), make_measurement(None, step=None)])


FILLS: Mapping[str, tuple[Callable[[Store], None], ...]] = {
    "0001": (fill,),
    "0002": (fill, fill_sessions),
    "0003": (fill, fill_sessions, fill_drift),
}
"""What the frozen store of each schema holds."""


def fill_as_frozen(store: Store, revision: str) -> None:
    """Fill a store with what the frozen one of a schema holds."""
    # A host and a user that are nobody's.
    store.ledger.actor = Actor(user="ada", host="gpu-1", pid=4711)
    for one in FILLS[revision]:
        one(store)


def freeze_sqlite(path: Path) -> None:
    """Write the store as SQL for SQLite."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "frozen.db"
        with open_store(f"sqlite:///{file}", create=True) as store:
            fill_as_frozen(store, SCHEMA_REVISION)
        with contextlib.closing(sqlite3.connect(file)) as connection:
            path.write_text("\n".join(connection.iterdump()) + "\n", encoding="utf-8")


def freeze_postgresql(path: Path) -> None:
    """Write the store as SQL for PostgreSQL."""
    programs, directory = find_programs(), make_directory()
    if programs is None:
        sys.exit("expected PostgreSQL's programs on this machine; found none")
    server = make_server(directory)
    try:
        url = server.create_database("frozen")
        with open_store(url, create=True) as store:
            fill_as_frozen(store, SCHEMA_REVISION)
        command = [str(programs / "pg_dump"), "--inserts", "--no-owner", "--no-privileges", "--no-comments", url]
        text = subprocess.run(command, check=True, capture_output=True, text=True, env={"PGPASSWORD": PASSWORD}).stdout
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
    # Words for psql, and what newer servers do not know.
    kept = [line for line in text.splitlines() if line and not line.startswith(("--", "\\", "SET ", "SELECT pg_catalog.set_config"))]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")


if __name__ == "__main__":
    freeze_sqlite(HERE / f"{SCHEMA_REVISION}.sqlite.sql")
    freeze_postgresql(HERE / f"{SCHEMA_REVISION}.postgresql.sql")
