"""Importing what other tools wrote: all of a file or nothing, nothing twice, and no more of it in memory than a few steps."""

import json
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from klaudit.errors import InvalidImportFile
from klaudit.exchange import write_steps_file
from klaudit.exchange.reader import ReadOptions
from klaudit.records import KLBudget, KLSeries, Run
from klaudit.store import Store, check_store, open_store
from klaudit.workflows.imports import check_file, import_file
from tests.workflows.recordings import FULL, NOW, begin, make_step

K3 = KLSeries(estimator="k3", unit="nats_per_token")


def write_csv(path: Path, n_steps: int, *, last_row: str = "") -> Path:
    rows = "".join(f"{step},{step / n_steps},{step * 7919 % 1013 / 1013},0.5\n" for step in range(1, n_steps + 1))
    path.write_text("step,kl_div,entropy,success\n" + rows + last_row)
    return path


def test_a_file_is_imported_audited_and_says_where_it_came_from(store: Store, tmp_path: Path) -> None:
    store.budgets.add(KLBudget(0.5, "nats_per_token", owner="me", match="grpo*", created_at=NOW))
    path = write_csv(tmp_path / "grpo.csv", 100)
    (imported,) = import_file(store, path, options=ReadOptions(series={"kl": K3}))
    loaded, run = imported.loaded, store.runs.get("grpo")
    assert (loaded.run.id, loaded.n_steps, loaded.n_kl_measured, loaded.is_new) == (run.id, 100, 100, True)
    assert (run.status, run.series["kl"].estimator) == ("finished", "k3")
    assert [step.kl.value for step in store.steps.list(run.id)] == [step / 100 for step in range(1, 101)]
    findings = store.findings.list(run.id)
    assert "KLA101" in {finding.code for finding in findings}
    assert loaded.n_findings == len(findings)
    assert run.identity is not None
    assert {key: run.identity["imported"][key] for key in ("format", "file")} == {"format": "csv", "file": "grpo.csv"}
    assert str(tmp_path) not in json.dumps(run.identity)


def test_importing_a_file_again_changes_nothing_and_says_which_run_it_is(store: Store, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "grpo.csv", 10)
    (first,) = import_file(store, path)
    moved = path.rename(tmp_path / "moved.csv")
    (again,) = import_file(store, moved, options=ReadOptions(name="another name"))
    assert (again.loaded.run.id, again.loaded.n_steps, again.loaded.is_new) == (first.loaded.run.id, 10, False)
    assert len(store.runs.list()) == 1


def test_what_changes_the_meaning_makes_another_run(store: Store, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "grpo.csv", 10)
    said = [
        ReadOptions(),
        ReadOptions(series={"kl": K3}),
        ReadOptions(columns={"score": "success"}),
        ReadOptions(metric_map={"kl_div": K3}),
    ]
    names = [import_file(store, path, options=options)[0].loaded.run.name for options in said]
    assert names == ["grpo", "grpo-2", "grpo-3", "grpo-4"]
    write_csv(path, 11)
    assert import_file(store, path)[0].loaded.run.name == "grpo-5"


def test_klaudits_own_file_keeps_every_label(store: Store, tmp_path: Path) -> None:
    run = Run(id="", name="own", started_at=NOW, status="running", batch_size=16, beta=0.05, series={"kl": FULL}, config={"seed": 7})
    write_steps_file(tmp_path / "own.jsonl", run=run, steps=[make_step(1, 0.1), make_step(2, 0.2), make_step(2, 0.3, segment=1)])
    (imported,) = import_file(store, tmp_path / "own.jsonl")
    stored = store.runs.get("own")
    assert (stored.series, stored.batch_size, stored.beta, stored.config) == ({"kl": FULL}, 16, 0.05, {"seed": 7})
    assert stored.status == "finished"
    assert imported.notes == ("the run was still being trained when the file was written",)
    assert store.steps.list(stored.id) == [make_step(1, 0.1), make_step(2, 0.2), make_step(2, 0.3, segment=1)]
    assert [segment.index for segment in store.runs.segments(stored.id)] == [0, 1]


