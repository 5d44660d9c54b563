"""What a fit needs to know of any number of points: sums of products, of neighbours too."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

COLUMNS = ("1", "d", "d ln d", "d^2", "score")
"""Of the matrices: what a row of a regression holds."""


class Moments:
    """Sums over points z = (1, d, d ln d, d^2, score) in their order: of z z', and of z_t z_(t-1)' where two points are neighbours of one run.

    From these alone come least squares of both of Gao's forms, the autocorrelation of their residuals, and the fit that allows for it.
    The scores are kept about the first one, so that sums of large scores do not lose their digits.
    """

    def __init__(self) -> None:
        self.n = 0
        self.origin = 0.0
        """The first score."""
        self.least_d = self.largest_d = 0.0
        self._plain: Matrix = np.zeros((5, 5))
        self._lagged: Matrix = np.zeros((5, 5))
        self._edges: Matrix = np.zeros((5, 5))
        self._n_neighbours = 0
        self._last: Matrix | None = None

    def add(self, d: Sequence[float] | Matrix, scores: Sequence[float] | Matrix, *, is_new_run: bool = False) -> None:
        """Take in the next points of a run.

        Args:
            d: in sqrt(nats), 0 or more, finite.
            scores: as many, finite.
            is_new_run: the first of them is no neighbour of the point before.
        """
        if not len(d):
            return
        if not self.n:
            self.origin, self.least_d, self.largest_d = float(scores[0]), float(min(d)), float(max(d))
        rows = tabulate_points(np.asarray(d, dtype=float), np.asarray(scores, dtype=float) - self.origin)
        self.least_d, self.largest_d = min(self.least_d, float(min(d))), max(self.largest_d, float(max(d)))
        chain = rows
        if self._last is None:
            self._edges += np.outer(rows[0], rows[0])
        elif is_new_run:
            self._edges += np.outer(rows[0], rows[0]) + np.outer(self._last, self._last)
        else:
            chain = np.vstack([self._last[None, :], rows])
        self._plain += rows.T @ rows
        self._lagged += chain[1:].T @ chain[:-1]
        self._n_neighbours += len(chain) - 1
        self._last = rows[-1]
        self.n += len(rows)

    def whiten(self, memory: float) -> Matrix:
        """Sum of products after each point has lost `memory` times its neighbour, and the first of a run is scaled to match (Prais, Winsten 1954)."""
        assert self._last is not None
        ends = self._edges + np.outer(self._last, self._last)
        return self._plain + memory**2 * (self._plain - ends) - memory * (self._lagged + self._lagged.T)

    def correlate_residuals(self, combination: Matrix, *, n_parameters: int) -> float:
        """Lag-one autocorrelation of what `combination` of the columns gives, corrected for the bias of a short series; 0 to 0.95.

        Fitting p parameters to n points takes about p (1 + rho) / n from the estimate; a negative one would make intervals narrower and counts as 0.
        """
        variance = float(combination @ self._plain @ combination)
        if not self._n_neighbours or variance <= 0:
            return 0.0
        raw = float(combination @ self._lagged @ combination) / variance * self.n / self._n_neighbours
        share = n_parameters / self.n
        return min(max((raw + share) / (1 - share), 0.0), 0.95) if share < 1 else 0.0


def tabulate_points(d: Matrix, scores: Matrix) -> Matrix:
    """One row of COLUMNS a point, [n, 5]; d ln d is 0 at d = 0."""
    return np.column_stack([np.ones_like(d), d, multiply_log(d), d * d, scores])


def multiply_log(d: Matrix) -> Matrix:
    """The product d ln d, 0 at d = 0."""
    return np.asarray(d * np.log(np.where(d > 0, d, 1.0)))
