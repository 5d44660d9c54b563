import math
import random
import statistics

import pytest

from klaudit.drift.interval import estimate_mean, find_t_quantile


@pytest.mark.parametrize(
    ("degrees_of_freedom", "tabulated"),
    # NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.2, column 0.975
    [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (7, 2.365),
        (10, 2.228),
        (15, 2.131),
        (30, 2.042),
        (60, 2.000),
        (100, 1.984),
    ],
)
def test_t_quantile_is_the_tabulated_one(degrees_of_freedom: int, tabulated: float) -> None:
    assert find_t_quantile(degrees_of_freedom) == pytest.approx(tabulated, abs=5.1e-4)


@pytest.mark.parametrize(("degrees_of_freedom", "tabulated"), [(1, 63.657), (5, 4.032), (10, 3.169), (100, 2.626)])
def test_t_quantile_follows_the_confidence(degrees_of_freedom: int, tabulated: float) -> None:
    assert find_t_quantile(degrees_of_freedom, confidence=0.99) == pytest.approx(tabulated, abs=5.1e-4)


def test_t_quantile_of_very_many_clusters_is_the_normal_one() -> None:
    assert find_t_quantile(10_000_000) == pytest.approx(statistics.NormalDist().inv_cdf(0.975), abs=1e-3)


def test_one_value_a_cluster_gives_the_textbook_interval() -> None:
    # 1 to 5: mean 3, standard deviation sqrt(2.5), t(0.975, 4) = 2.776
    mean = estimate_mean([1, 2, 3, 4, 5], clusters=range(5))
    assert mean.value == 3
    assert mean.standard_error == pytest.approx(math.sqrt(2.5 / 5))
    assert (mean.low, mean.high) == pytest.approx((3 - 2.776 * math.sqrt(0.5), 3 + 2.776 * math.sqrt(0.5)), abs=1e-3)
    assert mean.n_clusters == 5


def test_repeating_every_value_of_a_cluster_does_not_narrow_the_interval() -> None:
    values = [0.1, 0.4, 0.2, 0.9]
    once = estimate_mean(values, clusters=range(4))
    repeated = estimate_mean([value for value in values for _ in range(25)], clusters=[g for g in range(4) for _ in range(25)])
    assert repeated.standard_error == pytest.approx(once.standard_error)
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))
    independent = estimate_mean([value for value in values for _ in range(25)], clusters=range(100))
    assert independent.standard_error is not None
    assert once.standard_error is not None
    assert independent.standard_error < once.standard_error / 4


def test_interval_of_clustered_values_covers_the_mean_as_often_as_it_says() -> None:
    # Clusters N(1, 1), three values in each with N(0, 0.5) added: independence would make the interval cover in about 80% of the trials.
    rng = random.Random(3)
    clusters = [g for g in range(8) for _ in range(3)]
    covered = 0
    for _ in range(2000):
        centres = [rng.gauss(1, 1) for _ in range(8)]
        mean = estimate_mean([rng.gauss(centres[g], 0.5) for g in clusters], clusters=clusters)
        covered += mean.low <= 1 <= mean.high
    # three standard errors of a share of 2,000 trials
    assert covered / 2000 == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 2000))


def test_interval_starts_at_the_floor_at_the_earliest() -> None:
    assert estimate_mean([0.0, 0.0, 1.0], clusters=range(3)).low < 0
    assert estimate_mean([0.0, 0.0, 1.0], clusters=range(3), floor=0.0).low == 0


def test_one_cluster_says_nothing_about_others() -> None:
    mean = estimate_mean([1.0, 2.0], clusters=["x", "x"], floor=0.0)
    assert (mean.value, mean.standard_error, mean.low, mean.high) == (1.5, None, 0.0, math.inf)


@pytest.mark.parametrize("values", [[1.0, math.inf], [1.0, math.nan], [math.inf, -math.inf]])
def test_values_that_are_not_finite_give_an_interval_that_promises_nothing(values: list[float]) -> None:
    mean = estimate_mean(values, clusters=range(2))
    assert not math.isfinite(mean.value)
    assert (mean.standard_error, mean.low, mean.high) == (None, -math.inf, math.inf)
