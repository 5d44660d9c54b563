import math

import numpy as np
import pytest

from klaudit.detectors import find_noise_floor
from klaudit.records import KLReading, KLSeries
from klaudit.records.series import Estimator


def read(kl: float, *, estimator: Estimator = "full", standard_error: float | None = None, n_sequences: int | None = None) -> KLReading:
    series = KLSeries(estimator=estimator, unit="nats_per_sequence")
    return KLReading(series, kl, standard_error=standard_error, n_sequences=n_sequences)


def test_a_measured_standard_error_is_carried_to_d_by_the_delta_method() -> None:
    # d = 0.5, so 0.02 / (2 * 0.5)
    assert find_noise_floor(read(0.25, standard_error=0.02)) == pytest.approx(0.02)


def test_the_delta_method_agrees_with_sampled_square_roots() -> None:
    sampled = np.sqrt(np.random.default_rng(3).normal(1.44, 0.1, size=200_000))
    assert find_noise_floor(read(1.44, standard_error=0.1)) == pytest.approx(float(sampled.std()), rel=0.02)


@pytest.mark.parametrize("kl", [0.0, 1e-30, -0.02])
def test_near_zero_the_floor_is_the_root_of_the_standard_error_and_not_infinite(kl: float) -> None:
    assert find_noise_floor(read(kl, standard_error=0.01)) == pytest.approx(0.1)


@pytest.mark.parametrize(("n_sequences", "floor"), [(64, 0.0884), (256, 0.0442)])
@pytest.mark.parametrize("kl", [0.02, 0.37, 8.4])
def test_k1_without_a_standard_error_has_the_published_floor_at_every_kl(n_sequences: int, floor: float, kl: float) -> None:
    assert find_noise_floor(read(kl, estimator="k1", n_sequences=n_sequences)) == pytest.approx(floor, abs=5e-5)


@pytest.mark.parametrize("estimator", ["k1", "k3", "full", "unknown"])
def test_an_unknown_batch_has_a_floor_of_a_twentieth(estimator: Estimator) -> None:
    assert find_noise_floor(read(0.4, estimator=estimator)) == 0.05


def test_full_without_a_standard_error_is_quieter_than_k3_and_both_than_k1() -> None:
    full, k3, k1 = (find_noise_floor(read(0.8, estimator=estimator, n_sequences=16)) for estimator in ("full", "k3", "k1"))
    assert full < k3 < k1
    # Var(k1) / Var(full) = 16 at KL 0.8 on a real language model
    assert k1 / full == pytest.approx(4, rel=0.15)


def test_a_standard_error_that_is_nan_counts_as_unknown() -> None:
    assert find_noise_floor(read(0.4, standard_error=math.nan)) == 0.05
