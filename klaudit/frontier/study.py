"""All that can be said of reward against d in one run, or in the runs of a sweep."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from klaudit.frontier.beta_advice import BetaAdvice, SweptRun, advise_from_run, advise_from_sweep, summarise_run
from klaudit.frontier.fit import FORMS, Fit, Form, NoFit, ScoreName, fit_points
from klaudit.frontier.interval import Interval
from klaudit.frontier.peak import Peak, find_peak
from klaudit.frontier.point import FrontierPoint

TOLD_APART = 2.0
"""Difference in AICc below which two forms are not told apart (Burnham, Anderson 2002, section 2.6)."""

N_LAST = 5
"""Points at the end of a run whose median d is where it stands."""


@dataclass(frozen=True, slots=True)
class ScoreStudy:
    """Both fits of one score."""

    fits: tuple[Fit, ...]
    """The better one first; none where `reason` says why."""
    peaks: Mapping[Form, Peak]
    advantage: float
    """AICc of the worse form less that of the better one; 0 without two fits."""
    reason: str
    """Why there is no fit; empty where there is one."""

    @property
    def best(self) -> Fit | None:
        """The better fit."""
        return self.fits[0] if self.fits else None

    @property
    def peak(self) -> Peak | None:
        """That of the better form; where the forms are not told apart and both have one, its interval covers both."""
        if not self.fits:
            return None
        peak = self.peaks[self.fits[0].form]
        if self.advantage >= TOLD_APART or len(self.fits) < 2 or peak.d is None:
            return peak
        other = self.peaks[self.fits[1].form]
        if other.kind != peak.kind or other.d is None:
            return peak
        return Peak(peak.kind, Interval(peak.d.value, min(peak.d.low, other.d.low), max(peak.d.high, other.d.high)), peak.fall)

    @property
    def seen_peak(self) -> Interval | None:
        """d* where it lies among the points and the scores past it fall, in sqrt(nats)."""
        peak = self.peak
        return peak.d if peak is not None and peak.kind == "inside" else None


@dataclass(frozen=True, slots=True)
class FrontierStudy:
    """What `klaudit frontier` and the page show."""

    points: tuple[FrontierPoint, ...]
    score: ScoreStudy
    """Of the score that is trained on."""
    heldout: ScoreStudy
    marginal: Interval | None
    """What one more nat brings in held-out score where the run stands (of a sweep: at the largest d), in reward/nat."""
    marginal_at: float | None
    """That d, in sqrt(nats)."""
    advice: tuple[BetaAdvice, ...]
    swept: tuple[SweptRun, ...]
    """Where each run ended; empty for one run."""

    @property
    def target(self) -> Interval | None:
        """d* of the held-out score, in sqrt(nats); None unless the peak was seen."""
        return self.heldout.seen_peak

    @property
    def proposed_kl(self) -> Interval | None:
        """KL* = d*^2 as a budget to propose, in nats per sequence; None unless the peak was seen."""
        d = self.target
        return None if d is None else Interval(d.value**2, d.low**2, d.high**2)


def study_frontier(points: Sequence[FrontierPoint], *, heldout_offset: float | None = None) -> FrontierStudy:
    """Fit, find the peak and advise.

    Args:
        points: of one run or several, those of a run together and by step.
        heldout_offset: R0, the held-out score of the reference, where it is known; else it is estimated.
    """
    runs = [tuple(members) for _, members in groupby(points, key=lambda one: one.run)]
    score, heldout = _study_score(points, of="score"), _study_score(points, of="heldout_score", offset=heldout_offset)
    swept = tuple(one for one in map(summarise_run, runs) if one is not None) if len(runs) > 1 else ()
    end = _find_end(runs)
    marginal = None if heldout.best is None or not end else heldout.best.measure_marginal(end)
    target = heldout.seen_peak
    return FrontierStudy(
        points=tuple(points),
        score=score,
        heldout=heldout,
        marginal=marginal,
        marginal_at=None if marginal is None else end,
        advice=() if target is None else _advise(runs, swept, proxy=score.best, target=target),
        swept=swept,
    )


def _advise(
    runs: Sequence[Sequence[FrontierPoint]], swept: Sequence[SweptRun], *, proxy: Fit | None, target: Interval
) -> tuple[BetaAdvice, ...]:
    if len(runs) == 1:
        return advise_from_run(runs[0], proxy=proxy, target=target)
    pooled = [one for points in runs for one in points]
    return (advise_from_sweep(swept, target=target), advise_from_run(pooled, proxy=proxy, target=target)[0])


def _study_score(points: Sequence[FrontierPoint], *, of: ScoreName, offset: float | None = None) -> ScoreStudy:
    tried = [fit_points(points, form, of=of, offset=offset) for form in FORMS]
    fits = sorted((one for one in tried if isinstance(one, Fit)), key=_measure_misfit)
    if not fits:
        reasons = [one.reason for one in tried if isinstance(one, NoFit)]
        return ScoreStudy((), {}, 0.0, reasons[0])
    advantage = _measure_misfit(fits[1]) - _measure_misfit(fits[0]) if len(fits) > 1 else 0.0
    return ScoreStudy(tuple(fits), {one.form: find_peak(one, points, of=of) for one in fits}, advantage, "")


def _measure_misfit(fit: Fit) -> float:
    """AICc but for its penalty, which is the same for both forms: they have as many parameters."""
    return fit.n * math.log(max(fit.residual_sd**2 * (1 - fit.memory**2), 1e-300))


def _find_end(runs: Sequence[Sequence[FrontierPoint]]) -> float:
    ends = [sorted(one.d for one in points[-N_LAST:])[len(points[-N_LAST:]) // 2] for points in runs if points]
    return max(ends, default=0.0)
