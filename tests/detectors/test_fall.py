"""Falls of a KL to nothing: found at once, and not in noise."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from klaudit.detectors.fall import FallDetector
from klaudit.errors import InvalidRecord

Curve = NDArray[np.float64]
N_STEPS = 300

NOISES: dict[str, Callable[[Generator, Curve], Curve]] = {
    "full": lambda rng, true: true * np.exp(0.1 * rng.standard_t(6, true.size)),
    "k3": lambda rng, true: true * np.exp(0.3 * rng.standard_t(6, true.size)),
    "k3 of small batches": lambda rng, true: true * np.exp(1.7 * rng.normal(size=true.size)),
    "proportional": lambda rng, true: np.abs(true * (1 + 0.25 * rng.standard_t(6, true.size))),
    "k1": lambda rng, true: true + np.sqrt(2 * true / 256) * rng.standard_t(6, true.size),
    "k1 of small batches": lambda rng, true: true + np.sqrt(2 * true / 8) * rng.standard_t(6, true.size),
}
SHAPES: tuple[Callable[[Curve], Curve], ...] = (
    np.ones_like,
    lambda t: 1 - np.exp(-t / 60),
    lambda t: t / N_STEPS,
    lambda t: (t / N_STEPS) ** 2,
    lambda t: (1 - np.exp(-t / 20)) * 0.5 ** (t / N_STEPS),
)
STEPS = np.arange(N_STEPS, dtype=float)


def list_falls(values: Curve, *, is_signed: bool) -> list[int]:
    detector = FallDetector(is_signed=is_signed)
    return [step for step, value in enumerate(values.tolist()) if detector.observe(value, position=step) is not None]


def draw_curves(n: int, *, seed: int) -> list[Curve]:
    """Healthy KLs before noise: growth, and a slow wander of 12%."""
    rng = np.random.default_rng(seed)
    curves = []
    for index in range(n):
        wander = np.zeros(N_STEPS)
        for step in range(1, N_STEPS):
            wander[step] = 0.9 * wander[step - 1] + 0.05 * rng.normal()
        curves.append(SHAPES[index % len(SHAPES)](STEPS) * np.exp(wander))
    return curves


CURVES = draw_curves(40, seed=1)


def test_on_noise_of_every_kind_there_are_fewer_than_0_05_false_alarms_in_1000_steps() -> None:
    rng = np.random.default_rng(2)
    n_alarms = sum(
        len(list_falls(noise(rng, curve), is_signed=name.startswith("k1"))) for name, noise in NOISES.items() for curve in CURVES
    )
    assert 1000 * n_alarms / (len(NOISES) * len(CURVES) * N_STEPS) < 0.05


@pytest.mark.parametrize("name", ["full", "k3", "proportional", "k1"])
def test_a_fall_to_a_few_percent_is_found_within_three_readings(name: str) -> None:
    rng = np.random.default_rng(3)
    n_found = 0
    for curve in CURVES:
        onset = int(rng.integers(100, N_STEPS - 40))
        planted = curve * 4
        left = rng.uniform(0.01, 0.05)
        planted[onset:] *= left + (1 - left) * (1 - np.exp(-STEPS[: N_STEPS - onset] / rng.uniform(20, 120)))
        falls = [step for step in list_falls(NOISES[name](rng, planted), is_signed=name == "k1") if step >= onset]
        n_found += bool(falls) and falls[0] <= onset + 2
    assert n_found / len(CURVES) >= 0.9


@pytest.mark.parametrize(
    ("values", "falls"),
    [
        ([1.0] * 30 + [0.0, 0.0], [31]),
        ([1.0] * 30 + [0.0, 1.0, 0.0, 1.0], []),
        ([1.0] * 30 + [0.2] * 10, []),
        ([1.0 * 0.85**step for step in range(40)], []),
        ([0.0] * 40, []),
        ([-1.0] * 20 + [-5.0] * 5, []),
        ([0.002, 0.001] * 15 + [0.0] * 6, []),
        ([1e300] * 30 + [0.0, 0.0], [31]),
        ([1.7e308, 1e-300] * 15 + [0.0, 0.0], []),
        ([1.0] * 9 + [0.0, 0.0], []),
    ],
)
def test_a_fall_is_one_that_is_deep_at_once_and_lasts(values: list[float], falls: list[int]) -> None:
    assert list_falls(np.array(values), is_signed=False) == falls


def test_what_is_told_is_enough_to_judge_again() -> None:
    detector = FallDetector()
    rising = [1.0 + 0.01 * step for step in range(30)]
    falls = [detector.observe(value, position=step) for step, value in enumerate([*rising, 0.02, 0.03])]
    fall = falls[-1]
    assert fall is not None
    assert fall.readings == ((30, 0.02), (31, 0.03))
    assert list(fall.level.values) == rising
    assert fall.level.value == pytest.approx(1.245)
    assert fall.share == pytest.approx(math.sqrt(0.02 * 0.03) / 1.245)


def test_a_detector_goes_on_from_its_state() -> None:
    values = [1.0] * 20 + [0.001, 0.001]
    whole, first, second = FallDetector(), FallDetector(), FallDetector()
    expected = [whole.observe(value, position=step) for step, value in enumerate(values)]
    for step, value in enumerate(values[:21]):
        first.observe(value, position=step)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.observe(values[21], position=21) == expected[21] is not None


def test_a_level_from_elsewhere_is_what_the_next_readings_are_held_against() -> None:
    before, after = FallDetector(), FallDetector()
    for step in range(20):
        before.observe(1.0, position=step)
    assert before.level is not None
    after.go_on_from(before.level)
    assert [after.observe(0.0, position=step) is not None for step in range(2)] == [False, True]


def test_an_impossible_window_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="5 <= warm_up <= window"):
        FallDetector(window=8, warm_up=10)
