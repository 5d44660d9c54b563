"""A controller that pushes one way without effect."""

import json
import math

import numpy as np
import pytest

from klaudit.detectors.saturation import Saturation, SaturationWatch
from klaudit.kl.controllers import AdaptiveBeta


def watch_controller(kls: list[float], *, target: float) -> list[tuple[int, Saturation]]:
    """What a watch says of the Ziegler controller on a KL that does not answer to it."""
    controller, watch = AdaptiveBeta(0.1, target, 10_000), SaturationWatch(band=0.2, least=50)
    told = []
    for step, kl in enumerate(kls):
        saturation = watch.observe(kl / target, control=controller.beta, position=step)
        told += [] if saturation is None else [(step, saturation)]
        controller.update(kl, n_sequences=256)
    return told


def test_on_servos_that_work_there_are_fewer_than_0_05_false_alarms_in_1000_steps() -> None:
    rng = np.random.default_rng(1)
    n_alarms = n_steps = 0
    for _ in range(120):
        target, batch = float(np.exp(rng.uniform(-0.7, 3.4))), int(rng.choice([4, 16, 64, 256]))
        controller = AdaptiveBeta(float(rng.uniform(0.005, 0.2)), target, 0.2 * batch / rng.uniform(0.004, 0.02))
        watch = SaturationWatch(band=0.2, least=50)
        first, kl, lag, noise = controller.beta, 0.0, rng.uniform(6, 20), rng.choice([0.05, 0.1, 0.3])
        resting = target * rng.uniform(0.6, 1.6)
        was_on = False
        for step in range(250):
            kl += (resting * first / controller.beta - kl) / lag if step else 0.0
            reading = kl * math.exp(noise * rng.standard_t(6))
            is_on = watch.observe(reading / target, control=controller.beta, position=step) is not None
            n_alarms += is_on and not was_on
            was_on = is_on
            controller.update(reading, n_sequences=batch)
        n_steps += 250
    assert 1000 * n_alarms / n_steps < 0.05


@pytest.mark.parametrize(("kl", "side"), [(12.0, 1), (0.6, -1), (0.0, -1), (-0.5, -1)])
def test_a_kl_that_does_not_follow_is_told_after_fifty_updates(kl: float, side: int) -> None:
    step, saturation = watch_controller([kl] * 60, target=6.0)[0]
    assert (step, saturation.side, saturation.n, saturation.first_position) == (49, side, 50, 0.0)
    assert saturation.ratio == pytest.approx(max(kl / 6, 0.001))


@pytest.mark.parametrize(
    "kls",
    [
        [0.02 * step for step in range(200)],
        [6 * (1 - math.exp(-step / 40)) for step in range(200)],
        [12.0] * 40 + [6.0] + [12.0] * 40,
        [6.5] * 200,
    ],
)
def test_a_kl_that_comes_nearer_or_is_near_is_quiet(kls: list[float]) -> None:
    assert not watch_controller(kls, target=6.0)


def test_a_beta_that_stands_still_is_no_controller() -> None:
    watch = SaturationWatch(band=0.2, least=50)
    assert not any(watch.observe(3.0, control=0.1, position=step) for step in range(200))


def test_a_watch_goes_on_from_its_state() -> None:
    whole, first, second = (SaturationWatch(band=0.2, least=50) for _ in range(3))
    betas = [0.1 * 1.005**step for step in range(60)]
    expected = [whole.observe(2.0, control=beta, position=step) for step, beta in enumerate(betas)]
    for step, beta in enumerate(betas[:40]):
        first.observe(2.0, control=beta, position=step)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [second.observe(2.0, control=beta, position=step) for step, beta in enumerate(betas[40:], start=40)] == expected[40:]
    assert expected[-1] is not None
