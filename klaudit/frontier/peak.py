"""Where the fitted curve is highest, and what the data have to say about it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from klaudit.frontier.fit import Fit, ScoreName
from klaudit.frontier.interval import CONFIDENCE, Interval
from klaudit.frontier.point import FrontierPoint
from klaudit.frontier.rise import measure_rise
from klaudit.frontier.student import find_t_quantile

PeakKind = Literal["inside", "plateau", "beyond", "before", "none"]


@dataclass(frozen=True, slots=True)
class Peak:
    """What a fit says of its highest point."""

    kind: PeakKind
    """inside: among the points, and the scores beyond it fall; plateau: the curve peaks among the points, and the scores beyond it do not fall
    beyond noise; beyond: past the largest d seen, so an extrapolation; before: short of the smallest d seen, the score falls all along;
    none: the bend cannot be told from a straight line, or bends upward."""
    d: Interval | None
    """d*, in sqrt(nats); None where there is none."""
    fall: Interval | None
    """Slope of the scores beyond d*, by a straight line, in reward per sqrt(nat); None where there are too few points."""

    @property
    def kl(self) -> Interval | None:
        """KL* = d*^2, in nats per sequence."""
        return None if self.d is None else Interval(self.d.value**2, self.d.low**2, self.d.high**2)


def find_peak(fit: Fit, points: Sequence[FrontierPoint] = (), *, of: ScoreName = "heldout_score", confidence: float = CONFIDENCE) -> Peak:
    """The peak of a fit, and whether the scores beyond it really fall.

    The curve's slope is zero at d* = exp(alpha / bend - 1) for `rl`, alpha / (2 bend) for `best_of_n`; both grow with alpha / bend, whose
    interval is Fieller's (1954), exact for a ratio of two coefficients. It is bounded only where the bend is above 0 beyond noise.

    A curve that can only bend down fits a score that levels off with a peak that is not there. A peak counts as inside the data only if a
    straight line through the points beyond it falls.

    Args:
        fit: of one score.
        points: what was fitted; without them a peak among them can only be a plateau.
        of: the score that was fitted.
        confidence: of the intervals, two-sided.
    """
    ratio = _find_ratio(fit, confidence)
    if ratio is None:
        return Peak("none", None, None)
    d = Interval(*(_place_peak(fit, one) for one in (ratio.value, ratio.low, ratio.high)))
    if d.value >= fit.largest_d:
        return Peak("beyond", d, None)
    fall = measure_rise([one for one in points if one.d >= d.value], fit=fit, of=of, confidence=confidence)
    if d.value <= fit.least_d:
        return Peak("before", d, fall)
    return Peak("inside" if fall is not None and fall.high < 0 else "plateau", d, fall)


def _find_ratio(fit: Fit, confidence: float) -> Interval | None:
    """The ratio alpha / bend; None where the bend is not above 0 beyond noise."""
    t = find_t_quantile(fit.degrees_of_freedom, confidence=confidence)
    var_alpha, covariance, var_bend = fit.covariance[1][1], fit.covariance[1][2], fit.covariance[2][2]
    square = fit.bend**2 - t * t * var_bend
    if fit.bend <= 0 or square <= 0:
        return None
    middle = fit.alpha * fit.bend - t * t * covariance
    rest = fit.alpha**2 - t * t * var_alpha
    spread = math.sqrt(max(middle**2 - square * rest, 0.0))
    return Interval(fit.alpha / fit.bend, (middle - spread) / square, (middle + spread) / square)


def _place_peak(fit: Fit, ratio: float) -> float:
    if fit.form == "best_of_n":
        return max(ratio / 2, 0.0)
    # Beyond e^300 a double cannot be squared, and no KL is that large.
    return math.exp(min(ratio - 1, 300.0))
