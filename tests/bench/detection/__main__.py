"""How well detectors find what was planted, and how often they cry wolf.

Track A: generated runs. Track B: kinds planted on recorded curves. Track C: runs of the embedded trainer, broken on purpose.
Seeds 0 to 999 are for calibration, seeds from 10,000 on for figures that are reported.

    python -m tests.bench.detection --track a --seeds 10000:10400
"""

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track as show_progress

from tests.bench.detection.broken_run import read_broken_runs
from tests.bench.detection.curve import plant_on_curves, read_curves
from tests.bench.detection.goals import GOALS
from tests.bench.detection.judgement import KLAUDIT, Judgement, judge_against, judge_run, judge_seed, raise_alarms
from tests.bench.detection.kinds import CURVE_KINDS, HEALTHY, KINDS, Kind
from tests.bench.detection.peers import PEERS
from tests.bench.detection.shapes import SHAPE_NAMES
from tests.bench.detection.tabulation import list_mistakes, score_detectors, tabulate_detectors, tabulate_kinds
from tests.bench.tables import print_table

LAST_CALIBRATED, FIRST_REPORTED = 999, 10_000

Given = TypeVar("Given")
Made = TypeVar("Made")


def main() -> int:
    """Print the tables; 1 where klaudit misses a goal."""
    arguments = read_arguments()
    detectors = list_detectors(arguments.policies, with_peers=arguments.peers)
    tracks = {"a": run_track_a, "b": run_track_b, "c": run_track_c}
    missed = [f"track {name}: {goal}" for name in tracks if arguments.track in ("all", name) for goal in tracks[name](arguments, detectors)]
    for goal in missed:
        say(goal)
    return 1 if missed else 0


