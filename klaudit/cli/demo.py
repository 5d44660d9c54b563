"""`klaudit demo` and `klaudit train`."""

import contextlib
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from klaudit.assets import locate_asset
from klaudit.cli.audit import print_audit
from klaudit.cli.dashboard import serve_pages
from klaudit.cli.drift import read_prompts
from klaudit.cli.drift_output import print_drift
from klaudit.cli.options import StoreOption, find_store_url, require_installed
from klaudit.cli.output import messages
from klaudit.cli.progress import track_drift, track_training
from klaudit.demo.recipe import Recipe, make_demo_recipe, read_recipe
from klaudit.drift.plan import MeasurementSettings
from klaudit.errors import InvalidConfig, StoreUnreachable
from klaudit.report.views import format_count
from klaudit.store import Store, open_store
from klaudit.store.sessions import find_free_name
from klaudit.workflows.audits import audit_stored_run, keep_findings
from klaudit.workflows.drift import DriftRequest, list_run_checkpoints, measure_drift, plan_drift
from klaudit.workflows.recorded_runs import load_recorded_run
from klaudit.workflows.reports import compose_report, save_report

if TYPE_CHECKING:
    from klaudit.demo.training import TrainedRun

RUNS = Path("runs")
"""Where checkpoints and reports of trained runs go, under the working directory."""
DEMO_DRIFT = MeasurementSettings(samples_per_prompt=2, forward=False)


def run_demo(
    steps: Annotated[int, typer.Option("--steps", min=1, help="PPO steps.")] = 40,
    beta: Annotated[float, typer.Option("--beta", min=0, help="KL penalty coefficient, reward/nat.")] = 0.05,
    adaptive: Annotated[bool, typer.Option("--adaptive", help="Let a controller move beta towards 2 nats/sequence.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same machine, same run.")] = 0,
    model: Annotated[str | None, typer.Option("--model", metavar="M", help="Directory or hub id. Default: SmolLM2-135M-Instruct.")] = None,
    healthy: Annotated[bool, typer.Option("--healthy", help="Leave out the planted fault: a learning rate x20 for three steps.")] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Load the recorded sample runs instead of training.")] = False,
    serve: Annotated[bool, typer.Option("--serve", help="Open the dashboard at the end.")] = False,
    store: StoreOption = None,
) -> int:
    """Train a real language model with PPO, then audit it, measure its drift and write the report."""
    url = find_store_url(store)
    if serve:
        require_installed("streamlit", "plotly", what="The dashboard", extra="dashboard")
    if replay:
        replay_sample_runs(url)
    else:
        walk_through(make_demo_recipe(steps=steps, beta=beta, adaptive=adaptive, seed=seed, policy=model, is_healthy=healthy), url=url)
    if serve:
        return serve_pages(url, port=8501)
    option = "" if store is None else f" --store {store}"
    messages.print("", f"Look at it: klaudit dashboard{option}", sep="\n", markup=False)
    return 0


def run_training(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="See docs/ppo.md.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="For the checkpoints. Default: runs/NAME.")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="CHECKPOINT", help="Go on from a checkpoint of this run.")] = None,
    store: StoreOption = None,
) -> None:
    """Train with the embedded PPO trainer, recorded and audited live."""
    recipe = read_recipe(config)
    if resume is not None and not resume.is_dir():
        raise InvalidConfig(f"--resume: expected a checkpoint's directory; there is none at {resume}")
    require_inputs(recipe, url=find_store_url(store))
    default_out = find_free_directory(recipe.name) if resume is None else resume.parent
    trained = train(recipe, url=find_store_url(store), out=out or default_out, resume_from=resume)
    messages.print(f"run {trained.run.name!r} is recorded; checkpoints in {trained.output_dir}", markup=False)


def replay_sample_runs(url: str) -> None:
    """Load the recorded sample runs into a store."""
    directories = sorted(path.parent for path in locate_asset("sample_runs").glob("*/steps.jsonl"))
    if not directories:
        raise InvalidConfig("this installation has no sample runs; train instead: klaudit demo")
    with open_store(url, create=True) as opened:
        for directory in directories:
            loaded = load_recorded_run(opened, directory)
            state = (
                f"{format_count(loaded.n_steps, 'step')}, {format_count(loaded.n_findings, 'finding')}"
                if loaded.is_new
                else "is there already"
            )
            messages.print(f"{loaded.run.name}: {state}", markup=False)


def walk_through(recipe: Recipe, *, url: str) -> None:
    """Train, audit, measure, report."""
    require_inputs(recipe, url=url)
    began = time.monotonic()
    messages.rule("1 of 4  Train with PPO, recorded and audited live")
    messages.print(recipe.description, markup=False, soft_wrap=True)
    trained = train(recipe, url=url, out=find_free_directory(recipe.name))
    with open_store(url) as opened:
        measure_checkpoints(opened, trained, reference=recipe.policy)
        messages.rule("3 of 4  Audit")
        audit = audit_stored_run(opened, trained.run.id)
        keep_findings(opened, audit)
        print_audit(audit)
        messages.rule("4 of 4  Report")
        path = trained.output_dir / "report.html"
        save_report(path, compose_report(opened, trained.run.id, report_format="html", generated_at=datetime.now(UTC)))
    minutes = (time.monotonic() - began) / 60
    messages.print(
        path,
        "",
        f"{format_count(audit.coverage.steps, 'step')} of run {trained.run.name!r} are in {url}; it took {minutes:.1f} min",
        sep="\n",
        markup=False,
    )


def measure_checkpoints(opened: Store, trained: "TrainedRun", *, reference: str) -> None:
    """The drift of a trained run's checkpoints."""
    messages.rule("2 of 4  Drift of the checkpoints from the reference")
    request = DriftRequest(
        reference=reference,
        checkpoints=list_run_checkpoints(opened, trained.run.id),
        prompts=read_prompts(None),
        settings=DEMO_DRIFT,
        run_id=trained.run.id,
    )
    with track_drift() as on_progress:
        measured = measure_drift(plan_drift(request), opened, on_progress=on_progress)
    print_drift([one for one in measured.measurements if one.series.estimator == "full"], ())


def require_inputs(recipe: Recipe, *, url: str) -> None:
    """Refuse what cannot end well before anything is loaded, printed or written.

    Raises:
        ModelNotFound: no model under the recipe's name.
        StoreError: something lies at the store's URL that is no store of this version.
        MissingExtra: torch, transformers or vaderSentiment is not installed.
    """
    require_installed("torch", "transformers", "vaderSentiment", what="Training", extra="demo")
    from klaudit.models.language_model import locate_model

    # One that is not there yet is made when training begins.
    with contextlib.suppress(StoreUnreachable):
        open_store(url, read_only=True).close()
    locate_model(recipe.policy)


def train(recipe: Recipe, *, url: str, out: Path, resume_from: Path | None = None) -> "TrainedRun":
    """Train a recipe with a progress bar."""
    messages.print("loading the model ...", style="dim")
    from klaudit.demo.training import train_recipe

    logging.getLogger("transformers").setLevel(logging.ERROR)
    with track_training(recipe.ppo.max_steps) as on_step:
        trained = train_recipe(recipe, store=url, output_dir=out, on_step=on_step, resume_from=resume_from)
    if trained.failures:
        messages.print(f"klaudit failed {trained.failures} times while training went on: the record has gaps", style="yellow")
    return trained


def find_free_directory(name: str) -> Path:
    """Under RUNS, as the run will be named: a second run of a name must not write over the first one's checkpoints."""
    return RUNS / find_free_name(name, taken=[path.name for path in RUNS.glob("*")])
