"""Steps a second that a store takes from 1, 8 and 64 writers at once: `python tests/bench/store_throughput.py [--seconds S]`.

Every writer has a connection and a run of its own and sends batches of 100 steps with 12 metrics, one after the other, as the recorder of
a run that is behind does. Up to 8 writers are a process each; 64 are 8 processes with 8 threads each. The peer is the same steps as plain
rows of one table, through sqlite3 or psycopg, a transaction a batch: no ledger, no roll-ups, no summary. Both in one run, one after the other.
"""

import argparse
import json
import multiprocessing
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.progress import track

from klaudit.records import KLReading, KLSeries, LoggedStep, Run, StepRecord
from klaudit.store import open_store, upgrade_store
from tests.bench.log_to import METRICS
from tests.bench.tables import Figures, print_table
from tests.postgresql_server import make_directory, make_server

BATCH = 100
N_WRITERS = (1, 8, 64)
MOST_PROCESSES = 8
SERIES = KLSeries(estimator="k1", unit="nats_per_sequence", aggregation="batch_mean")
COLUMNS = ("run_id", "segment", "step", "logged_at", "kl", "beta", "score", "metrics")
TABLE = (
    "CREATE TABLE steps (run_id TEXT, segment INTEGER, step BIGINT, logged_at TEXT, kl DOUBLE PRECISION, beta DOUBLE PRECISION, "
    "score DOUBLE PRECISION, metrics TEXT, PRIMARY KEY (run_id, segment, step))"
)
BUSY_TIMEOUT_S = 60.0

Flush = Callable[[Sequence[StepRecord]], None]
"""Stores a batch in one transaction."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Writers of one kind on one store."""

    store: str
    writer: str
    n_writers: int
    rows_per_second: float
    median_ms: float
    """Of a flush, over all writers."""
    p99_ms: float
    slowest_p99_ms: float
    """Of the writer that waits longest."""
    fewest_rows: float
    """Of the writer that gets least, over the mean writer's."""


@contextmanager
def writing_klaudit(url: str, run_id: str) -> Iterator[Flush]:
    with open_store(url, busy_timeout_s=BUSY_TIMEOUT_S) as store:
        store.runs.add(Run(id=run_id, name=run_id, started_at=datetime.now(UTC), series={"kl": SERIES}))
        yield lambda records: _expect(len(records), store.steps.add_all(run_id, [LoggedStep(record) for record in records]))


@contextmanager
def writing_rows(url: str, run_id: str) -> Iterator[Flush]:
    if url.startswith("sqlite"):
        connection: Any = sqlite3.connect(
            url.removeprefix("sqlite:///"), timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = NORMAL")
        begin, mark = "BEGIN IMMEDIATE", "?"
    else:
        connection = psycopg.connect(url, autocommit=True)
        begin, mark = "BEGIN", "%s"
    cursor = connection.cursor()
    insert = f"INSERT INTO steps ({', '.join(COLUMNS)}) VALUES ({', '.join([mark] * len(COLUMNS))})"

    def flush(records: Sequence[StepRecord]) -> None:
        rows = [
            (run_id, one.segment, one.step, one.logged_at.isoformat(), one.kl.value, one.beta, one.score, json.dumps(one.metrics))
            for one in records
        ]
        cursor.execute(begin)
        cursor.executemany(insert, rows)
        cursor.execute("COMMIT")

    try:
        yield flush
    finally:
        connection.close()


WRITERS = {"klaudit": writing_klaudit, "plain rows": writing_rows}


def _expect(n: int, n_new: int) -> None:
    if n != n_new:
        raise RuntimeError(f"expected {n} new steps; {n_new} were stored")


def write(writer: str, url: str, run_id: str, seconds: float, barrier: Barrier) -> list[float]:
    """Flush batch after batch until the time is over; gives the seconds of each flush."""
    generator = random.Random(run_id)
    numbers = [{name: generator.gauss(1.0, 0.2) for name in METRICS} for _ in range(BATCH)]
    taken: list[float] = []
    with WRITERS[writer](url, run_id) as flush:
        barrier.wait()
        end = time.perf_counter() + seconds
        step = 0
        while time.perf_counter() < end:
            now = datetime.now(UTC)
            records = [
                StepRecord(step + n, KLReading(SERIES, one["kl"], None, 64), now, beta=one["beta"], score=one["score"], metrics=one)
                for n, one in enumerate(numbers, 1)
            ]
            step += BATCH
            began_at = time.perf_counter()
            flush(records)
            taken.append(time.perf_counter() - began_at)
    return taken


def write_together(writer: str, url: str, run_ids: Sequence[str], seconds: float, barrier: Barrier, answers: Any) -> None:
    """Several writers in this process, a thread each; puts a list of flushes for each of them, or what went wrong."""
    taken: list[list[float] | str] = []

    def work(run_id: str) -> None:
        try:
            taken.append(write(writer, url, run_id, seconds, barrier))
        except Exception as error:
            barrier.abort()
            taken.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(run_id,)) for run_id in run_ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.put(taken)