def read_arguments() -> argparse.Namespace:
    """From the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.detection", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--track", choices=("a", "b", "c", "all"), default="all")
    parser.add_argument("--seeds", type=parse_range, default=range(10_000, 10_400), help="FROM:TO, TO left out (10000:10400)")
    parser.add_argument("--runs", type=int, help="of track A: no more seeds than these")
    parser.add_argument(
        "--kinds", type=parse_list, help=f"only these, with commas: {', '.join(dict.fromkeys((HEALTHY, *KINDS, *CURVE_KINDS)))}"
    )
    parser.add_argument("--shapes", type=parse_list, help=f"of track A: only runs of these: {', '.join(SHAPE_NAMES)}")
    parser.add_argument("--estimators", type=parse_list, help="of track A: only runs governed by these: k1, k3, full")
    parser.add_argument("--placements", type=int, default=8, help="of track B: onsets of each kind on each curve (8)")
    parser.add_argument("--curves", type=Path, help="of track B: a directory with more curves as JSON (name, header, steps)")
    parser.add_argument(
        "--policies", type=parse_list, default=["default"], help="presets or policy files of klaudit, with commas (default)"
    )
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--detail", action="store_true", help="every miss, wrong name and false alarm of the first policy")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    return parser.parse_args()


def parse_range(text: str) -> range:
    """`FROM:TO`."""
    first, _, end = text.partition(":")
    return range(int(first), int(end))


def parse_list(text: str) -> list[str]:
    """`one,two`."""
    return [one.strip() for one in text.split(",") if one.strip()]


def list_detectors(policies: Sequence[str], *, with_peers: bool) -> list[str]:
    """klaudit under each policy, and the peers that can be imported; says which cannot."""
    own = [KLAUDIT if policy == "default" else f"{KLAUDIT} {policy}" for policy in policies]
    if not with_peers:
        return own
    for peer in PEERS.values():
        if not peer.is_here:
            say(f"{peer.name}: not in the table, because {peer.needs} is not installed here")
    return [*own, *(peer.name for peer in PEERS.values() if peer.is_here)]


def say(text: str) -> None:
    """On standard error, beside the tables."""
    print(text, file=sys.stderr)


def run_track_a(arguments: argparse.Namespace, detectors: Sequence[str]) -> list[str]:
    """Generated runs."""
    seeds = arguments.seeds[: arguments.runs]
    kinds = arguments.kinds or [HEALTHY, *KINDS]
    judge = partial(judge_seed, kinds=kinds, shapes=arguments.shapes, estimators=arguments.estimators, detectors=detectors)
    judgements = [one for one in spread(judge, seeds, arguments.jobs, "track A") if one is not None]
    return report("a", f"{len(judgements)} generated runs, {name_seeds(seeds)}", judgements, KINDS, arguments)


def name_seeds(seeds: range) -> str:
    """What they are for."""
    if not seeds:
        return "no seeds"
    use = (
        "calibration"
        if seeds[-1] <= LAST_CALIBRATED
        else "reporting"
        if seeds[0] >= FIRST_REPORTED
        else "neither calibration nor reporting"
    )
    return f"seeds {seeds[0]} to {seeds[-1]} ({use})"


def run_track_b(arguments: argparse.Namespace, detectors: Sequence[str]) -> list[str]:
    """Kinds planted on recorded curves."""
    curves = read_curves(arguments.curves)
    for curve in curves:
        say(f"curve {curve.name}: {len(curve.steps)} steps; {curve.source}")
    kinds = [kind for kind in CURVE_KINDS if not arguments.kinds or kind in arguments.kinds]
    healthy = [curve.as_healthy_run() for curve in curves]
    alarms = dict(
        zip(
            (run.name for run in healthy),
            spread(partial(raise_alarms, detectors=detectors), healthy, arguments.jobs, "curves"),
            strict=True,
        )
    )
    clean = [judge_run(run, detectors) for run in healthy]
    runs = list(plant_on_curves(curves, kinds, n_placements=arguments.placements, seed=arguments.seeds[0]))
    planted = spread(partial(judge_against, clean=alarms), runs, arguments.jobs, "track B")
    return report("b", f"{len(runs)} runs planted on {len(curves)} recorded curves", [*clean, *planted], CURVE_KINDS, arguments)


def run_track_c(arguments: argparse.Namespace, detectors: Sequence[str]) -> list[str]:
    """Recorded runs of the embedded trainer."""
    runs = read_broken_runs()
    if not runs:
        say("Track C: left out, because no broken run is recorded (sample_runs/broken)")
        return []
    judgements = list(spread(partial(judge_run, detectors=detectors), runs, arguments.jobs, "track C"))
    kinds = {run.planted.kind: Kind(run.planted.kind, run.planted.codes) for run in runs if run.planted}
    return report("c", f"{len(runs)} recorded runs", judgements, kinds, arguments)


def report(track: str, what: str, judgements: Sequence[Judgement], kinds: Mapping[str, Kind], arguments: argparse.Namespace) -> list[str]:
    """Print a track's tables; gives the goals that the first policy missed."""
    title = f"Track {track.upper()}: {what}"
    if not judgements:
        say(f"{title}; nothing to judge")
        return []
    if arguments.detail:
        print(*list_mistakes(judgements, next(iter(judgements[0].by_detector))), sep="\n")
    scores = score_detectors(judgements)
    print_table(tabulate_detectors(title, scores, kinds), as_markdown=arguments.markdown)
    print_table(tabulate_kinds(f"{title}, by kind", scores), as_markdown=arguments.markdown)
    return list(GOALS[track](next(iter(scores.values())), kinds))


def spread(work: Callable[[Given], Made], items: Sequence[Given], n_jobs: int, name: str) -> Iterator[Made]:
    """Do the work for each item, over several processes if asked to; results come in the order of the items."""
    show = partial(show_progress, description=name, total=len(items), transient=True, console=Console(stderr=True))
    if n_jobs == 1:
        yield from show(map(work, items))
        return
    with ProcessPoolExecutor(n_jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from show(pool.map(work, items, chunksize=4))


if __name__ == "__main__":
    raise SystemExit(main())
