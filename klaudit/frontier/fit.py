"""Gao's two curves of reward against d, by least squares that allows for points that depend on their neighbours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np

from klaudit.frontier.interval import CONFIDENCE, Interval
from klaudit.frontier.moments import Matrix, Moments
from klaudit.frontier.point import FrontierPoint
from klaudit.frontier.student import find_t_quantile

Form = Literal["rl", "best_of_n"]
ScoreName = Literal["score", "heldout_score"]

FORMS: Mapping[Form, str] = {"rl": "R0 + d (alpha - beta ln d)", "best_of_n": "R0 + d (alpha - beta d)"}
"""Gao, Schulman, Hilton 2022, arXiv 2210.10760, section 3: of policies trained by RL, and of the best of n samples."""

BEND_COLUMNS: Mapping[Form, int] = {"rl": 2, "best_of_n": 3}
LEAST_POINTS = 5
SMALLEST_SPREAD = 1e-3
"""Largest d less smallest d, over the largest, below which no curve can be told from a constant."""
SMALLEST_D = 1e-5
"""In sqrt(nats): a d that never exceeds this is rounding."""
VANISHING = 1e-200
"""Sum of squares of a column below which it is all zeros."""
SINGULAR = 1e-11
"""Smallest eigenvalue of the scaled normal equations below which rounding decides the coefficients."""


@dataclass(frozen=True, slots=True)
class NoFit:
    """Why there is no fit."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fit:
    """One form, fitted. Scores are in reward, d in sqrt(nats).

    `alpha` and `bend` are Gao's alpha and beta; the latter is called bend here because beta is the coefficient of the KL penalty.
    """

    form: Form
    offset: float
    """R0, the score at d = 0."""
    alpha: float
    """Reward per sqrt(nat)."""
    bend: float
    """Reward per sqrt(nat), or per nat for best_of_n; the curve has a peak where it is above 0."""
    covariance: tuple[tuple[float, ...], ...]
    """Of (offset, alpha, bend); zeros for an offset that was given."""
    n: int
    degrees_of_freedom: int
    """(n - parameters) (1 - memory) / (1 + memory): what dependent points are worth (Bartlett 1935)."""
    residual_sd: float
    """Of a point about the curve, in reward."""
    memory: float
    """Autocorrelation of neighbouring residuals that was allowed for."""
    least_d: float
    largest_d: float

    def predict(self, d: float, *, confidence: float = CONFIDENCE) -> Interval:
        """The curve at d, in reward, with the interval of the curve (a new score scatters more)."""
        return self._combine((1.0, d, -self._bend_of(d)), confidence)

    def measure_slope(self, d: float, *, confidence: float = CONFIDENCE) -> Interval:
        """Slope at d > 0, in reward per sqrt(nat)."""
        bend = 1 + math.log(d) if self.form == "rl" else 2 * d
        return self._combine((0.0, 1.0, -bend), confidence)

    def measure_marginal(self, d: float, *, confidence: float = CONFIDENCE) -> Interval:
        """What one more nat of KL per sequence brings at d > 0, in reward/nat: slope / (2 d), because KL = d^2."""
        slope = self.measure_slope(d, confidence=confidence)
        return Interval(slope.value / (2 * d), slope.low / (2 * d), slope.high / (2 * d))

    def _bend_of(self, d: float) -> float:
        if self.form == "best_of_n":
            return d * d
        return d * math.log(d) if d > 0 else 0.0

    def _combine(self, weights: tuple[float, float, float], confidence: float) -> Interval:
        value = weights[0] * self.offset + weights[1] * self.alpha + weights[2] * self.bend
        pairs = ((i, j) for i in range(3) for j in range(3))
        variance = sum(weights[i] * self.covariance[i][j] * weights[j] for i, j in pairs)
        margin = find_t_quantile(self.degrees_of_freedom, confidence=confidence) * math.sqrt(max(variance, 0.0))
        return Interval(value, value - margin, value + margin)


