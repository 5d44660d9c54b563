"""What a measurement says of a checkpoint beside its KL: a check of the sampling, retention, weights by layer, slices."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from klaudit.records import DriftProfile, Interval, LayerDrift, Retention, SliceContrast
from klaudit.report.views.drift import DriftPoint
from klaudit.report.views.figure import Figure, format_count, format_estimate, format_significant

RATIO_TOLERANCE = 0.02
"""A mean ratio this near 1 is right whatever its interval says: float32 scores differ by less."""


@dataclass(frozen=True, slots=True)
class SliceLimits:
    """From where on a slice is told of."""

    significance: float
    """Corrected p value below which noise does not explain a difference."""
    ratio: float
    """KL of the slice over that of the rest, no unit."""
    least_nats: float
    """Lower end of the slice's interval, nats per token."""


@dataclass(frozen=True, slots=True)
class RatioView:
    """Mean of reference/policy probability over the policy's own tokens: 1 where what was sampled is what was scored."""

    value: float
    low: float
    high: float
    is_right: bool
    word: str
    """`right`, `wrong`, `not finite`, or `cannot tell`: a mean below 1 may come of drift alone."""
    text: str
    """Value and interval; no unit."""
    sentence: str
    """What it means."""


@dataclass(frozen=True, slots=True)
class RetentionView:
    """Perplexity of checkpoint and reference on the same text."""

    text: str
    """Name of the text."""
    policy: Interval
    """Perplexity, no unit."""
    reference: Interval
    rise_percent: Interval
    """How much higher the checkpoint's perplexity is, percent, paired by passage."""
    n_tokens: int
    n_passages: int
    statement: str


@dataclass(frozen=True, slots=True)
class SliceView:
    """One slice of the prompts against all others."""

    slice: str
    value: Interval
    """Nats per token."""
    rest: Interval
    """Nats per token."""
    ratio: Interval
    """No unit."""
    p_value: float
    """Corrected for the number of slices."""
    n_prompts: int
    is_told: bool
    """Whether it differs beyond noise, and enough to matter."""
    ratio_text: str
    """`12.3 [8.1, 18.0] times the rest`."""
    p_text: str


@dataclass(frozen=True, slots=True)
class CheckpointProfile:
    """One checkpoint."""

    key: str
    """Of the measurement."""
    checkpoint: str
    step: int | None
    label: str
    """`after update 12`, or its name where it is of no run."""
    name: str
    """Last part of its path."""
    ratio: RatioView
    retention: RetentionView | None
    """None: not measured."""
    layers: tuple[LayerDrift, ...]
    """By index; empty where weights were not compared."""
    slices: tuple[SliceView, ...]
    """Furthest first; empty where the prompts have fewer than two."""
    shards: tuple[str, ...]
    """Keys of the completions that were kept; empty: none."""

    @property
    def furthest_layer(self) -> LayerDrift | None:
        """The layer that moved most; one that is not finite before all others."""
        return max(self.layers, key=rank_layer, default=None)


def rank_layer(layer: LayerDrift) -> float:
    """How far a layer moved, no unit; NaN ranks as furthest, for it is what a person must see."""
    return math.inf if math.isnan(layer.relative_l2) else layer.relative_l2


def tell_layer(layer: LayerDrift) -> str:
    """`layer 3 0.12%`, or `layer 3 not finite`."""
    return (
        f"{layer.layer} {format_significant(100 * layer.relative_l2)}%" if math.isfinite(layer.relative_l2) else f"{layer.layer} not finite"
    )


def view_profiles(profiles: Iterable[DriftProfile], *, limits: SliceLimits) -> tuple[CheckpointProfile, ...]:
    """The newest profile of each checkpoint, by step, those of no run last."""
    newest: dict[tuple[int | None, str], DriftProfile] = {}
    for one in sorted(profiles, key=lambda one: one.measured_at):
        newest[one.step, one.checkpoint] = one
    ordered = sorted(newest.values(), key=lambda one: (one.step is None, one.step or 0, one.checkpoint))
    return tuple(view_profile(one, limits=limits) for one in ordered)


def view_profile(profile: DriftProfile, *, limits: SliceLimits) -> CheckpointProfile:
    """One checkpoint's profile."""
    slices = sorted((view_slice(one, limits=limits) for one in profile.contrasts), key=lambda one: -one.value.value)
    return CheckpointProfile(
        key=profile.key,
        checkpoint=profile.checkpoint,
        step=profile.step,
        label=name_checkpoint(profile.step, profile.checkpoint),
        name=PurePath(profile.checkpoint).name or profile.checkpoint,
        ratio=view_ratio(profile.ratio),
        retention=None if profile.retention is None else view_retention(profile.retention),
        layers=tuple(sorted(profile.layers, key=lambda one: one.index)),
        slices=tuple(slices),
        shards=profile.shards,
    )


def name_checkpoint(step: int | None, checkpoint: str) -> str:
    """`after update 12`, or the name of a checkpoint of no run."""
    return PurePath(checkpoint).name or checkpoint if step is None else f"after update {step:,}"