@pytest.mark.parametrize(
    "last_row", ["x,0,0,0\n", "50000,0,0\n", "2500,high,0,0\n", "2500,0.7,0,0\n2500,0.8,0,0\n"], ids=["step", "cells", "kl", "twice"]
)
def test_an_error_at_the_last_line_leaves_nothing(store: Store, tmp_path: Path, last_row: str) -> None:
    import_file(store, write_csv(tmp_path / "earlier.csv", 3))
    before = dump(store)
    path = write_csv(tmp_path / "bad.csv", 2500, last_row=last_row)
    for read in (lambda: import_file(store, path), lambda: check_file(path)):
        with pytest.raises(InvalidImportFile, match=r"bad\.csv line 250[23]"):
            read()
    assert dump(store) == before
    path.write_text(path.read_text().removesuffix(last_row))
    assert import_file(store, path)[0].loaded.n_steps == 2500


def test_a_name_that_the_store_cannot_hold_leaves_nothing(store: Store, tmp_path: Path) -> None:
    before = dump(store)
    path = write_csv(tmp_path / "bad.csv", 3)
    with pytest.raises(ValueError, match="UTF-8"):
        import_file(store, path, options=ReadOptions(name="\ud800"))
    assert dump(store) == before


def test_a_file_that_changes_while_it_is_read_is_not_imported(store: Store, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "live.csv", 100)

    def go_on(done: int, total: int) -> None:
        with path.open("a") as file:
            file.write("60000,0,0,0\n")

    with pytest.raises(InvalidImportFile, match="it changed while it was read"):
        import_file(store, path, options=ReadOptions(on_progress=go_on))
    assert store.runs.list() == []


