import math
import subprocess
import sys

import pytest

from klaudit.errors import InvalidConfig
from klaudit.kl import AdaptiveBeta, BetaController, FixedBeta

# Ziegler et al. 2019 with beta .2, target 6 nats per sequence, horizon 10,000 and 256 sequences a batch: one saturated update is 1 + .2 * 256 / 10000
UP = 1.00512


def run_updates(kl: float, n_updates: int) -> float:
    controller = AdaptiveBeta(0.2, target_kl=6.0, horizon=10_000)
    for _ in range(n_updates):
        controller.update(kl, n_sequences=256)
    return controller.beta


def test_kl_at_twice_the_target_raises_beta_by_half_a_percent() -> None:
    assert run_updates(12.0, 1) / 0.2 == pytest.approx(UP, rel=1e-12)


def test_three_updates_give_the_published_beta() -> None:
    assert run_updates(12.0, 3) == pytest.approx(0.2030878, abs=5e-8)


def test_saturated_it_takes_136_updates_to_double() -> None:
    assert run_updates(12.0, 135) < 0.4 <= run_updates(12.0, 136)


def test_a_hundred_updates_at_zero_kl_give_the_published_beta() -> None:
    assert run_updates(0.0, 100) == pytest.approx(0.1197, abs=5e-5)


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(6.0, 1.0), (6.6, 1 + 0.1 * 0.0256), (5.4, 1 - 0.1 * 0.0256), (7.2, UP), (1e9, UP), (math.inf, UP), (-5.0, 1 - 0.00512)],
)
def test_beta_moves_in_proportion_to_the_error_up_to_a_fifth(kl: float, factor: float) -> None:
    assert run_updates(kl, 1) / 0.2 == pytest.approx(factor, rel=1e-12)


def test_nan_says_nothing() -> None:
    assert run_updates(math.nan, 5) == 0.2


def test_a_batch_far_above_the_horizon_cannot_turn_beta_negative() -> None:
    """The published formula would give 1 - .2 * 512 / 50 = -1.048 times beta."""
    controller = AdaptiveBeta(0.2, target_kl=6.0, horizon=50)
    controller.update(0.0, n_sequences=512)
    assert controller.beta == pytest.approx(0.2 * 0.8)


def test_a_fixed_beta_stays() -> None:
    controller = FixedBeta(0.05)
    controller.update(1000.0, n_sequences=256)
    assert controller.beta == 0.05


def test_a_fixed_beta_of_zero_is_allowed() -> None:
    assert FixedBeta(0.0).beta == 0.0


@pytest.mark.parametrize("controller", [FixedBeta(0.1), AdaptiveBeta(0.1, target_kl=6.0)])
def test_a_resumed_run_goes_on_with_the_beta_it_had(controller: BetaController) -> None:
    controller.update(12.0, n_sequences=256)
    controller.beta *= 2
    resumed = AdaptiveBeta(0.1, target_kl=6.0)
    resumed.load_state_dict(controller.state_dict())
    assert resumed.beta == controller.beta > 0.19


def test_resumed_updates_equal_uninterrupted_ones() -> None:
    first = AdaptiveBeta(0.2, target_kl=6.0, horizon=10_000)
    for _ in range(3):
        first.update(12.0, n_sequences=256)
    second = AdaptiveBeta(0.2, target_kl=6.0, horizon=10_000)
    second.load_state_dict(first.state_dict())
    for _ in range(4):
        second.update(12.0, n_sequences=256)
    assert second.beta == run_updates(12.0, 7)


@pytest.mark.parametrize("beta", [-0.01, math.nan, math.inf])
def test_a_beta_that_cannot_be_is_refused(beta: float) -> None:
    controller = FixedBeta(0.1)
    with pytest.raises(InvalidConfig, match="beta must be a finite number, 0 or more; got"):
        FixedBeta(beta)
    with pytest.raises(InvalidConfig, match="beta must be"):
        controller.beta = beta
    with pytest.raises(InvalidConfig, match="beta must be"):
        controller.load_state_dict({"beta": beta})
    assert controller.beta == 0.1


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["beta", "target_kl", "horizon"])
def test_an_adaptive_beta_refuses_what_it_cannot_steer_with(name: str, bad: float) -> None:
    """Target 0 divides by zero, horizon 0 makes beta infinite, and no factor leads away from beta 0."""
    arguments = {"beta": 0.1, "target_kl": 6.0, "horizon": 10_000.0} | {name: bad}
    with pytest.raises(InvalidConfig, match=f"{name} of an adaptive beta must be a finite number above 0; got"):
        AdaptiveBeta(**arguments)


def test_a_state_without_beta_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="must hold 'beta'; got 'kl'"):
        FixedBeta(0.1).load_state_dict({"kl": 1.0})


def test_importing_the_room_brings_no_torch() -> None:
    code = "import sys, klaudit.kl; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