def view_ratio(ratio: Interval) -> RatioView:
    """The check, in a plain sentence."""
    is_right = math.isfinite(ratio.value) and (ratio.low <= 1.0 <= ratio.high or abs(ratio.value - 1) <= RATIO_TOLERANCE)
    word = "wrong"
    if is_right:
        word = "right"
        sentence = "Right: over the sampled tokens reference/policy averages 1, as it must where the text scored is the text sampled."
    elif not math.isfinite(ratio.value):
        word = "not finite"
        sentence = (
            "Not finite: the weights or scores hold NaN or infinity, and no KL of this checkpoint can be relied on. Look at which layers are not "
            "finite, and take an earlier checkpoint; if all weights are finite, measure in a wider precision."
        )
    elif ratio.value < 1:
        word = "cannot tell"
        sentence = (
            "Below 1: a policy that has moved far hardly ever samples what only the reference likes, and then this mean says nothing, and k1 and k3 "
            "little: look at full. Where the drift is small it means that scoring had another temperature or precision than sampling."
        )
    else:
        sentence = (
            "Not 1: the sampled tokens are not those of the distribution that was scored. Look at temperature, tokenizer and precision; "
            "KL numbers of this checkpoint cannot be relied on."
        )
    return RatioView(ratio.value, ratio.low, ratio.high, is_right, word, tell_interval(ratio), sentence)


def view_retention(retention: Retention) -> RetentionView:
    """Both perplexities, and the rise in percent."""
    policy, reference = to_perplexity(retention.policy_nats), to_perplexity(retention.reference_nats)
    low, value, high = (100 * math.expm1(min(one, 700.0)) for one in (retention.rise.low, retention.rise.value, retention.rise.high))
    rise = Interval(value, low, high)
    counts = f"{format_count(retention.n_tokens, 'token')} in {format_count(retention.n_passages, 'passage')} ({retention.text})"
    statement = f"perplexity {tell_interval(policy)}, reference {tell_interval(reference)}: a change of {tell_interval(rise)}%, paired by passage; {counts}"
    return RetentionView(retention.text, policy, reference, rise, retention.n_tokens, retention.n_passages, statement)


def to_perplexity(nats: Interval) -> Interval:
    """Perplexity is exp of nats per token."""
    low, value, high = (math.exp(min(one, 700.0)) for one in (nats.low, nats.value, nats.high))
    return Interval(value, low, high)


def view_slice(contrast: SliceContrast, *, limits: SliceLimits) -> SliceView:
    """One slice, and whether it is told of."""
    is_told = contrast.p_value < limits.significance and contrast.ratio.value > limits.ratio and contrast.value.low > limits.least_nats
    return SliceView(
        slice=contrast.slice,
        value=contrast.value,
        rest=contrast.rest,
        ratio=contrast.ratio,
        p_value=contrast.p_value,
        n_prompts=contrast.n_prompts,
        is_told=is_told,
        ratio_text=f"{tell_interval(contrast.ratio)} times the rest",
        p_text=tell_p(contrast.p_value),
    )


def tell_p(p_value: float) -> str:
    """`p = 0.0130`, or `p < 0.0001`."""
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.4f}"


def tell_interval(one: Interval) -> str:
    """`3.18 [2.73, 3.63]`."""
    return format_estimate(one.value, one.low, one.high)


def list_drift_figures(points: Sequence[DriftPoint], profile: CheckpointProfile | None) -> tuple[Figure, ...]:
    """The headline of one checkpoint: drift, slice furthest from the rest, retention, check of the sampling.

    Args:
        points: of that checkpoint over all prompts, the best estimator first.
        profile: None where it has none.
    """
    drift = [figure_drift(points[0])] if points else []
    return (*drift, figure_slice(profile), figure_retention(profile), figure_ratio(profile))


def figure_drift(point: DriftPoint) -> Figure:
    """How far the checkpoint is."""
    counts = f"{point.n_sequences:,} completions of {format_significant(point.mean_length)} tokens on average"
    note = f"{point.label}, 95% interval over prompts; {counts}"
    value, low, high = format_estimate(point.value, point.low, point.high).replace("[", "").replace("]", "").replace(", ", " ").split()
    unit = f"{point.unit}, {low} to {high}"
    return Figure("drift", f"Drift ({point.estimator})", point.value, unit, f"{value} {unit}", note)


def figure_slice(profile: CheckpointProfile | None) -> Figure:
    """The slice that is furthest from all others."""
    label, slices = "Furthest slice", () if profile is None else profile.slices
    if not slices:
        return Figure("slice", label, None, "", "not measured", "Needs prompts that name their slice.")
    worst = max(slices, key=lambda one: one.ratio.value)
    unit = "times the rest, beyond noise" if worst.is_told else "times the rest"
    note = f"{worst.slice}: KL per token {worst.ratio_text}, {worst.p_text} corrected for the number of slices"
    return Figure(
        "slice", f"{label}: {worst.slice}", worst.ratio.value, unit, f"{tell_interval(worst.ratio).partition(' ')[0]} {unit}", note
    )


def figure_retention(profile: CheckpointProfile | None) -> Figure:
    """How much worse the checkpoint predicts the reference's kind of text."""
    retention = None if profile is None else profile.retention
    if retention is None:
        return Figure("retention", "Retention", None, "", "not measured", "Perplexity on text of the reference's kind.")
    rise = retention.rise_percent
    sign, value = "+" if rise.value > 0 else "", format_estimate(rise.value, rise.low, rise.high).partition(" ")[0]
    unit = f"{format_significant(retention.policy.value)}, reference {format_significant(retention.reference.value)}"
    return Figure("retention", "Perplexity, against the reference", rise.value, unit, f"{sign}{value}% {unit}", retention.statement)


def figure_ratio(profile: CheckpointProfile | None) -> Figure:
    """Whether what was sampled is what was scored."""
    label = "Ratio check"
    if profile is None:
        return Figure("ratio", label, None, "", "not measured", "Mean of reference/policy probability over the sampled tokens.")
    ratio = profile.ratio
    unit = f"{ratio.word}: below 1" if ratio.word == "cannot tell" else f"{ratio.word}: must be 1"
    return Figure(
        "ratio", label, ratio.value, unit, f"{format_estimate(ratio.value, ratio.low, ratio.high).partition(' ')[0]} {unit}", ratio.sentence
    )
