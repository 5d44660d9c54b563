"""`klaudit drift`."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from klaudit.cli.drift_output import (
    describe_completions,
    describe_measurement,
    describe_measurements,
    describe_profile,
    print_drift,
    print_matrix,
)
from klaudit.cli.options import JsonOption, StoreOption, open_given_store, read_given_store, require_installed
from klaudit.cli.output import messages, print_json
from klaudit.cli.progress import track_drift
from klaudit.demo.prompts import HELDOUT_BEGINNINGS
from klaudit.drift.passages import Passages, read_passages
from klaudit.drift.plan import DTYPES, MeasurementSettings
from klaudit.drift.prompt_set import PromptSet, read_prompt_set
from klaudit.errors import InvalidConfig, ModelNotFound
from klaudit.report.views import format_count
from klaudit.store import Store
from klaudit.workflows.drift import DriftRequest, list_run_checkpoints, measure_drift, plan_drift

if TYPE_CHECKING:
    from klaudit.drift.checkpoints import CheckpointSource
    from klaudit.drift.executor import Executor

app = typer.Typer(no_args_is_help=True, help="KL of checkpoints to the reference, measured with the whole vocabulary.")
DEFAULTS = MeasurementSettings()
NO_RETENTION = "none"
LOCAL_CLUSTER = "local"
MOST_RUNS = 8
"""Runs that are listed where none was named."""

MeasuredRun = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="A run's id or its name. Without it, the runs with measured drift are listed.", show_default=False),
]


@app.command("measure")
def measure(
    reference: Annotated[str, typer.Option("--reference", metavar="REF", help="Directory, *.gguf, hub id, or SmolLM2-135M-Instruct.")],
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Measure this run's checkpoints, and keep the result with it.")
    ] = None,
    checkpoints: Annotated[
        list[str] | None, typer.Option("--checkpoints", metavar="DIR", help="A checkpoint, or a directory of them; may be repeated.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="*.jsonl with prompt, and slice and weight where wanted, or *.txt with a prompt a line; default: 16 beginnings of reviews.",
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Tokens a completion.")] = DEFAULTS.max_new_tokens,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Completions a prompt.")] = DEFAULTS.samples_per_prompt,
    seed: Annotated[int, typer.Option("--seed", help="Of the sampling.")] = DEFAULTS.seed,
    ci: Annotated[
        float | None,
        typer.Option("--ci", metavar="SHARE", help="Go on sampling until half the 95% interval is this share of the value, such as 0.1."),
    ] = None,
    forward: Annotated[
        bool, typer.Option("--forward/--no-forward", help="Measure KL(reference || policy) too, from the reference's completions.")
    ] = DEFAULTS.forward,
    retention: Annotated[
        str | None,
        typer.Option(
            "--retention",
            metavar="FILE|none",
            help="Text whose perplexity is compared: *.txt with blank lines between passages, or *.jsonl with text. Default: klaudit's own.",
        ),
    ] = None,
    matrix: Annotated[bool, typer.Option("--matrix", help="Measure the checkpoints against each other too.")] = False,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Sequences at a time; halved where memory runs out. No number depends on it.")
    ] = DEFAULTS.batch_size,
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="|".join(DTYPES), help="Type of the weights; in 16 bits faster and smaller, and less precise.")
    ] = DEFAULTS.dtype,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load weights from pickles where there are no safetensors; only if you trust them.")
    ] = False,
    ray: Annotated[
        str | None, typer.Option("--ray", metavar="ADDRESS|local", help="Measure on a Ray cluster, or on one of this machine.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="With --ray: models that are loaded side by side.")] = 2,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how far each checkpoint has moved from the reference, with a 95% interval. Interrupted, the same command continues."""
    if (run is None) == (not checkpoints):
        raise InvalidConfig("expected either --run RUN or --checkpoints DIR; got " + ("neither" if run is None else "both"))
    require_installed("torch", "transformers", what="Measuring drift", extra="train")
    if ray is not None:
        require_installed("ray", what="Measuring on Ray", extra="ray")
    settings = MeasurementSettings(
        max_new_tokens=max_new_tokens, samples_per_prompt=samples, seed=seed, batch_size=batch_size, forward=forward, dtype=dtype
    )
    asked: dict[str, Any] = {
        "reference": reference,
        "prompts": read_prompts(prompts),
        "settings": settings,
        "passages": read_retention_text(retention),
        "within": ci,
        "with_matrix": matrix,
        "allow_pickle": allow_pickle,
    }
    with ExitStack() as stack:
        if run is None:
            plan = plan_drift(DriftRequest(checkpoints=find_given_checkpoints(checkpoints or []), **asked))
            # Made only now: a mistake in the arguments leaves nothing behind.
            opened = stack.enter_context(open_given_store(store, create=True))
        else:
            opened = stack.enter_context(open_given_store(store))
            run_id = opened.runs.get(run).id
            plan = plan_drift(DriftRequest(checkpoints=list_run_checkpoints(opened, run_id), run_id=run_id, **asked))
        executor = stack.enter_context(make_executor(ray, n_workers=workers))
        # Only now, because transformers sets it when it is imported.
        logging.getLogger("transformers").setLevel(logging.ERROR)
        with track_drift() as on_progress:
            measured = measure_drift(plan, opened, executor=executor, on_progress=on_progress, tell=_tell)
    if n_known := sum(one.is_known for one in measured.checkpoints):
        _tell(f"already measured, and not measured again: {format_count(n_known, 'checkpoint')} of {len(measured.checkpoints)}")
    if as_json:
        described = {
            **describe_measurements(measured.measurements),
            "profiles": [describe_profile(one.profile) | {"already_measured": one.is_known} for one in measured.checkpoints],
            "distances": [describe_measurement(one) for one in measured.distances],
        }
        print_json(described)
        return
    print_drift(measured.measurements, measured.profiles)
    if measured.distances:
        print_matrix(measured.distances)


