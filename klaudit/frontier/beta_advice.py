"""Which beta would have let the policy drift as far as its held-out score pays, and no further."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from klaudit.frontier.fit import Fit
from klaudit.frontier.interval import Interval
from klaudit.frontier.point import FrontierPoint

AdviceBasis = Literal["trade_off", "crossing", "sweep"]
BETA_VARIES = 1.1
"""Largest beta over smallest above which beta was adapted."""


@dataclass(frozen=True, slots=True)
class BetaAdvice:
    """A beta, or why there is none."""

    basis: AdviceBasis
    """trade_off: what a nat more is worth to the trained score at d*; crossing: the beta in force when d passed d*; sweep: between runs of
    several betas."""
    beta: Interval | None
    """In reward/nat."""
    reason: str
    """What the number rests on, or why there is none."""


@dataclass(frozen=True, slots=True)
class SweptRun:
    """One run of a sweep: its beta, and where it ended."""

    name: str
    beta: float
    """In force at the end, in reward/nat."""
    final_d: float
    """Median of d over the last quarter of its points, in sqrt(nats)."""


def advise_from_run(points: Sequence[FrontierPoint], *, proxy: Fit | None, target: Interval) -> tuple[BetaAdvice, ...]:
    """Advice from one run.

    A policy that is trained to the end on R - beta KL stands where one more nat brings as much score as it costs: dR/dKL = beta, R being the score
    that it is trained on. So the beta that ends at d* is the slope of the trained score there, dR/dd / (2 d*).

    Args:
        points: of one run, by step.
        proxy: fit of the score that is trained on; None where there is none.
        target: d*, in sqrt(nats).
    """
    betas = [one.beta for one in points if one.beta is not None and one.beta > 0]
    is_adapted = bool(betas) and max(betas) > BETA_VARIES * min(betas)
    trade_off = _trade_off(proxy, target)
    return (trade_off, _read_crossing(points, target)) if is_adapted else (trade_off,)


def _trade_off(proxy: Fit | None, target: Interval) -> BetaAdvice:
    if proxy is None:
        return BetaAdvice("trade_off", None, "the trained score could not be fitted")
    low, high = max(target.low, proxy.least_d), min(target.high, proxy.largest_d)
    if not 0 < target.value <= proxy.largest_d:
        return BetaAdvice("trade_off", None, f"d* = {target.value:.3g} sqrt(nats) lies where the trained score was not seen")
    marginals = [proxy.measure_marginal(d) for d in (target.value, low, high) if d > 0]
    beta = Interval(marginals[0].value, min(one.low for one in marginals), max(one.high for one in marginals))
    if beta.value <= 0:
        return BetaAdvice("trade_off", None, "the trained score does not rise at d*: no positive beta holds a policy there")
    reason = (
        f"one more nat brings {beta.value:.2g} reward of the trained score at d* = {target.value:.3g} sqrt(nats); "
        "holds for a policy that is trained until it stands still"
    )
    return BetaAdvice("trade_off", Interval(beta.value, max(beta.low, 0.0), beta.high), reason)


def _read_crossing(points: Sequence[FrontierPoint], target: Interval) -> BetaAdvice:
    first = next((one for one in points if one.d >= target.value and one.beta is not None), None)
    if first is None or first.beta is None:
        return BetaAdvice("crossing", None, f"d never reached d* = {target.value:.3g} sqrt(nats)")
    near = [one.beta for one in points if target.low <= one.d <= target.high and one.beta is not None] or [first.beta]
    reason = f"beta was adapted, and stood at {first.beta:.3g} reward/nat when d first passed d* at step {first.step}; it need not be the beta that rests there"
    return BetaAdvice("crossing", Interval(first.beta, min(*near, first.beta), max(*near, first.beta)), reason)


def summarise_run(points: Sequence[FrontierPoint]) -> SweptRun | None:
    """Where one run of a sweep ended; None without a beta above 0."""
    last = points[-max(1, len(points) // 4) :]
    betas = [one.beta for one in last if one.beta is not None and one.beta > 0]
    return SweptRun(last[0].run, betas[-1], _find_median([one.d for one in last])) if last and betas else None


def advise_from_sweep(runs: Sequence[SweptRun], *, target: Interval) -> BetaAdvice:
    """Advice across runs that differ in beta: log beta, interpolated in log d between where the runs ended, at d*.

    Where a smaller beta ended nearer than a larger one, the two are averaged (pool adjacent violators). The interval is the widest of leaving
    each run out in turn and of the interval of d*: a range, not a confidence level. Nothing is said outside the d at which runs ended.

    Args:
        runs: one or more for each beta.
        target: d*, in sqrt(nats).
    """
    usable = [one for one in runs if one.beta > 0 and one.final_d > 0]
    n_betas = len({one.beta for one in usable})
    if n_betas < 3:
        return BetaAdvice("sweep", None, f"needs runs of 3 betas or more; there are {n_betas}")
    value = _interpolate(usable, target.value)
    if value is None:
        nearest, farthest = min(one.final_d for one in usable), max(one.final_d for one in usable)
        side = "smaller" if target.value > farthest else "larger"
        return BetaAdvice(
            "sweep",
            None,
            f"every run ended at a d between {nearest:.3g} and {farthest:.3g} sqrt(nats), and d* is {target.value:.3g}: try a {side} beta",
        )
    others = [_interpolate([one for one in usable if one is not left], target.value) for left in usable]
    ends = [_interpolate(usable, _clip(end, usable)) for end in (target.low, target.high)]
    found = [one for one in (value, *others, *ends) if one is not None]
    n_lost = sum(one is None for one in others)
    without = f"; without {n_lost} of them d* is not between the others" if n_lost else ""
    reason = f"interpolated between where {len(usable)} runs of {n_betas} betas ended; holds for runs as long as these{without}"
    return BetaAdvice("sweep", Interval(value, min(found), max(found)), reason)


def _clip(d: float, runs: Sequence[SweptRun]) -> float:
    return min(max(d, min(one.final_d for one in runs)), max(one.final_d for one in runs))


def _interpolate(runs: Sequence[SweptRun], d: float) -> float | None:
    """The beta that would end at d; None outside the d at which runs ended."""
    curve = _make_monotone(runs)
    for (near, large), (far, small) in pairwise(curve):
        if near <= math.log(d) <= far:
            share = (math.log(d) - near) / (far - near)
            return math.exp((1 - share) * large + share * small)
    return None


def _make_monotone(runs: Sequence[SweptRun]) -> list[tuple[float, float]]:
    """(log d, log beta), d growing as beta falls; by pooling neighbours that do not."""
    blocks: list[list[tuple[float, float]]] = []
    for run in sorted(runs, key=lambda one: -one.beta):
        blocks.append([(math.log(run.final_d), math.log(run.beta))])
        while len(blocks) > 1 and _average(blocks[-1])[0] <= _average(blocks[-2])[0]:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [_average(block) for block in blocks]


def _average(block: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(x for x, _ in block) / len(block), sum(y for _, y in block) / len(block)


def _find_median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
