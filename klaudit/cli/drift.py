"""`klaudit drift`."""

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer

from klaudit.cli.options import JsonOption, RunArgument, StoreOption, open_given_store, read_given_store, require_installed
from klaudit.cli.output import console, messages, print_json, print_table
from klaudit.cli.progress import track_drift
from klaudit.demo.prompts import HELDOUT_BEGINNINGS
from klaudit.drift.prompt_set import PromptSet, read_prompt_set
from klaudit.errors import InvalidConfig
from klaudit.records import UNIT_LABELS, DriftMeasurement
from klaudit.records.series import GOVERNING_ORDER
from klaudit.workflows.drift import DriftSettings, list_run_checkpoints, measure_drift

app = typer.Typer(no_args_is_help=True, help="KL of checkpoints to the reference, measured with the whole vocabulary.")
DEFAULTS = DriftSettings()


@app.command("measure")
def measure(
    reference: Annotated[str, typer.Option("--reference", metavar="REF", help="Directory, hub id, or SmolLM2-135M-Instruct.")],
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Measure this run's checkpoints, and keep the result with it.")
    ] = None,
    checkpoints: Annotated[
        list[Path] | None, typer.Option("--checkpoints", metavar="DIR", help="A checkpoint, or a directory of them; may be repeated.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", metavar="FILE", help="*.jsonl or *.txt with a prompt a line; default: 16 beginnings of reviews."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Tokens a completion.")] = DEFAULTS.max_new_tokens,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Completions a prompt.")] = DEFAULTS.samples_per_prompt,
    seed: Annotated[int, typer.Option("--seed", help="Of the sampling.")] = DEFAULTS.seed,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how far each checkpoint has moved from the reference, with a 95% interval."""
    if (run is None) == (not checkpoints):
        raise InvalidConfig("expected either --run RUN or --checkpoints DIR; got " + ("neither" if run is None else "both"))
    require_installed("torch", "transformers", what="Measuring drift", extra="train")
    settings = DriftSettings(max_new_tokens=max_new_tokens, samples_per_prompt=samples, seed=seed)
    prompt_set = read_prompts(prompts)
    if run is None:
        with track_drift() as on_progress:
            measured = measure_drift(
                reference=reference,
                checkpoints=_find_checkpoints(checkpoints or []),
                prompts=prompt_set,
                settings=settings,
                on_progress=on_progress,
            )
    else:
        with open_given_store(store) as opened:
            found = opened.runs.get(run)
            saved = list_run_checkpoints(opened, found.id)
            with track_drift() as on_progress:
                measured = measure_drift(
                    reference=reference,
                    checkpoints=saved,
                    prompts=prompt_set,
                    settings=settings,
                    run_id=found.id,
                    store=opened,
                    on_progress=on_progress,
                )
    print_measurements(measured, as_json=as_json)


@app.command("show")
def show(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """What was measured of a run's checkpoints."""
    with read_given_store(store) as opened:
        found = opened.runs.get(run)
        measured = opened.drift.list(found.id)
    if not measured:
        messages.print(
            f"nothing was measured of run {found.name!r}: klaudit drift measure --run {found.name} --reference REF", markup=False
        )
    print_measurements(measured, as_json=as_json)


def read_prompts(path: Path | None) -> PromptSet:
    """The prompt set of a file, else the project's own.

    Raises:
        InvalidConfig: the file cannot be read.
    """
    return HELDOUT_BEGINNINGS if path is None else read_prompt_set(path)


def _find_checkpoints(paths: list[Path]) -> list[Any]:
    from klaudit.drift.checkpoints import CheckpointSource, find_checkpoints

    return [
        one for path in paths for one in ([CheckpointSource(path, None)] if (path / "config.json").is_file() else find_checkpoints(path))
    ]


def print_measurements(measured: tuple[DriftMeasurement, ...] | list[DriftMeasurement], *, as_json: bool) -> None:
    """Measurements as a table or as JSON (DESIGN 6.1)."""
    if as_json:
        print_json({"measurements": [describe_measurement(one) for one in measured]})
        return
    for (reference, unit), group in itertools.groupby(measured, key=lambda one: (one.reference.name, one.series.unit)):
        of_checkpoint: dict[str, dict[str, DriftMeasurement]] = {}
        for one in group:
            of_checkpoint.setdefault(Path(one.checkpoint).name, {})[one.series.estimator] = one
        estimators = sorted({estimator for row in of_checkpoint.values() for estimator in row}, key=GOVERNING_ORDER.index)
        console.print(f"KL to {reference} in {UNIT_LABELS[unit]}, mean and 95% interval", markup=False, soft_wrap=True)
        print_table(
            ("checkpoint", *(f"{estimator}>" for estimator in estimators), "sequences>"),
            [
                (name, *(_format(row.get(estimator)) for estimator in estimators), str(next(iter(row.values())).n_sequences))
                for name, row in of_checkpoint.items()
            ],
            empty="",
        )


def _format(one: DriftMeasurement | None) -> str:
    return "-" if one is None else f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}]"


def describe_measurement(one: DriftMeasurement) -> dict[str, Any]:
    """A measurement as JSON."""
    series = {"kind": one.series.kind, "estimator": one.series.estimator, "unit": one.series.unit, "aggregation": one.series.aggregation}
    return {
        "checkpoint": one.checkpoint,
        "step": one.step,
        "slice": one.slice,
        "series": {**series, "direction": one.series.direction, "temperature": one.series.temperature},
        "value": one.value,
        "low": one.low,
        "high": one.high,
        "n_sequences": one.n_sequences,
        "mean_length": one.mean_length,
        "reference": one.reference.name,
        "reference_digest": one.reference.digest,
        "checkpoint_digest": one.checkpoint_digest,
        "settings": dict(one.settings),
        "measured_at": one.measured_at.isoformat(),
    }
