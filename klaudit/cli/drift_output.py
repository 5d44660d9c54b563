"""What `klaudit drift` prints, for people and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import PurePath
from typing import Any

from klaudit.cli.output import console, print_table
from klaudit.records import UNIT_LABELS, DriftMeasurement, DriftProfile
from klaudit.records.drift_shard import Sampler
from klaudit.records.moment import format_moment
from klaudit.report.views.drift import DIRECTIONS, keep_newest, rank_measurement
from klaudit.report.views.drift_location import LocationView, TokenDrift
from klaudit.report.views.drift_profile import RetentionView, rank_layer, tell_interval, tell_layer, tell_p, view_ratio, view_retention
from klaudit.report.views.figure import format_estimate, format_significant
from klaudit.store import Store
from klaudit.workflows.drift_views import read_location

MOST_LAYERS = 3
"""Layers that people are shown of a checkpoint; `--json` has all."""
MOST_CONTRASTED = 3
"""Checkpoints whose slices people are shown, the last ones; `--json` has all."""
MOST_TOKENS = 50
"""Tokens of a checkpoint in the JSON, those with the largest sums."""
RETENTION_COLUMNS = ("perplexity rise, %>", "perplexity>", "reference>")
SAMPLERS: tuple[Sampler, ...] = ("policy", "reference")


def print_drift(measurements: Sequence[DriftMeasurement], profiles: Sequence[DriftProfile]) -> None:
    """The newest of what was measured of each checkpoint, as tables."""

    def find_group(one: DriftMeasurement) -> tuple[str, str, str, str]:
        return one.series.direction, name_type(one), one.reference.name, one.series.unit

    newest = sorted(keep_newest(measurements), key=rank_measurement)
    for (direction, dtype, reference, unit), group in groupby(
        sorted(newest, key=lambda one: (one.series.direction != "reverse", name_type(one))), key=find_group
    ):
        told = DIRECTIONS.get(direction, "KL of unknown direction")
        print_heading(f"{told}, {UNIT_LABELS[unit]}; reference: {PurePath(reference).name}{dtype}")
        print_measurements(list(group))
    latest = {(one.step, one.checkpoint): one for one in sorted(profiles, key=lambda one: one.measured_at)}
    shown = sorted(latest.values(), key=lambda one: (one.step is None, one.step or 0, one.checkpoint))
    print_checks(shown)
    print_layers(shown)
    print_contrasts(shown)


def name_type(one: DriftMeasurement) -> str:
    """Of the weights that were measured, where it is not float32."""
    dtype = one.settings.get("dtype", "float32")
    return "" if dtype == "float32" else f"; weights in {dtype}"


def print_heading(text: str) -> None:
    """What the numbers below are, with their unit."""
    console.print(text, markup=False, style="bold")


def print_measurements(measurements: Sequence[DriftMeasurement]) -> None:
    """One row for each checkpoint and slice, `full` with its 95% interval."""
    has_slices = any(one.slice is not None for one in measurements)
    rows: dict[tuple[str, str | None], dict[str, DriftMeasurement]] = {}
    for one in measurements:
        rows.setdefault((one.checkpoint, one.slice), {})[one.series.estimator] = one
    others = [name for name in ("k3", "k1") if any(name in row for row in rows.values())]
    print_table(
        ("checkpoint", *(["slice"] if has_slices else []), "full [95% interval]>", *(f"{name}>" for name in others), "sequences>"),
        [
            (
                name_checkpoint(checkpoint),
                *([name or "all"] if has_slices else []),
                format_estimate(row["full"].value, row["full"].low, row["full"].high) if "full" in row else "-",
                *(format_significant(row[estimator].value) if estimator in row else "-" for estimator in others),
                f"{next(iter(row.values())).n_sequences:,}",
            )
            for (checkpoint, name), row in rows.items()
        ],
        empty="",
    )
    console.print()


def print_checks(profiles: Sequence[DriftProfile]) -> None:
    """Ratio and retention of each checkpoint."""
    if not profiles:
        return
    ratios = [view_ratio(one.ratio) for one in profiles]
    retentions = [None if one.retention is None else view_retention(one.retention) for one in profiles]
    has_retention = any(one is not None for one in retentions)
    print_heading(f"Sampling check{' and retention' if has_retention else ''}, 95% intervals")
    print_table(
        ("checkpoint", "ratio (1 is right)>", *(RETENTION_COLUMNS if has_retention else ())),
        [
            (name_checkpoint(profile.checkpoint), ratio.text, *(_tell_retention(retention) if has_retention else ()))
            for profile, ratio, retention in zip(profiles, ratios, retentions, strict=True)
        ],
        empty="",
    )
    for profile, ratio in zip(profiles, ratios, strict=True):
        if not ratio.is_right:
            console.print(f"{name_checkpoint(profile.checkpoint)}, ratio: {ratio.sentence}", markup=False)
    texts = dict.fromkeys(f"{one.text}, {one.n_passages:,} passages, {one.n_tokens:,} tokens" for one in retentions if one is not None)
    for text in texts:
        console.print(f"perplexity of {text}; no unit", markup=False)
    console.print()


def _tell_retention(retention: RetentionView | None) -> tuple[str, ...]:
    if retention is None:
        return ("-",) * len(RETENTION_COLUMNS)
    return tell_interval(retention.rise_percent), format_significant(retention.policy.value), format_significant(retention.reference.value)


def print_layers(profiles: Sequence[DriftProfile]) -> None:
    """The layers that moved most."""
    rows = []
    for one in profiles:
        furthest = sorted(one.layers, key=rank_layer, reverse=True)[:MOST_LAYERS]
        if furthest:
            rows.append((name_checkpoint(one.checkpoint), ", ".join(tell_layer(layer) for layer in furthest)))
    if rows:
        print_heading("Weights that moved most, in percent of the reference's (relative L2)")
        print_table(("checkpoint", "layers"), rows, empty="")
        console.print()


def print_contrasts(profiles: Sequence[DriftProfile]) -> None:
    """Each slice against all other prompts."""
    contrasted = [one for one in profiles if one.contrasts]
    for profile in contrasted[-MOST_CONTRASTED:]:
        print_heading(f"Slices of {name_checkpoint(profile.checkpoint)} against all other prompts, KL in nats/token")
        print_table(
            ("slice", "KL [95% interval]>", "others>", "times [95% interval]>", "p>", "prompts>"),
            [
                (
                    one.slice,
                    tell_interval(one.value),
                    format_significant(one.rest.value),
                    tell_interval(one.ratio),
                    tell_p(one.p_value).removeprefix("p = ").removeprefix("p "),
                    f"{one.n_prompts:,}",
                )
                for one in sorted(profile.contrasts, key=lambda one: one.p_value)
            ],
            empty="",
        )
        console.print()
    if len(contrasted) > MOST_CONTRASTED:
        console.print(f"slices of the last {MOST_CONTRASTED} of {len(contrasted)} checkpoints; --json has all", markup=False)


def print_matrix(distances: Sequence[DriftMeasurement]) -> None:
    """KL of each checkpoint to each other, the text written by the one of the row."""
    kept = [one for one in distances if (one.series.estimator, one.series.direction, one.slice) == ("full", "reverse", None)]
    values = {(one.checkpoint, one.reference.name): one for one in sorted(kept, key=lambda one: one.measured_at)}
    steps = {one.checkpoint: one.step for one in kept}
    names = sorted({name for pair in values for name in pair}, key=lambda name: (steps.get(name) is None, steps.get(name) or 0, name))
    if not names:
        return
    print_heading(f"KL(row ‖ column), {UNIT_LABELS[kept[0].series.unit]}, by full; the row's checkpoint writes the text")
    rows = [(name_checkpoint(row), *(_tell_pair(values, row, column) for column in names)) for row in names]
    print_table(("", *(f"{name_checkpoint(name).removeprefix('checkpoint-')}>" for name in names)), rows, empty="")
    console.print("95% intervals: --json", style="dim")


def _tell_pair(values: dict[tuple[str, str], DriftMeasurement], row: str, column: str) -> str:
    if row == column:
        return "0"
    return format_significant(values[row, column].value) if (row, column) in values else "-"


def name_checkpoint(path: str) -> str:
    """The last part of its path."""
    return PurePath(path).name or path


def describe_measurements(measurements: Sequence[DriftMeasurement]) -> dict[str, Any]:
    """Measurements as JSON: `measurements` of KL(policy || reference), `forward` of KL(reference || policy)."""
    return {
        "measurements": [describe_measurement(one) for one in measurements if one.series.direction != "forward"],
        "forward": [describe_measurement(one) for one in measurements if one.series.direction == "forward"],
    }


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


def describe_profile(one: DriftProfile) -> dict[str, Any]:
    """A profile as JSON; units stand in the names."""
    return {
        "checkpoint": one.checkpoint,
        "step": one.step,
        "key": one.key,
        "reference": one.reference.name,
        "reference_digest": one.reference.digest,
        "checkpoint_digest": one.checkpoint_digest,
        "measured_at": format_moment(one.measured_at),
        "ratio": asdict(one.ratio),
        "retention": None
        if one.retention is None
        else {
            "text": one.retention.text,
            "text_digest": one.retention.text_digest,
            "policy_nats_per_token": asdict(one.retention.policy_nats),
            "reference_nats_per_token": asdict(one.retention.reference_nats),
            "rise_nats_per_token": asdict(one.retention.rise),
            "n_tokens": one.retention.n_tokens,
            "n_passages": one.retention.n_passages,
        },
        "layers": [asdict(layer) for layer in one.layers],
        "slices": [
            {
                "slice": contrast.slice,
                "nats_per_token": asdict(contrast.value),
                "rest_nats_per_token": asdict(contrast.rest),
                "ratio": asdict(contrast.ratio),
                "p_value": contrast.p_value,
                "n_prompts": contrast.n_prompts,
            }
            for contrast in one.contrasts
        ],
        "shards": list(one.shards),
        "settings": dict(one.settings),
    }


def describe_completions(store: Store, profiles: Sequence[DriftProfile]) -> list[dict[str, Any]]:
    """Where the drift of each checkpoint is: by prompt, by position, by token; of its newest profile.

    Raises:
        StoreError: a shard that cannot be read.
    """
    latest = {(one.step, one.checkpoint): one for one in sorted(profiles, key=lambda one: one.measured_at)}
    return [described for profile in latest.values() for described in _describe_location(store, profile)]


def _describe_location(store: Store, profile: DriftProfile) -> Iterator[dict[str, Any]]:
    for sampler in SAMPLERS:
        view = read_location(store, profile.shards, sampler=sampler)
        if view is not None:
            yield {"checkpoint": profile.checkpoint, "step": profile.step, "sampler": sampler, **describe_location(view)}


def describe_location(view: LocationView) -> dict[str, Any]:
    """Where the drift of one checkpoint is, as JSON; of tokens the `MOST_TOKENS` that carry most."""
    positions = view.positions
    return {
        "n_sequences": view.n_sequences,
        "n_tokens": view.n_tokens,
        "nats_per_token": view.mean_nats,
        "by_prompt": [
            {
                "prompt_index": one.index,
                "prompt": one.prompt,
                "slice": one.slice,
                "nats_per_sequence": one.mean,
                "lowest": one.lowest,
                "highest": one.highest,
                "n_sequences": one.n_sequences,
            }
            for one in view.prompts
        ],
        "by_position": [
            {"position": at, "nats_per_token": mean, "low": low, "high": high, "n_sequences": n}
            for at, (mean, low, high, n) in enumerate(
                zip(positions.mean, positions.low, positions.high, positions.n_sequences, strict=True), start=1
            )
        ],
        "most_drifted_tokens": [describe_token(one) for one in view.written[:MOST_TOKENS]],
        "most_contributing_tokens": [describe_token(one) for one in view.preferred[:MOST_TOKENS]],
    }


def describe_token(one: TokenDrift) -> dict[str, Any]:
    """A token as JSON."""
    return {"token": one.text, "n": one.n, "nats": one.total, "nats_per_place": one.mean, "share": one.share}
