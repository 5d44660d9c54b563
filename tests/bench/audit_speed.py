"""Time that an audit takes, of a step and of a whole run: `python -m tests.bench.audit_speed [--detail] [--million]`.

The run is healthy and logs everything that the rules look at. Live: all rules over one step after another, in this process, beside what
detectors of others take for one series of the same steps (river where it is importable). Stored: `klaudit audit` on an SQLite store, a
process for each run, so its start and import are in the seconds; the time of a further step is that between two lengths.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from itertools import islice, pairwise

import numpy as np
from rich.console import Console
from rich.progress import track

from klaudit.audit import PRESETS
from klaudit.audit.change_watch import ChangeWatch
from klaudit.audit.engine import AuditEngine
from klaudit.audit.observation import observe_record
from klaudit.audit.rules import RULES
from klaudit.records import KLReading, KLSeries, LoggedStep, Run, StepRecord
from klaudit.store import open_store, upgrade_store
from tests.bench.tables import Figures, print_table

BEGAN_AT = datetime(2026, 1, 1, tzinfo=UTC)
STEP_TAKES = timedelta(seconds=30)
NAME = "everything logged"
BATCH_SIZE = 64
BETA = 0.05
SERIES = {
    "kl": KLSeries(estimator="k1", unit="nats_per_sequence", aggregation="batch_mean"),
    "kl_full": KLSeries(estimator="full", unit="nats_per_sequence", aggregation="batch_mean"),
    "kl_update": KLSeries(kind="update", estimator="k2", unit="nats_per_token", aggregation="token_mean"),
}
GOVERNING = "kl_full"

N_LIVE, N_WARM_UP = 5_000, 500
N_DETAILED = 10
LENGTHS = (1_000, 10_000, 100_000)
MILLION = 1_000_000
WRITTEN_AT_ONCE = 2_000

LIVE_GOAL_US = 300.0
STORED_LENGTH, STORED_GOAL_S, MEMORY_GOAL_MB = 100_000, 15.0, 500.0
LINEAR_GOAL = 1.3
"""Time of a further step over that at a tenth of the length; 1 is linear."""

AUDIT = """
import sys
from klaudit.cli import main
from tests.bench.log_to import read_memory_kib
try:
    sys.exit(main(sys.argv[1:]))
finally:
    print(read_memory_kib("VmHWM"), file=sys.stderr)
