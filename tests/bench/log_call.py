"""Time that a training loop waits for one `log` call of 12 metrics, klaudit beside the trackers: `python tests/bench/log_call.py [--rounds N]`.

Every tool runs in a process of its own, in the environment `.venv-trackers` (`make .venv-trackers/trackers.stamp`), flat out and with
10 ms between calls, in an order of its own every round, so that what disturbs one disturbs all. Figures are medians over the rounds.
Before the first round each tool runs once unmeasured, and ends the benchmark where it talks to another machine.
TensorBoard is its own event writer, under torch's SummaryWriter; what that adds on top is not counted.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from tests.bench.log_to import TOOLS
from tests.bench.tables import Figures, print_table

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-trackers" / "bin" / "python"
WORKER = Path(__file__).with_name("log_to.py")
PEERS = tuple(tool for tool in TOOLS if tool != "nothing" and not tool.startswith("klaudit"))
N_WATCHED_CALLS = 20


@dataclass(frozen=True, slots=True)
class Pattern:
    """How calls follow each other."""

    name: str
    n_calls: int
    pause_s: float
    tools: tuple[str, ...] = tuple(TOOLS)


TIGHT = Pattern("flat out", 2_000, 0.0)
PACED = Pattern("10 ms apart", 300, 0.01)
SUSTAINED = Pattern("flat out, as long as it takes", 50_000, 0.0, ("klaudit step", "klaudit batch", "trackio"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One tool in one process; times in microseconds of a call, in seconds of the rest."""

    median_us: float
    mean_us: float
    p99_us: float
    longest_us: float
    start_s: float
    """Import and first contact."""
    durable_s: float
    """From the last call until everything is where the tool keeps it, and closed."""
    memory_mib: float
    """Peak of the process and its children, above the bare interpreter."""
    disk_kib: float
    n_lost: float
    """Steps that klaudit itself says it lost; the others are not asked."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of medians to the fastest peer's."""

    tool: str
    pattern: Pattern
    most: float


GOALS = (Goal("klaudit step", TIGHT, 0.5), Goal("klaudit step", PACED, 1.0), Goal("klaudit batch", TIGHT, 0.2))


def measure(tool: str, pattern: Pattern, *, is_watched: bool = False) -> Outcome:
    """Log to one tool in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        n_calls = N_WATCHED_CALLS if is_watched else pattern.n_calls
        asked = {"tool": tool, "n_calls": n_calls, "pause_s": pattern.pause_s, "directory": directory, "is_watched": is_watched}
        done = subprocess.run([str(PYTHON), str(WORKER)], input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tool}, {pattern.name}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    micros = [1e6 * one for one in found.pop("seconds")]
    return Outcome(statistics.median(micros), statistics.fmean(micros), statistics.quantiles(micros, n=100)[98], max(micros), **found)


def run_rounds(n_rounds: int, patterns: Sequence[Pattern], *, tools: Sequence[str], seed: int) -> dict[str, dict[str, list[Outcome]]]:
    """Outcomes by pattern and tool, one a round."""
    shuffle = random.Random(seed).shuffle
    outcomes: dict[str, dict[str, list[Outcome]]] = {one.name: {tool: [] for tool in one.tools if tool in tools} for one in patterns}
    for tool in track(tools, "talks to no other machine", transient=True, console=Console(stderr=True)):
        measure(tool, TIGHT, is_watched=True)
    for number in range(n_rounds):
        jobs = [(pattern, tool) for pattern in patterns for tool in outcomes[pattern.name]]
        shuffle(jobs)
        for pattern, tool in track(jobs, f"round {number + 1} of {n_rounds}", transient=True, console=Console(stderr=True)):
            outcomes[pattern.name][tool].append(measure(tool, pattern))
    return outcomes


def take_median(outcomes: Iterable[Outcome]) -> Outcome:
    """Each figure's median."""
    rows = [asdict(one) for one in outcomes]
    return Outcome(**{name: statistics.median(row[name] for row in rows) for name in rows[0]})


def tabulate(pattern: Pattern, medians: dict[str, Outcome]) -> Figures:
    fastest = find_fastest(medians)
    rows = [
        (
            tool,
            f"{one.median_us:,.1f}",
            f"{one.mean_us:,.1f}",
            f"{one.p99_us:,.0f}",
            f"{one.longest_us / 1000:,.1f}",
            f"{one.median_us / medians[fastest].median_us:.2f}",
            f"{one.durable_s:.2f}",
            f"{one.start_s:.2f}",
            f"{one.memory_mib:.0f}",
            f"{one.disk_kib:,.0f}",
            f"{one.n_lost:,.0f}" if tool.startswith("klaudit") else "",
        )
        for tool, one in sorted(medians.items(), key=lambda item: item[1].median_us)
    ]
    columns = (
        "tool",
        "median us",
        "mean us",
        "p99 us",
        "longest ms",
        f"x of {fastest}",
        "durable s",
        "import and start s",
        "memory MiB",
        "disk KiB",
        "lost",
    )
    return Figures(f"One `log` of 12 metrics, {pattern.n_calls:,} calls {pattern.name}", columns, rows)


def find_fastest(medians: dict[str, Outcome]) -> str:
    """The peer whose median call is shortest."""
    return min((tool for tool in PEERS if tool in medians), key=lambda tool: medians[tool].median_us)


def judge(medians: dict[str, dict[str, Outcome]]) -> tuple[Figures, bool]:
    """Each goal, and whether all are met."""
    rows, is_met = [], True
    for goal in GOALS:
        of_pattern = medians[goal.pattern.name]
        fastest = find_fastest(of_pattern)
        ratio = of_pattern[goal.tool].median_us / of_pattern[fastest].median_us
        is_met = is_met and ratio <= goal.most
        rows.append((goal.tool, goal.pattern.name, fastest, f"{ratio:.2f}", f"at most {goal.most:g}"))
    return Figures("klaudit's median call over the fastest peer's", ("klaudit", "calls", "fastest peer", "ratio", "goal"), rows), is_met


def main() -> int:
    """Print the tables; exits with 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    parser.add_argument("--without", nargs="+", default=[], choices=PEERS[1:], metavar="TOOL", help="slower peers to leave out")
    parser.add_argument("--no-sustained", action="store_true", help="without the 50,000 calls")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="every round's figures")
    output.add_argument("--markdown", action="store_true", help="the tables of docs/performance.md")
    arguments = parser.parse_args()
    if not PYTHON.exists():
        raise SystemExit("expected the environment .venv-trackers; make it with: make .venv-trackers/trackers.stamp")
    patterns = (TIGHT, PACED) if arguments.no_sustained else (TIGHT, PACED, SUSTAINED)
    outcomes = run_rounds(arguments.rounds, patterns, tools=[tool for tool in TOOLS if tool not in arguments.without], seed=arguments.seed)
    medians = {name: {tool: take_median(rounds) for tool, rounds in tools.items()} for name, tools in outcomes.items()}
    figures, is_met = judge(medians)
    if arguments.json:
        json.dump(
            {name: {tool: [asdict(one) for one in rounds] for tool, rounds in tools.items()} for name, tools in outcomes.items()},
            sys.stdout,
        )
    else:
        for pattern in patterns:
            print_table(tabulate(pattern, medians[pattern.name]), as_markdown=arguments.markdown)
        print_table(figures, as_markdown=arguments.markdown)
    return 0 if is_met else 1


if __name__ == "__main__":
    raise SystemExit(main())
