import math
import random
import statistics

import numpy as np
import pytest

from klaudit.drift.interval import estimate_mean, estimate_ratio
from klaudit.frontier.student import find_p_value, find_t_quantile
from tests.oracles.markov_lm import N_TOKENS, N_VOCABULARY, Array, MarkovPair, make_markov_pair


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


def test_weighting_a_value_is_like_repeating_it_in_its_cluster() -> None:
    weighted = estimate_mean([1.0, 5.0, 2.0, 8.0], clusters="abca", weights=[1.0, 3.0, 1.0, 2.0])
    repeated = estimate_mean([1.0, 5.0, 5.0, 5.0, 2.0, 8.0, 8.0], clusters="abbbcaa")
    assert (weighted.value, weighted.standard_error) == pytest.approx((repeated.value, repeated.standard_error))
    assert (weighted.low, weighted.high) == pytest.approx((repeated.low, repeated.high))


def test_scale_of_the_weights_changes_nothing() -> None:
    values, clusters = [1.0, 5.0, 2.0], range(3)
    light, heavy = (estimate_mean(values, clusters=clusters, weights=[scale, 2 * scale, scale]) for scale in (1e-300, 1e308 / 2))
    assert (light.value, light.low, light.high) == pytest.approx((heavy.value, heavy.low, heavy.high))


def test_ratio_has_the_error_of_its_residuals() -> None:
    # by hand: R = 9 / 6, residuals 1 - 1.5, 2 - 3, 6 - 4.5; SE^2 = 3 / 2 * 3.5 / 36
    ratio = estimate_ratio([1.0, 2.0, 6.0], sizes=[1.0, 2.0, 3.0], clusters=range(3))
    assert ratio.value == 1.5
    assert ratio.standard_error == pytest.approx(math.sqrt(1.5 * 3.5 / 36))


def test_skewed_values_get_the_longer_end_on_the_side_of_their_tail() -> None:
    skewed = [0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.9, 2.4]
    mean = estimate_mean(skewed, clusters=range(8))
    mirrored = estimate_mean([-value for value in skewed], clusters=range(8))
    assert mean.high - mean.value > 1.5 * (mean.value - mean.low)
    assert (mirrored.low, mirrored.high) == pytest.approx((-mean.high, -mean.low))


@pytest.mark.parametrize("deviation", [0.2, 0.6, 1.5])
def test_interval_is_never_much_wider_than_that_of_student(deviation: float) -> None:
    rng = random.Random(5)
    for _ in range(200):
        mean = estimate_mean([rng.lognormvariate(0, deviation) for _ in range(16)], clusters=range(16))
        assert mean.standard_error is not None
        assert 0.99 <= (mean.high - mean.low) / (2 * find_t_quantile(15) * mean.standard_error) <= 1.25


def test_huge_values_give_a_wide_interval_and_no_error() -> None:
    mean = estimate_mean([1e200, 3e200, 2e200], clusters=range(3))
    assert mean.low < mean.value < mean.high


@pytest.mark.parametrize("t", [0.0, 0.7, 2.262, 30.0])
@pytest.mark.parametrize("degrees_of_freedom", [1, 2, 9, 40])
def test_p_value_and_quantile_are_inverse(t: float, degrees_of_freedom: int) -> None:
    p_value = find_p_value(-t, degrees_of_freedom=degrees_of_freedom)
    if 1e-12 < p_value < 1:
        assert find_t_quantile(degrees_of_freedom, confidence=1 - p_value) == pytest.approx(t, rel=1e-3)
    assert find_p_value(0.0, degrees_of_freedom=degrees_of_freedom) == 1.0


@pytest.mark.parametrize(("n_prompts", "n_samples"), [(16, 4), (32, 2)])
def test_of_2000_measurements_of_the_oracle_95_percent_cover_the_truth(n_prompts: int, n_samples: int) -> None:
    pair = make_markov_pair(0.5)
    clusters = [prompt for prompt in range(n_prompts) for _ in range(n_samples)]
    truth = exact_kl_over_starts(pair)
    covered = {}
    for estimator, sums in sample_sums(pair, n=2000 * n_prompts * n_samples, n_samples=n_samples).items():
        means = [estimate_mean(nats, clusters=clusters) for nats in sums.reshape(2000, n_prompts * n_samples).tolist()]
        covered[estimator] = sum(mean.low <= truth <= mean.high for mean in means) / 2000
    assert all(0.935 <= share <= 0.965 for share in covered.values()), covered


def test_interval_covers_the_mean_of_prompts_that_differ_much_more_often_than_that_of_student() -> None:
    # 16 log-normal prompts, four samples each whose own spread is 30%; 93.6% of 10,000, and 91.4% by Student's
    n, deviation = 4000, 0.6
    rng = np.random.default_rng(0)
    centres = np.exp(deviation * rng.standard_normal((n, 16, 1)) - deviation**2 / 2)
    values = (centres * np.exp(0.3 * rng.standard_normal((n, 16, 4)) - 0.3**2 / 2)).reshape(n, 64)
    clusters = [prompt for prompt in range(16) for _ in range(4)]
    means = [estimate_mean(row, clusters=clusters, floor=0.0) for row in values.tolist()]
    student = [abs(mean.value - 1) <= find_t_quantile(15) * (mean.standard_error or 0) for mean in means]
    covered = sum(mean.low <= 1 <= mean.high for mean in means) / n
    assert covered >= 0.925
    assert covered >= sum(student) / n + 0.01


def sample_sums(pair: MarkovPair, *, n: int, n_samples: int) -> dict[str, Array]:
    """KL of sampled completions by estimator, nats per sequence; a prompt is a start token, any of them as likely, and `n_samples` in a row share theirs."""
    rng = np.random.default_rng(0)
    policy, log_ratio = np.exp(pair.policy_logprobs), pair.policy_logprobs - pair.reference_logprobs
    step_kl, gap = (policy * log_ratio).sum(-1), np.expm1(-log_ratio) + log_ratio
    cumulative = policy.cumsum(-1)
    # all rows in one ascending line, so that one search finds the next token of every sequence
    line = (cumulative / cumulative[:, -1:] + np.arange(N_VOCABULARY)[:, None]).ravel()
    last = np.repeat(rng.integers(0, N_VOCABULARY, n // n_samples), n_samples)
    full, k1, k3 = np.zeros(n), np.zeros(n), np.zeros(n)
    for _ in range(N_TOKENS):
        chosen = np.minimum(np.searchsorted(line, last + rng.random(n), side="right") - last * N_VOCABULARY, N_VOCABULARY - 1)
        full, k1, k3, last = full + step_kl[last], k1 + log_ratio[last, chosen], k3 + gap[last, chosen], chosen
    return {"full": full, "k1": k1, "k3": k3}


def exact_kl_over_starts(pair: MarkovPair) -> float:
    """Mean over start tokens of KL(policy || reference), by dynamic programming."""
    policy = np.exp(pair.policy_logprobs)
    step_kl = (policy * (pair.policy_logprobs - pair.reference_logprobs)).sum(-1)
    ahead = np.zeros(N_VOCABULARY)
    for _ in range(N_TOKENS):
        ahead = step_kl + policy @ ahead
    return float(ahead.mean())