def fit_form(moments: Moments, form: Form, *, offset: float | None = None) -> Fit | NoFit:
    """Fit one form.

    R is linear in (R0, alpha, beta), so least squares is exact. Points along a run depend on their neighbours, which plain least squares takes
    for information: the lag-one autocorrelation of the residuals is estimated, corrected for its bias, and taken out of the points
    (Prais, Winsten 1954; three rounds). Chosen over a block bootstrap because a run has some 30 to 60 points, too few for blocks that are long
    enough to hold the dependence and numerous enough to be drawn from; the coverage of the intervals is held by simulation in tests/frontier.

    Args:
        moments: of the points.
        form: which curve.
        offset: R0, in reward, where it is known; else it is estimated.
    """
    trouble = _find_trouble(moments)
    if trouble is not None:
        return NoFit(trouble)
    columns = [1, BEND_COLUMNS[form]] if offset is not None else [0, 1, BEND_COLUMNS[form]]
    shift = np.eye(5)
    shift[0, 4] = 0.0 if offset is None else moments.origin - offset
    memory, solved = 0.0, None
    for _ in range(3):
        solved = _solve(shift.T @ moments.whiten(memory) @ shift, columns)
        if solved is None:
            return NoFit(f"d took too few different values between {moments.least_d:.3g} and {moments.largest_d:.3g} sqrt(nats)")
        combination = np.zeros(5)
        combination[columns], combination[4] = -solved[0], 1.0
        memory = moments.correlate_residuals(shift @ combination, n_parameters=len(columns))
    solved = _solve(shift.T @ moments.whiten(memory) @ shift, columns)
    return (
        NoFit("the scores are too large to be fitted") if solved is None else _describe(moments, form, solved, memory=memory, offset=offset)
    )


def fit_points(points: Sequence[FrontierPoint], form: Form, *, of: ScoreName = "heldout_score", offset: float | None = None) -> Fit | NoFit:
    """Fit one form to points.

    All points weigh the same, also where their standard errors are known: how far a run's points lie from any such curve is mostly how the
    policy wanders, and a batch whose scores are all alike would outweigh every other.

    Args:
        points: ordered by run and step; those without the score are left out.
        form: which curve.
        of: which score.
        offset: as `fit_form`.
    """
    return fit_form(sum_points(points, of=of), form, offset=offset)


def sum_points(points: Sequence[FrontierPoint], *, of: ScoreName) -> Moments:
    """The sums that a fit of one score needs."""
    moments = Moments()
    scored = [(one.run, one.d, score) for one in points if (score := getattr(one, of)) is not None]
    for _, members in groupby(scored, key=lambda one: one[0]):
        _, d, scores = zip(*members, strict=True)
        moments.add(d, scores, is_new_run=True)
    return moments


def _find_trouble(moments: Moments) -> str | None:
    if moments.n < LEAST_POINTS:
        return f"needs {LEAST_POINTS} points or more with a score and a KL per sequence; there are {moments.n}"
    if moments.largest_d < SMALLEST_D or moments.largest_d - moments.least_d <= SMALLEST_SPREAD * moments.largest_d:
        return f"d hardly moved: it stayed between {moments.least_d:.3g} and {moments.largest_d:.3g} sqrt(nats)"
    return None


def _solve(products: Matrix, columns: Sequence[int]) -> tuple[Matrix, Matrix, float] | None:
    """Coefficients, inverse of the normal equations, and residual sum of squares; None where they cannot be told."""
    normal, right = products[np.ix_(columns, columns)], products[columns, 4]
    diagonal = np.diag(normal)
    if not (np.isfinite(products).all() and (diagonal > VANISHING).all()):
        return None
    scale = 1 / np.sqrt(diagonal)
    scaled = normal * np.outer(scale, scale)
    if np.linalg.eigvalsh(scaled)[0] < SINGULAR:
        return None
    inverse = np.linalg.inv(scaled) * np.outer(scale, scale)
    coefficients = inverse @ right
    return coefficients, inverse, max(float(products[4, 4] - coefficients @ right), 0.0)


def _describe(moments: Moments, form: Form, solved: tuple[Matrix, Matrix, float], *, memory: float, offset: float | None) -> Fit:
    coefficients, inverse, squares = solved
    n, p = moments.n, len(coefficients)
    variance = squares / (n - p)
    full = np.zeros((3, 3))
    full[3 - p :, 3 - p :] = inverse * variance
    # The sign of the bend's column: R = R0 + alpha d - bend g(d).
    sign = np.array([1.0, 1.0, -1.0])
    covariance = full * np.outer(sign, sign)
    return Fit(
        form=form,
        offset=float(coefficients[0]) + moments.origin if offset is None else offset,
        alpha=float(coefficients[-2]),
        bend=-float(coefficients[-1]),
        covariance=tuple(tuple(float(one) for one in row) for row in covariance),
        n=n,
        degrees_of_freedom=max(1, int((n - p) * (1 - memory) / (1 + memory))),
        residual_sd=math.sqrt(variance / (1 - memory**2)),
        memory=memory,
        least_d=moments.least_d,
        largest_d=moments.largest_d,
    )
