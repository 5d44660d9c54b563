"""SIGKILL at random points: while steps are logged, while a journal is replayed, while a store is upgraded."""

import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from klaudit.store import check_store, open_store, upgrade_store
from klaudit.workflows.audits import audit_stored_run
from klaudit.workflows.ledger import verify_ledger

pytestmark = pytest.mark.soak

ROOT = Path(__file__).resolve().parents[2]
KILLS = 200
LONGEST_LIFE_S = 0.5
"""Counted from when the victim can be expected to have started."""
LAST_CALL_S = 20.0


def kill_at_random(act: str, url: str, said: Path, rng: random.Random, *, begins: str | None) -> list[str]:
    """Let a process act, kill it at a random moment, and read what it promised; `begins`: the life begins with its first line."""
    said.unlink(missing_ok=True)
    victim = subprocess.Popen([sys.executable, "-m", "tests.soak.victim", act, url, str(said)], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + LAST_CALL_S
        while begins is not None and not (said.exists() and said.read_text().startswith(begins)):
            assert victim.poll() is None
            assert time.monotonic() < until
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, LONGEST_LIFE_S) if begins is not None else rng.uniform(0.3, 1.5))
    finally:
        victim.kill()
        victim.wait()
    whole = said.read_text().rpartition("\n")[0] if said.exists() else ""
    return whole.split("\n") if whole else []


def require_sound(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.timeout(3600)
def test_every_step_whose_log_returned_is_there_after_any_death(tmp_path: Path, share: float) -> None:
    rng = random.Random(23)
    path, said = tmp_path / "klaudit.db", tmp_path / "said"
    url = f"sqlite:///{path}"
    open_store(url, create=True).close()
    promised: set[tuple[int, int]] = set()
    first, replays = 1, 0
    n_kills = round(KILLS * share)
    while n_kills:
        act = rng.choice(["log", "log", "log-without-carrying"])
        said.with_suffix(".first").write_text(str(first))
        lines = kill_at_random(act, url, said, rng, begins="segment")
        n_kills -= 1
        segment = int(lines[0].split()[1])
        promised |= {(segment, int(step)) for step in lines[1:]}
        while n_kills and rng.random() < 0.4:
            kill_at_random("replay", url, said.with_suffix(".replay"), rng, begins=None)
            n_kills, replays = n_kills - 1, replays + 1
        first = max((step for _, step in promised), default=0) + rng.choice([1, 1, -5])
        first = max(first, 1)
    with open_store(url) as store:
        run = store.runs.get("run")
        stored = {(one.segment, one.step) for one in store.steps.iterate(run.id)}
        assert promised - stored == set()
        # A killed step may be there although nobody was told: one a segment.
        assert len(stored - promised) <= len(store.runs.segments(run.id))
        assert verify_ledger(store).is_intact
        assert [one.run.name for one in store.runs.list()] == ["run"]
        assert run.status == "failed"
        assert sum(one.n_lost for one in store.runs.segments(run.id)) == 0
        assert audit_stored_run(store, "run").coverage.steps == len(stored)
    require_sound(path)
    print(f"{round(KILLS * share)} kills ({replays} while replaying), {len(promised)} steps promised, 0 lost")


@pytest.mark.timeout(3600)
def test_a_killed_upgrade_leaves_the_old_store_or_the_new_one(tmp_path: Path, share: float, old_store: Path) -> None:
    rng = random.Random(29)
    outcomes = []
    for number in range(max(3, round(KILLS * share / 5))):
        path = Path(shutil.copy(old_store, tmp_path / f"{number}.db"))
        url = f"sqlite:///{path}"
        kill_at_random("upgrade", url, tmp_path / "said", rng, begins=None)
        outcomes.append(check_store(url).is_current)
        require_sound(path)
        upgrade_store(url)
        assert check_store(url).is_current
        with open_store(url) as store:
            assert verify_ledger(store).is_intact
    print(f"{len(outcomes)} kills, {sum(outcomes)} after the upgrade was done")
