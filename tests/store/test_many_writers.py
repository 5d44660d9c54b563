import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from klaudit.records import LoggedStep, Segment
from klaudit.store import Store, open_store
from tests.store.examples import MOMENT, make_run, make_step

N_WRITERS = 8
N_STEPS = 60
BATCH = 7

PROGRAM = """
import sys
from klaudit.records import LoggedStep
from klaudit.store import open_store
from tests.store.examples import make_run, make_step

url, number = sys.argv[1], int(sys.argv[2])
run = make_run(number)
with open_store(url) as store:
    store.runs.add(run)
    for first in range(0, 60, 7):
        store.steps.add_all(run.id, [LoggedStep(make_step(step)) for step in range(first, min(first + 7, 60))])
"""


def run_together(work: Callable[[int], None]) -> None:
    """Run `work` in as many threads as there are writers; the first error of any is raised."""
    errors: list[BaseException] = []

    def guard(number: int) -> None:
        try:
            work(number)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=guard, args=(number,)) for number in range(N_WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert [thread for thread in threads if thread.is_alive()] == []
    if errors:
        raise errors[0]


def write_steps(store: Store, run_id: str, *, segment: int = 0) -> None:
    for first in range(0, N_STEPS, BATCH):
        numbers = range(first, min(first + BATCH, N_STEPS))
        store.steps.add_all(run_id, [LoggedStep(make_step(step, segment=segment)) for step in numbers])


def assert_nothing_is_missing(store: Store, *, n_runs: int) -> None:
    summaries = store.runs.list()
    assert len(summaries) == n_runs
    for one in summaries:
        assert (one.n_steps, one.n_kl_measured, one.last_step) == (N_STEPS, N_STEPS, N_STEPS - 1)
        assert store.steps.count(one.run.id) == N_STEPS
        assert sum(bucket.n for bucket in store.rollups.read(one.run.id, "kl", 64)) == N_STEPS


def test_many_trainers_write_one_postgresql_store_each_its_run(postgresql_url: str) -> None:
    def work(number: int) -> None:
        with open_store(postgresql_url) as store:
            store.runs.add(make_run(number))
            write_steps(store, f"id-{number}")

    run_together(work)
    with open_store(postgresql_url) as store:
        assert_nothing_is_missing(store, n_runs=N_WRITERS)
        assert [one.seq for one in store.ledger.list()] == list(range(1, store.ledger.head().seq + 1))


def test_many_threads_write_segments_of_one_run_on_postgresql(postgresql_url: str) -> None:
    with open_store(postgresql_url) as store:
        store.runs.add(make_run())

        def work(number: int) -> None:
            store.runs.add_segment(Segment("id-1", number, MOMENT))
            write_steps(store, "id-1", segment=number)

        run_together(work)
        summary = store.runs.summarize("id-1")
        assert (summary.n_steps, summary.n_kl_measured, summary.last_step) == (N_WRITERS * N_STEPS, N_WRITERS * N_STEPS, N_STEPS - 1)
        assert [one.n for one in store.rollups.read("id-1", "kl", 1024)] == [N_STEPS] * N_WRITERS


def test_two_who_send_the_same_batches_store_each_step_once(postgresql_url: str) -> None:
    with open_store(postgresql_url) as store:
        store.runs.add(make_run())
        run_together(lambda number: write_steps(store, "id-1"))
        assert_nothing_is_missing(store, n_runs=1)


def test_many_processes_write_one_sqlite_file_each_its_run(store_file: Path) -> None:
    url = f"sqlite:///{store_file}"
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, url, str(number)], stderr=subprocess.PIPE, text=True, cwd=root)
        for number in range(4)
    ]
    assert [process.communicate()[1] for process in processes] == [""] * 4
    with open_store(url) as store:
        assert_nothing_is_missing(store, n_runs=4)
        assert [one.seq for one in store.ledger.list()] == list(range(1, store.ledger.head().seq + 1))