"""


@dataclass(frozen=True, slots=True)
class StoredAudit:
    """One run that was audited in a process of its own."""

    n_steps: int
    wall_s: float
    cpu_s: float
    memory_mb: float
    """Peak of the process."""
    n_findings: int
    """False alarms: the run is healthy. No goal rests on them; the default policy accepts one in 1,000 steps."""


@dataclass(frozen=True, slots=True)
class Check:
    """A figure that is held against its goal."""

    what: str
    value: float
    most: float
    unit: str

    @property
    def is_met(self) -> bool:
        """Whether the figure is at most the goal."""
        return self.value <= self.most


def describe_run(n_steps: int) -> Run:
    """A finished run that declares its series."""
    return Run(
        id=f"of-{n_steps}",
        name=f"of-{n_steps}",
        started_at=BEGAN_AT,
        status="finished",
        batch_size=BATCH_SIZE,
        beta=BETA,
        planned_steps=n_steps,
        series=SERIES,
    )


def generate_steps(n_steps: int, *, seed: int = 0) -> Iterator[StepRecord]:
    """A healthy run: KL and score grow and saturate, everything else keeps its level."""
    rng = np.random.default_rng(seed)
    for first in range(0, n_steps, WRITTEN_AT_ONCE):
        steps = np.arange(first, min(first + WRITTEN_AT_ONCE, n_steps))
        n = len(steps)
        growth = 1 - np.exp(-steps / 1_000)
        full = 3 * growth * np.exp(0.03 * rng.normal(size=n))
        score = 0.5 + growth + 0.05 * rng.normal(size=n)
        penalty = BETA * full
        columns = {
            "entropy": 2 + 0.04 * rng.normal(size=n),
            "response_length": 120 + 4 * rng.normal(size=n),
            "clip_fraction": np.abs(0.1 + 0.02 * rng.normal(size=n)),
            "heldout_score": 0.4 + growth + 0.05 * rng.normal(size=n),
            "kl_penalty": penalty,
            "rlhf_reward": score - penalty,
            "ratio": 1 + 0.01 * rng.normal(size=n),
            "grad_norm": np.exp(0.3 * rng.normal(size=n)),
            "eos_fraction": 0.95 + 0.01 * rng.normal(size=n),
            "distinct_2": 0.9 + 0.01 * rng.normal(size=n),
            "learning_rate": np.full(n, 1e-5),
        }
        k1 = (full + np.sqrt(2 * full / BATCH_SIZE) * rng.normal(size=n)).tolist()
        update = (0.002 * np.exp(0.3 * rng.normal(size=n))).tolist()
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        for step, row, *kl, own_score in zip(steps.tolist(), rows, k1, full.tolist(), update, score.tolist(), strict=True):
            of_k1, of_full, of_update = kl
            yield StepRecord(
                step=step,
                kl=KLReading(SERIES["kl"], of_k1, n_sequences=BATCH_SIZE),
                logged_at=BEGAN_AT + step * STEP_TAKES,
                beta=BETA,
                score=own_score,
                readings={
                    "kl_full": KLReading(SERIES["kl_full"], of_full, 0.4 * of_full / BATCH_SIZE**0.5, n_sequences=BATCH_SIZE),
                    "kl_update": KLReading(SERIES["kl_update"], of_update),
                },
                metrics=dict(zip(columns, row, strict=True)),
            )


def time_each(take: Callable[[StepRecord], object], steps: Sequence[StepRecord]) -> list[float]:
    """Microseconds of each step after the warm-up."""
    clock, taken = time.perf_counter, []
    for step in steps:
        start = clock()
        take(step)
        taken.append(1e6 * (clock() - start))
    return taken[N_WARM_UP:]


def list_peers() -> Iterator[tuple[str, Callable[[StepRecord], object]]]:
    """What others do with the governing series alone."""
    if find_spec("river"):
        drift = import_module("river.drift")
        page_hinkley, adwin = drift.PageHinkley(), drift.ADWIN()

        def take(step: StepRecord) -> None:
            value = step.readings[GOVERNING].value
            page_hinkley.update(value)
            adwin.update(value)

        yield "river PageHinkley and ADWIN, one series", take
    window: deque[float] = deque(maxlen=30)

    def score(step: StepRecord) -> bool:
        value = step.readings[GOVERNING].value or 0.0
        values = np.array(window)
        window.append(value)
        return len(values) > 1 and bool(abs(value - values.mean()) > 3 * values.std(ddof=1))

    yield "z(30) > 3 by numpy, one series", score


def measure_live(steps: Sequence[StepRecord]) -> dict[str, list[float]]:
    """Microseconds of each step, by who takes it: klaudit first."""
    klaudit = f"klaudit, {len(RULES)} rules on {len(SERIES) + 2 + len(steps[0].metrics)} series"
    takers: dict[str, Callable[[StepRecord], object]] = {klaudit: AuditEngine(describe_run(len(steps))).observe, **dict(list_peers())}
    # What lies here for the benchmark alone is no part of what a collection takes.
    gc.collect()
    gc.freeze()
    return {name: time_each(take, steps) for name, take in takers.items()}


def measure_rules(steps: Sequence[StepRecord]) -> list[tuple[str, float]]:
    """Mean microseconds of a step by rule, the slowest first; `observation` is what all of them share."""
    run, policy = describe_run(len(steps)), PRESETS["default"]
    changes = ChangeWatch(run, policy.detection)
    rules = [one(run, parameters=policy.rules[one.code].parameters) for one in RULES]
    clock, taken = time.perf_counter, dict.fromkeys(["observation", *(f"{rule.code} {rule.name}" for rule in rules)], 0.0)
    for step in steps:
        start = clock()
        observation = observe_record(step, run=run, governing_key=GOVERNING, changes=changes)
        taken["observation"] += clock() - start
        for rule in rules:
            start = clock()
            list(rule.observe(observation))
            taken[f"{rule.code} {rule.name}"] += clock() - start
    return sorted(((name, 1e6 * seconds / len(steps)) for name, seconds in taken.items()), key=lambda one: -one[1])


def write_store(url: str, n_steps: int) -> None:
    """A store that holds one run."""
    upgrade_store(url)
    with open_store(url) as store:
        store.runs.add(describe_run(n_steps))
        steps = generate_steps(n_steps)
        while batch := [LoggedStep(step) for step in islice(steps, WRITTEN_AT_ONCE)]:
            store.steps.add_all(f"of-{n_steps}", batch)


def measure_stored(n_steps: int) -> StoredAudit:
    """`klaudit audit` of a run of so many steps.

    Raises:
        SystemExit: the command failed, or did not judge every step.
    """
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/store.db"
        write_store(url, n_steps)
        command = [sys.executable, "-c", AUDIT, "audit", f"of-{n_steps}", "--store", url, "--json"]
        before, start = os.times(), time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wall_s, after = time.perf_counter() - start, os.times()
    told = json.loads(done.stdout) if done.stdout else {}
    if told.get("coverage", {}).get("steps") != n_steps:
        raise SystemExit(f"klaudit audit of {n_steps} steps: exit code {done.returncode}\n{done.stderr[-2000:]}")
    cpu_s = after.children_user - before.children_user + after.children_system - before.children_system
    return StoredAudit(n_steps, wall_s, cpu_s, int(done.stderr.split()[-1]) * 1024 / 1e6, len(told["findings"]))


def find_further_us(audits: Sequence[StoredAudit]) -> list[float]:
    """CPU microseconds of a step between each length and the one before."""
    return [1e6 * (after.cpu_s - before.cpu_s) / (after.n_steps - before.n_steps) for before, after in pairwise(audits)]


def tabulate_live(taken: dict[str, list[float]]) -> Figures:
    own = statistics.median(next(iter(taken.values())))
    rows = [
        (
            name,
            f"{statistics.median(one):,.1f}",
            f"{statistics.fmean(one):,.1f}",
            f"{statistics.quantiles(one, n=100)[98]:,.0f}",
            f"{own / statistics.median(one):,.1f}",
        )
        for name, one in taken.items()
    ]
    return Figures(f"One step, live, {N_LIVE - N_WARM_UP:,} steps", ("who", "median us", "mean us", "p99 us", "klaudit over it"), rows)


def tabulate_stored(audits: Sequence[StoredAudit]) -> Figures:
    further = ["", *(f"{one:,.0f}" for one in find_further_us(audits))]
    rows = [
        (f"{one.n_steps:,}", f"{one.wall_s:.1f}", f"{one.cpu_s:.1f}", us, f"{one.memory_mb:,.0f}", str(one.n_findings))
        for one, us in zip(audits, further, strict=True)
    ]
    columns = ("steps", "wall s", "CPU s", "CPU us of a further step", "peak MB", "false alarms")
    return Figures("`klaudit audit` of a stored run, SQLite", columns, rows)


def list_checks(taken: dict[str, list[float]], audits: Sequence[StoredAudit]) -> Iterator[Check]:
    """The figures with a goal."""
    yield Check("live, a step, median", statistics.median(next(iter(taken.values()))), LIVE_GOAL_US, "us")
    for one in audits:
        if one.n_steps == STORED_LENGTH:
            yield Check(f"{one.n_steps:,} stored steps", one.wall_s, STORED_GOAL_S, "s")
        yield Check(f"{one.n_steps:,} stored steps, peak", one.memory_mb, MEMORY_GOAL_MB, "MB")
    for (before, after), one in zip(pairwise(find_further_us(audits)), audits[2:], strict=True):
        yield Check(f"a further step, up to {one.n_steps:,} over up to {one.n_steps // 10:,}", after / before, LINEAR_GOAL, "times")


def judge(checks: Sequence[Check]) -> Figures:
    rows = [(one.what, f"{one.value:,.2f} {one.unit}", f"at most {one.most:g} {one.unit}", "yes" if one.is_met else "NO") for one in checks]
    return Figures("Goals", ("what", "measured", "goal", "met"), rows)


def main() -> int:
    """Print the tables; exits with 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detail", action="store_true", help=f"the {N_DETAILED} rules that take longest")
    parser.add_argument("--million", action="store_true", help="a stored run of 1,000,000 steps too; takes minutes")
    parser.add_argument("--markdown", action="store_true", help="the tables of docs/performance.md")
    arguments = parser.parse_args()
    steps = list(generate_steps(N_LIVE))
    taken = measure_live(steps)
    print_table(tabulate_live(taken), as_markdown=arguments.markdown)
    if arguments.detail:
        slowest = [(name, f"{us:.1f}") for name, us in measure_rules(steps)[: N_DETAILED + 1]]
        print_table(Figures("Mean of a step by rule", ("rule", "us"), slowest), as_markdown=arguments.markdown)
    lengths = (*LENGTHS, MILLION) if arguments.million else LENGTHS
    audits = [measure_stored(n) for n in track(lengths, "stored runs", transient=True, console=Console(stderr=True))]
    print_table(tabulate_stored(audits), as_markdown=arguments.markdown)
    checks = list(list_checks(taken, audits))
    print_table(judge(checks), as_markdown=arguments.markdown)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"Load average {load} on {os.cpu_count()} cores.")
    return 0 if all(one.is_met for one in checks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
