"""Reward against d = sqrt(KL per sequence): points, fitted curves, peak, and advice on beta, in words."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from klaudit.frontier import FORMS, BetaAdvice, Fit, FrontierPoint, FrontierStudy, Interval, Peak
from klaudit.frontier.fit import ScoreName
from klaudit.frontier.study import TOLD_APART, ScoreStudy
from klaudit.report.views.figure import Figure, format_count, format_interval, format_number

N_DRAWN = 1_500
"""Points of one run that are drawn at most."""

N_CURVE = 80
"""Places at which a fitted curve is drawn."""

D_UNIT, KL_UNIT, SLOPE_UNIT, BETA_UNIT = "sqrt(nats)", "nats/sequence", "reward/sqrt(nat)", "reward/nat"
NAMES: Mapping[ScoreName, str] = {"score": "score (trained on)", "heldout_score": "held-out score"}
FORM_NAMES: Mapping[str, str] = {"rl": "RL form", "best_of_n": "best-of-n form"}

CAVEATS = (
    "The curves are two that fitted other people's runs (Gao, Schulman, Hilton 2022, arXiv 2210.10760); nothing says that this reward follows either.",
    "A peak of this held-out score is not the peak of what people want: it is as good as the held-out score is.",
    "Several runs are fitted as one curve; how runs of other seeds differ is not in its interval.",
    "d is taken without error, and a negative KL estimate as 0; both blur a curve near d = 0.",
)


@dataclass(frozen=True, slots=True)
class FrontierSeries:
    """The points of one run."""

    run: str
    label: str
    """Name, and beta at the end."""
    steps: tuple[int, ...]
    d: tuple[float, ...]
    score: tuple[float | None, ...]
    heldout: tuple[float | None, ...]
    n_points: int
    """Before any were left out of the drawing."""


@dataclass(frozen=True, slots=True)
class FittedCurve:
    """One fitted form, drawn between the smallest and the largest d seen."""

    of: ScoreName
    form: str
    label: str
    formula: str
    """With numbers and units."""
    is_better: bool
    d: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    """Lower end of the 95% interval of the curve, in reward."""
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PeakMark:
    """d* of the held-out score, in sqrt(nats), with its 95% interval."""

    d: float
    low: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class SweptRow:
    """One run of a sweep."""

    run: str
    beta: float
    """In reward/nat."""
    final_d: float
    """In sqrt(nats)."""


@dataclass(frozen=True, slots=True)
class FrontierView:
    """What the page `Reward against drift` and the command show."""

    names: tuple[str, ...]
    series: tuple[FrontierSeries, ...]
    curves: tuple[FittedCurve, ...]
    peak: PeakMark | None
    """Where it was seen."""
    headline: tuple[Figure, ...]
    """Keys: peak, kl, marginal, beta."""
    sentences: tuple[str, ...]
    """What can be said, each with its numbers and units."""
    advice: tuple[str, ...]
    """On beta."""
    command: str | None
    """That sets the proposed budget."""
    swept: tuple[SweptRow, ...]
    caveats: tuple[str, ...] = CAVEATS


def view_frontier(study: FrontierStudy) -> FrontierView:
    """Put a study into words and curves."""
    series = tuple(_draw_series(run, tuple(points)) for run, points in groupby(study.points, key=lambda one: one.run))
    kl, target = study.proposed_kl, study.target
    return FrontierView(
        names=tuple(one.run for one in series),
        series=series,
        curves=tuple(_draw_curve(fit, of, is_better=fit is one.best) for of, one in _list_scores(study) for fit in one.fits),
        peak=None if target is None else _mark_peak(target),
        headline=_list_figures(study),
        sentences=tuple(_list_sentences(study)),
        advice=tuple(describe_advice(one) for one in study.advice),
        command=None if kl is None else propose_command(kl, tuple(one.run for one in series)),
        swept=tuple(SweptRow(one.name, one.beta, one.final_d) for one in study.swept),
    )


def describe_peak(peak: Peak, fit: Fit) -> str:
    """What the data say of the peak of the held-out score, never more."""
    seen = f"between {format_number(fit.least_d)} and {format_number(fit.largest_d)} {D_UNIT}"
    if peak.d is None:
        return f"No peak within the data: the held-out score's curve does not bend down beyond noise, with d {seen}."
    at = f"{format_interval(peak.d.value, peak.d.low, peak.d.high)} {D_UNIT}"
    if peak.kind == "beyond":
        return f"No peak within the data: the curve's own lies at d* = {at}, past the largest d seen, {format_number(fit.largest_d)} {D_UNIT}, and is an extrapolation."
    if peak.kind == "before":
        return f"The held-out score falls all along, with d {seen}: its peak lies before the first point."
    if peak.kind == "plateau":
        return f"No peak beyond noise: the curve is highest at d* = {at}, but the held-out scores past it do not clearly fall; they may as well have levelled off."
    assert peak.fall is not None
    assert peak.kl is not None
    kl = f"{format_interval(peak.kl.value, peak.kl.low, peak.kl.high)} {KL_UNIT}"
    fall = f"{format_interval(-peak.fall.value, -peak.fall.high, -peak.fall.low)} {SLOPE_UNIT}"
    return f"The held-out score peaks at d* = {at}, that is KL* = {kl}; past it, it falls by {fall}."


def describe_fit(fit: Fit) -> str:
    """A fit with numbers and units."""
    curve, sign = "ln d" if fit.form == "rl" else "d", "-" if fit.bend >= 0 else "+"
    unit = SLOPE_UNIT if fit.form == "rl" else BETA_UNIT
    return (
        f"R = {format_number(fit.offset)} reward + d ({format_number(fit.alpha)} {SLOPE_UNIT} {sign} {format_number(abs(fit.bend))} {unit} x {curve}), "
        f"{format_count(fit.n, 'point')}, residuals {format_number(fit.residual_sd)} reward"
    )


def describe_forms(study: ScoreStudy) -> str:
    """Which form fits better, and by how much."""
    assert study.best is not None
    better = FORM_NAMES[study.best.form]
    if len(study.fits) < 2:
        return f"Only the {better} could be fitted."
    other = FORM_NAMES[study.fits[1].form]
    if study.advantage < TOLD_APART:
        return f"The data do not tell the {better} from the {other}: the first is better by {study.advantage:.1f} in AICc, under {TOLD_APART:g}."
    return f"The {better} fits better than the {other}, by {study.advantage:.1f} in AICc."


def describe_marginal(study: FrontierStudy) -> str | None:
    """What one more nat brings where the run stands."""
    one, at = study.marginal, study.marginal_at
    if one is None or at is None:
        return None
    return (
        f"At d = {format_number(at)} {D_UNIT}, where {'the farthest run' if study.swept else 'the run'} ended, one more nat brings "
        f"{format_interval(one.value, one.low, one.high)} held-out {BETA_UNIT}."
    )


def describe_advice(advice: BetaAdvice) -> str:
    """Advice on beta, or why there is none."""
    basis = {"trade_off": "From the trade-off", "crossing": "From the run's own beta", "sweep": "From the sweep"}[advice.basis]
    if advice.beta is None:
        return f"{basis}: none, because {advice.reason}."
    beta = advice.beta
    return f"{basis}: beta = {format_interval(beta.value, beta.low, beta.high)} {BETA_UNIT}; {advice.reason}."


def describe_estimators(points: Sequence[FrontierPoint]) -> str:
    """Which KL d is the root of; runs that differ in it are named."""
    runs: dict[str, list[str]] = {}
    for one in points:
        named = runs.setdefault(one.estimator, [])
        if one.run not in named:
            named.append(one.run)
    if len(runs) < 2:
        return f"d is the root of the KL to the reference by the {next(iter(runs))} estimator."
    listed = "; ".join(f"{estimator}: {', '.join(named)}" for estimator, named in runs.items())
    return f"d comes of different estimators ({listed}), which scatter differently and need not agree near d = 0."


def propose_command(kl: Interval, names: Sequence[str]) -> str:
    """The line that sets KL* as a budget."""
    limit = f"{kl.value:.3g}"
    run = shlex.quote(names[0]) if len(names) == 1 else "RUN"
    reason = shlex.quote(f"KL* of the held-out score, {format_interval(kl.value, kl.low, kl.high)} {KL_UNIT}")
    return f"klaudit budget set --limit {limit} --unit nats_per_sequence --scope window --window-steps 10 --run {run} --reason {reason}"


def _mark_peak(d: Interval) -> PeakMark:
    return PeakMark(d.value, d.low, d.high, f"d* = {format_interval(d.value, d.low, d.high)} {D_UNIT}")


def _list_scores(study: FrontierStudy) -> list[tuple[ScoreName, ScoreStudy]]:
    return [("score", study.score), ("heldout_score", study.heldout)]


def _list_sentences(study: FrontierStudy) -> list[str]:
    heldout = study.heldout
    estimators = [describe_estimators(study.points)] if study.points else []
    if heldout.best is None or heldout.peak is None:
        why = f"The held-out score could not be fitted: {heldout.reason}."
        without = (
            "Without it nothing says where the reward that people want has its peak; that of the trained score is no peak of anything."
        )
        return [why, without, *estimators]
    sentences = [describe_peak(heldout.peak, heldout.best), describe_forms(heldout)]
    marginal = describe_marginal(study)
    return [*sentences, *([] if marginal is None else [marginal]), *estimators]


def _list_figures(study: FrontierStudy) -> tuple[Figure, ...]:
    d, kl = study.target, study.proposed_kl
    best = next((one for one in study.advice if one.beta is not None), None)
    note = "95% interval" if d is not None else "no peak within the data"
    beta_note = (
        {"trade_off": "trade-off at d*", "crossing": "in force at d*", "sweep": "between the runs"}[best.basis] if best else "needs a peak"
    )
    return (
        _figure("peak", "Peak of the held-out score, d*", d, D_UNIT, note),
        _figure("kl", "Budget that the data propose, KL*", kl, KL_UNIT, note),
        _figure("marginal", "Held-out score per nat at the end", study.marginal, BETA_UNIT, "95% interval"),
        _figure("beta", "Beta that would end at d*", None if best is None else best.beta, BETA_UNIT, beta_note),
    )


def _figure(key: str, label: str, interval: Interval | None, unit: str, note: str) -> Figure:
    if interval is None:
        return Figure(key, label, None, unit, "not known", note)
    return Figure(key, label, interval.value, unit, f"{format_interval(interval.value, interval.low, interval.high)} {unit}", note)


def _draw_series(run: str, points: Sequence[FrontierPoint]) -> FrontierSeries:
    drawn = points[:: max(1, -(-len(points) // N_DRAWN))]
    betas = [one.beta for one in points if one.beta is not None]
    return FrontierSeries(
        run=run,
        label=f"{run}, beta {format_number(betas[-1])} {BETA_UNIT}" if betas else run,
        steps=tuple(one.step for one in drawn),
        d=tuple(one.d for one in drawn),
        score=tuple(one.score for one in drawn),
        heldout=tuple(one.heldout_score for one in drawn),
        n_points=len(points),
    )


def _draw_curve(fit: Fit, of: ScoreName, *, is_better: bool) -> FittedCurve:
    span = fit.largest_d - fit.least_d
    places = tuple(fit.least_d + span * at / (N_CURVE - 1) for at in range(N_CURVE))
    drawn = [fit.predict(d) for d in places]
    return FittedCurve(
        of=of,
        form=fit.form,
        label=f"{NAMES[of]}, {FORM_NAMES[fit.form]} {FORMS[fit.form]}",
        formula=describe_fit(fit),
        is_better=is_better,
        d=places,
        value=tuple(one.value for one in drawn),
        low=tuple(one.low for one in drawn),
        high=tuple(one.high for one in drawn),
    )
