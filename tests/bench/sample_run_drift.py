"""Drift of a sample run's checkpoints, by checkpoint and slice: `python -m tests.bench.sample_run_drift [RUN] [--kept DIR]`.

Checkpoints are not kept in the repository, so the run is trained again from its config.toml (64 steps, 10 to 25 minutes), in a directory that is used
again where it is given: what was trained or measured there is not trained or measured again.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from klaudit.demo.recipe import Recipe, read_recipe
from klaudit.demo.training import train_recipe
from klaudit.drift.checkpoints import find_checkpoints
from klaudit.drift.passages import read_passages
from klaudit.drift.plan import MeasurementSettings
from klaudit.drift.prompt_set import read_prompt_set
from klaudit.records import DriftMeasurement
from klaudit.store import open_store
from klaudit.workflows.drift import DriftRequest, MeasuredDrift, measure_drift, plan_drift
from tests.bench.tables import Figures, print_table

SAMPLE_RUNS = Path("sample_runs")
PROMPTS = Path(__file__).with_name("sample_run_prompts.jsonl")
"""Eight prompts each of four kinds, of which the runs were trained on one."""


def measure_sample_run(recipe: Recipe, *, kept: Path, console: Console) -> MeasuredDrift:
    """Train where nothing is kept, then measure."""
    url, checkpoints = f"sqlite:///{kept}/klaudit.db", kept / recipe.name
    if not (checkpoints / f"checkpoint-{recipe.ppo.max_steps}").is_dir():
        # As the sample runs were: sums differ in their last digits with the number of threads, and a training amplifies them.
        torch.set_num_threads(1)
        train_recipe(recipe, store=url, output_dir=checkpoints, on_step=lambda step, _: console.print(f"step {step}", end="\r"))
    request = DriftRequest(
        reference=recipe.policy,
        checkpoints=find_checkpoints(checkpoints),
        prompts=read_prompt_set(PROMPTS),
        settings=MeasurementSettings(samples_per_prompt=2),
        passages=read_passages(),
        with_matrix=True,
    )
    with open_store(url, create=True) as store:
        return measure_drift(plan_drift(request), store, tell=console.print)


def list_rows(measured: MeasuredDrift) -> list[tuple[str, ...]]:
    """One row a checkpoint and slice."""
    rows = [one for one in measured.measurements if one.series.estimator == "full"]
    slices = list(dict.fromkeys(one.slice for one in rows))
    return [
        (f"{profile.step}", name or "all", *(_format(rows, profile.step, name, direction) for direction in ("reverse", "forward")))
        for profile in measured.profiles
        for name in slices
    ]


def _format(rows: list[DriftMeasurement], step: int | None, name: str | None, direction: str) -> str:
    one = next(row for row in rows if (row.step, row.slice, row.series.direction) == (step, name, direction))
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="beta-near-zero", help="a directory of sample_runs")
    parser.add_argument("--kept", type=Path, help="where checkpoints and measurements are kept; default: nowhere")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    console, recipe = Console(stderr=True), read_recipe(SAMPLE_RUNS / arguments.run / "config.toml")
    with tempfile.TemporaryDirectory(prefix="klaudit-") as workspace:
        kept = (arguments.kept or Path(workspace)).absolute()
        kept.mkdir(parents=True, exist_ok=True)
        measured = measure_sample_run(recipe, kept=kept, console=console)
    columns = ("after update", "prompts", "KL(policy ‖ reference)", "KL(reference ‖ policy)")
    title = f"{recipe.name}: full, nats/sequence, 95% interval over prompts"
    print_table(Figures(title, columns, list_rows(measured)), as_markdown=arguments.markdown)
    retained = [
        (f"{one.step}", f"{one.retention.rise.value:.3f} [{one.retention.rise.low:.3f}, {one.retention.rise.high:.3f}]")
        for one in measured.profiles
        if one.retention is not None
    ]
    print_table(Figures("rise on ordinary text", ("after update", "nats/token"), retained), as_markdown=arguments.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
