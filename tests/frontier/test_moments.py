import numpy as np
import pytest

from klaudit.frontier import Moments
from klaudit.frontier.moments import Matrix, tabulate_points


def whiten_by_hand(runs: list[tuple[Matrix, Matrix]], memory: float) -> Matrix:
    """Prais and Winsten's transform of every run, then the sum of products."""
    rows = []
    for d, scores in runs:
        table = tabulate_points(d, scores)
        rows.append(np.sqrt(1 - memory**2) * table[:1])
        rows.append(table[1:] - memory * table[:-1])
    whitened = np.vstack(rows)
    products: Matrix = whitened.T @ whitened
    return products


def test_whitening_sums_is_whitening_points_and_does_not_cross_runs() -> None:
    rng = np.random.default_rng(0)
    runs = [(rng.uniform(0, 5, n), rng.normal(size=n)) for n in (7, 1, 12)]
    runs[0][1][0] = 0.0
    moments = Moments()
    for d, scores in runs:
        moments.add(d, scores, is_new_run=True)
    for memory in (0.0, 0.5, 0.9):
        assert moments.whiten(memory) == pytest.approx(whiten_by_hand(runs, memory))


def test_points_may_come_in_pieces() -> None:
    rng = np.random.default_rng(1)
    d, scores = rng.uniform(0, 5, 30), rng.normal(size=30)
    whole, pieces = Moments(), Moments()
    whole.add(d, scores)
    for start in range(0, 30, 4):
        pieces.add(d[start : start + 4], scores[start : start + 4])
    assert pieces.n == whole.n == 30
    assert (pieces.least_d, pieces.largest_d) == (whole.least_d, whole.largest_d)
    assert pieces.whiten(0.4) == pytest.approx(whole.whiten(0.4))


def test_d_ln_d_is_zero_at_zero() -> None:
    assert tabulate_points(np.array([0.0, np.e]), np.zeros(2))[:, 2] == pytest.approx([0.0, np.e])
