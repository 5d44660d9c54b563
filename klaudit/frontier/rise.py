"""The slope of a score against d over some of the points of a fit."""

import math
from collections.abc import Sequence

import numpy as np

from klaudit.frontier.fit import Fit, ScoreName, sum_points
from klaudit.frontier.interval import CONFIDENCE, Interval
from klaudit.frontier.point import FrontierPoint
from klaudit.frontier.student import find_t_quantile

LEAST_POINTS = 4


def measure_rise(points: Sequence[FrontierPoint], *, fit: Fit, of: ScoreName, confidence: float = CONFIDENCE) -> Interval | None:
    """Slope of the straight line through points, in reward per sqrt(nat), with the noise that the fit of all points found.

    The line's own residuals would take the bend of the curve for noise. None below 4 points, or where d is the same for all.

    Args:
        points: ordered by run and step; those without the score are left out.
        fit: of them and others.
        of: which score.
        confidence: of the interval, two-sided.
    """
    moments = sum_points(points, of=of)
    if moments.n < LEAST_POINTS or not moments.largest_d > moments.least_d:
        return None
    products = moments.whiten(fit.memory)
    normal, right = products[:2, :2], products[:2, 4]
    determinant = float(normal[0, 0] * normal[1, 1] - normal[0, 1] ** 2)
    if not determinant > 1e-11 * float(normal[0, 0] * normal[1, 1]):
        return None
    slope = float(np.linalg.solve(normal, right)[1])
    innovation = fit.residual_sd**2 * (1 - fit.memory**2)
    error = math.sqrt(innovation * float(normal[0, 0]) / determinant)
    margin = find_t_quantile(fit.degrees_of_freedom, confidence=confidence) * error
    return Interval(slope, slope - margin, slope + margin)