def measure(store: str, writer: str, url: str, n_writers: int, seconds: float) -> Outcome:
    """Let writers loose on one store."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(n_writers), context.Queue()
    run_ids = [f"{writer}-{n_writers}-{number}" for number in range(n_writers)]
    n_processes = min(n_writers, MOST_PROCESSES)
    given = [(writer, url, run_ids[first::n_processes], seconds, barrier, answers) for first in range(n_processes)]
    processes = [context.Process(target=write_together, args=one) for one in given]
    for process in processes:
        process.start()
    taken = [one for _ in processes for one in answers.get()]
    for process in processes:
        process.join()
    wrong = [one for one in taken if isinstance(one, str) or not one]
    if wrong:
        raise SystemExit(f"{writer} on {store} with {n_writers} writers: {wrong[0] or 'a writer did not get a single batch in'}")
    flushes = sorted(1000 * one for of_writer in taken for one in of_writer)
    counts = [len(of_writer) for of_writer in taken]
    return Outcome(
        store,
        writer,
        n_writers,
        # A writer's last flush may end after the others': everyone's rate over its own time.
        sum(BATCH * len(of_writer) / max(seconds, sum(of_writer)) for of_writer in taken),
        statistics.median(flushes),
        find_p99(flushes),
        max(find_p99(1000 * one for one in of_writer) for of_writer in taken),
        min(counts) / statistics.fmean(counts),
    )


def find_p99(values: Any) -> float:
    """The smallest value that 99% do not exceed."""
    ordered = sorted(values)
    return float(ordered[-(-99 * len(ordered) // 100) - 1])


@contextmanager
def making_sqlite() -> Iterator[Callable[[str], str]]:
    """Gives what makes the URL of an empty database by its name."""
    with tempfile.TemporaryDirectory() as directory:

        def make(name: str) -> str:
            connection = sqlite3.connect(Path(directory, name))
            connection.execute("PRAGMA journal_mode = WAL")
            connection.close()
            return f"sqlite:///{directory}/{name}"

        yield make


@contextmanager
def making_postgresql() -> Iterator[Callable[[str], str]]:
    """The same on a server of its own."""
    directory = make_directory()
    try:
        server = make_server(directory)
        try:
            yield server.create_database
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


STORES = {"SQLite": making_sqlite, "PostgreSQL": making_postgresql}


def run_all(n_writers: Sequence[int], seconds: float) -> list[Outcome]:
    """Every number of writers of both kinds on every store, each on a database of its own."""
    outcomes = []
    jobs = [(number, writer) for number in n_writers for writer in WRITERS]
    for store, making in STORES.items():
        with making() as make:
            for number, writer in track(jobs, store, transient=True, console=Console(stderr=True)):
                url = make(f"{writer.replace(' ', '_')}_{number}")
                if writer == "klaudit":
                    upgrade_store(url)
                else:
                    create_table(url)
                outcomes.append(measure(store, writer, url, number, seconds))
    return outcomes


def create_table(url: str) -> None:
    """The peer's only table."""
    connection: Any = sqlite3.connect(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else psycopg.connect(url)
    connection.execute(TABLE)
    connection.commit()
    connection.close()


def tabulate(outcomes: Sequence[Outcome]) -> Figures:
    plain = {(one.store, one.n_writers): one.rows_per_second for one in outcomes if one.writer == "plain rows"}
    rows = [
        (
            f"{one.store}, {one.n_writers} x {one.writer}",
            f"{one.rows_per_second:,.0f}",
            f"{one.rows_per_second / plain[one.store, one.n_writers]:.2f}",
            f"{one.median_ms:,.1f}",
            f"{one.p99_ms:,.1f}",
            f"{one.slowest_p99_ms:,.1f}",
            f"{one.fewest_rows:.2f}",
        )
        for one in outcomes
    ]
    columns = (
        "store and writers",
        "steps/s",
        "x of plain rows",
        "flush median ms",
        "flush p99 ms",
        "slowest writer's p99 ms",
        "least over mean writer",
    )
    return Figures(f"Steps of 12 metrics in batches of {BATCH}", columns, rows)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for every row of the table")
    parser.add_argument("--writers", type=int, nargs="+", default=N_WRITERS)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true")
    output.add_argument("--markdown", action="store_true", help="the table of docs/performance.md")
    arguments = parser.parse_args()
    outcomes = run_all(arguments.writers, arguments.seconds)
    if arguments.json:
        json.dump([asdict(one) for one in outcomes], sys.stdout)
    else:
        print_table(tabulate(outcomes), as_markdown=arguments.markdown)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