def test_other_threads_and_processes_see_all_of_an_import_or_nothing(
    store: Store, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    monkeypatch.setattr("klaudit.exchange.lines.BLOCK_BYTES", 1 << 14)

    def look(done: int, total: int) -> None:
        with open_store(store_url, read_only=True) as other:
            seen.append(len(other.runs.list()))

    import_file(store, write_csv(tmp_path / "a.csv", 3_000), options=ReadOptions(on_progress=look))
    assert seen
    assert set(seen) == {0}
    with open_store(store_url, read_only=True) as other:
        assert [one.n_steps for one in other.runs.list()] == [3_000]


def test_a_trainer_that_records_into_the_store_meanwhile_loses_nothing(
    store: Store, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("klaudit.exchange.lines.BLOCK_BYTES", 1 << 14)
    with begin(store_url, "live") as recorder:
        logged: list[float] = []

        def train_on(done: int, total: int) -> None:
            logged.append(len(logged) / 100)
            recorder.log(make_step(len(logged), logged[-1]))

        (imported,) = import_file(store, write_csv(tmp_path / "a.csv", 3_000), options=ReadOptions(on_progress=train_on))
        assert recorder.flush()
    assert len(logged) > 3
    assert [step.kl.value for step in store.steps.list(store.runs.get("live").id)] == logged
    assert imported.loaded.n_steps == store.steps.count(imported.loaded.run.id) == 3_000


def test_on_postgresql_too_it_is_all_or_nothing_and_nothing_twice(postgresql_url: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", 1_500, last_row="x,0,0,0\n")
    with open_store(postgresql_url) as store:
        with pytest.raises(InvalidImportFile, match="line 1502"):
            import_file(store, path)
        assert store.runs.list() == []
        path = write_csv(path, 1_500)
        assert [import_file(store, path)[0].loaded.is_new for _ in range(2)] == [True, False]
        assert [one.n_steps for one in store.runs.list()] == [1_500]


CHILD = """
    import sys
    from pathlib import Path
    from klaudit.exchange import lines
    from klaudit.exchange.reader import ReadOptions
    from klaudit.store import open_store
    from klaudit.workflows.imports import import_file

    def say(done, total):
        print(done, flush=True)

    lines.BLOCK_BYTES = 1 << 14
    with open_store(sys.argv[1]) as store:
        import_file(store, Path(sys.argv[2]), options=ReadOptions(on_progress=say))
        print("done", flush=True)
"""


@pytest.mark.parametrize("killed_after_lines", [1, 3, 6])
def test_an_import_that_is_killed_leaves_nothing_and_can_be_done_again(store_url: str, tmp_path: Path, killed_after_lines: int) -> None:
    """The child says each time that it has read a block of 16 KiB, and is killed while it stores what was in it."""
    path = write_csv(tmp_path / "a.csv", 4_000)
    assert path.stat().st_size > 6 << 14
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(CHILD), store_url, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(killed_after_lines)]
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert "done\n" not in lines
    assert check_store(store_url).integrity == "ok"
    with open_store(store_url) as store:
        assert store.runs.list() == []
        assert import_file(store, path)[0].loaded.n_steps == 4_000


def write_big_csv(path: Path, n_bytes: int) -> int:
    row = "{},0.0123456789,0.5," + ",".join(["0.123456789012"] * 20) + "\n"
    n_steps = n_bytes // len(row)
    with path.open("w") as file:
        file.write("step,kl,reward," + ",".join(f"metric_{index}" for index in range(20)) + "\n")
        file.writelines(row.format(step) for step in range(n_steps))
    return n_steps


def write_big_jsonl(path: Path, n_bytes: int) -> int:
    entry = {"kl": 0.0123456789, "reward": 0.5, **{f"metric_{index}": 0.123456789012 for index in range(20)}}
    n_steps = n_bytes // (len(json.dumps(entry)) + 20)
    with path.open("w") as file:
        file.writelines(json.dumps({"step": step, **entry}) + "\n" for step in range(n_steps))
    return n_steps


def write_big_state(path: Path, n_bytes: int) -> int:
    entry = {"kl": 0.0123456789, "reward": 0.5, **{f"metric_{index}": 0.123456789012 for index in range(20)}}
    n_steps = n_bytes // (len(json.dumps(entry)) + 20)
    with path.open("w") as file:
        file.write('{"log_history": [')
        file.writelines(("," if step else "") + json.dumps({"step": step, **entry}) for step in range(n_steps))
        file.write('], "max_steps": 7}')
    return n_steps


BIG: dict[str, Callable[[Path, int], int]] = {"csv": write_big_csv, "jsonl": write_big_jsonl, "trainer-state": write_big_state}


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("format_name", BIG)
def test_reading_holds_a_few_steps_and_not_the_file(tmp_path: Path, traced: None, format_name: str) -> None:
    peaks = []
    for n_bytes in (1 << 19, 3 << 19):
        BIG[format_name](tmp_path / "big", n_bytes)
        tracemalloc.reset_peak()
        check_file(tmp_path / "big", format_name=format_name)
        peaks.append(tracemalloc.get_traced_memory()[1])
    assert peaks[1] < 1.3 * peaks[0]


@pytest.mark.soak
@pytest.mark.parametrize("format_name", BIG)
def test_fifty_megabytes_are_imported_in_the_memory_of_one(store_url: str, tmp_path: Path, format_name: str) -> None:
    import resource

    n_steps = BIG[format_name](tmp_path / "big", 50 << 20)
    with open_store(store_url) as store:
        import_file(store, write_csv(tmp_path / "small.csv", 2_000))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.monotonic()
        (imported,) = import_file(store, tmp_path / "big", format_name=format_name)
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f"{format_name}: 50 MiB, {n_steps:,} steps in {time.monotonic() - began:.0f} s, {grown_kb / 1024:.0f} MiB more memory")
    assert imported.loaded.n_steps == n_steps
    assert grown_kb < 40 << 10


def dump(store: Store) -> list[str]:
    """Everything that the store's file holds."""
    with closing(sqlite3.connect(store.url.removeprefix("sqlite:///"))) as connection:
        return list(connection.iterdump())