@app.command("show")
def show(run: MeasuredRun = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """What was measured of a run's checkpoints: KL by slice, check of the sampling, retention, weights by layer."""
    with read_given_store(store) as opened:
        found = opened.runs.get(require_run(run, opened))
        measured = opened.drift.list(found.id)
        profiles = opened.drift.list_profiles(found.id)
        completions = describe_completions(opened, profiles) if as_json else []
    if not measured:
        _tell(f"nothing was measured of run {found.name!r}: klaudit drift measure --run {found.name} --reference REF")
    if as_json:
        described = [describe_profile(one) for one in profiles]
        print_json({**describe_measurements(measured), "profiles": described, "completions": completions})
        return
    print_drift(measured, profiles)


@app.command("matrix")
def show_matrix(run: MeasuredRun = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """KL of a run's checkpoints to each other, both ways, as measured with `drift measure --matrix`."""
    with read_given_store(store) as opened:
        found = opened.runs.get(require_run(run, opened))
        distances = opened.drift.list_distances(found.id)
    if not distances:
        _tell(
            f"the checkpoints of run {found.name!r} were not compared with each other: "
            f"klaudit drift measure --run {found.name} --reference REF --matrix"
        )
    if as_json:
        print_json({"distances": [describe_measurement(one) for one in distances]})
    else:
        print_matrix(distances)


def require_run(run: str | None, store: Store) -> str:
    """The run that was named.

    Raises:
        InvalidConfig: none was; the runs that drift was measured of are listed.
    """
    if run is not None:
        return run
    counts = store.drift.count_measured()
    shown = ", ".join(f"{name} ({format_count(n, 'checkpoint')})" for name, n in [*counts.items()][:MOST_RUNS])
    more = f" and {format_count(len(counts) - MOST_RUNS, 'other')}" if len(counts) > MOST_RUNS else ""
    measure = "No run has measured drift yet: klaudit drift measure --reference REF --run RUN"
    raise InvalidConfig(f"expected the id or name of a run; got none. {f'Runs with measured drift: {shown}{more}' if counts else measure}")


def read_prompts(path: Path | None) -> PromptSet:
    """The prompt set of a file, else the project's own.

    Raises:
        InvalidConfig: the file cannot be read.
    """
    return HELDOUT_BEGINNINGS if path is None else read_prompt_set(path)


def read_retention_text(option: str | None) -> Passages | None:
    """The text that the option names, the project's own without it; None for `none`.

    Raises:
        InvalidConfig: the file cannot be read.
    """
    return None if option == NO_RETENTION else read_passages(option)


def make_executor(ray: str | None, *, n_workers: int) -> "AbstractContextManager[Executor | None]":
    """Who measures: the workers of a Ray cluster, or None for this process."""
    if ray is None:
        return nullcontext()
    from klaudit.drift.ray_executor import RayExecutor

    return RayExecutor(None if ray == LOCAL_CLUSTER else ray, n_workers=n_workers)


def find_given_checkpoints(names: Sequence[str]) -> "tuple[CheckpointSource, ...]":
    """What `--checkpoints` names: models, directories of checkpoints, hub ids.

    Raises:
        ModelNotFound: a path where nothing lies, or a directory without checkpoints.
    """
    from klaudit.drift.checkpoints import CheckpointSource, find_checkpoints

    found: list[CheckpointSource] = []
    for name in names:
        path = Path(name).expanduser()
        if not path.exists():
            if name.startswith((".", "/", "~")):
                raise ModelNotFound(
                    f"--checkpoints: expected a checkpoint, or a directory with checkpoint-N in it; there is none at {name!r}"
                )
            found.append(CheckpointSource(path, None))
        elif path.is_dir() and not is_model(path):
            found += find_checkpoints(path.absolute())
        else:
            found.append(CheckpointSource(path.absolute(), None))
    return tuple({one.path: one for one in reversed(found)}.values())[::-1]


def is_model(directory: Path) -> bool:
    """Whether a directory holds a model, or an adapter of one, and not checkpoints of a run."""
    return any((directory / name).is_file() for name in ("config.json", "adapter_config.json"))


def _tell(line: str) -> None:
    messages.print(line, markup=False, soft_wrap=True)
