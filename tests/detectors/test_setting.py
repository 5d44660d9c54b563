"""A coefficient that moves further than whatever sets it."""

import json
import math

import numpy as np
import pytest

from klaudit.detectors.setting import SettingWatch
from klaudit.kl.controllers import AdaptiveBeta


def make_watch(*, is_moving: bool = False) -> SettingWatch:
    return SettingWatch(tolerance=0.001, floor=0.25, factor=5.0, collapse=0.05, is_moving=is_moving)


def list_moves(values: list[float]) -> list[tuple[int, str]]:
    watch = make_watch()
    moves = [(step, watch.observe(value)) for step, value in enumerate(values)]
    return [(step, move.kind) for step, move in moves if move is not None]


def steer(rng: np.random.Generator, *, change: float, n: int = 300) -> list[float]:
    """Beta of a controller on a noisy KL, with at most `change` a step."""
    controller = AdaptiveBeta(float(rng.uniform(0.03, 0.2)), 3.0, 0.2 * 64 / change)
    first, kl, betas = controller.beta, 0.0, []
    for _ in range(n):
        betas.append(controller.beta)
        kl += (3 * rng.uniform(0.6, 1.6) * first / controller.beta - kl) / 10
        controller.update(kl + 0.5 * kl * rng.normal(), n_sequences=64)
    return betas


def test_controllers_on_a_noisy_kl_are_quiet_in_full_and_in_rounded_logs() -> None:
    rng = np.random.default_rng(0)
    for change in (0.003, 0.005, 0.02, 0.2):
        for _ in range(10):
            betas = steer(rng, change=change)
            assert not list_moves(betas)
            assert not list_moves([round(beta, 4) for beta in betas])
            if min(betas) > 0.02:
                assert not list_moves([round(beta, 3) for beta in betas])


@pytest.mark.parametrize("n", [25, 40, 100, 400])
def test_schedules_are_quiet(n: int) -> None:
    steps = range(n + 1)
    line = [0.1 * (1 - step / n) for step in steps]
    cosine = [0.05 * (1 + math.cos(math.pi * step / n)) for step in steps]
    assert not list_moves(line)
    assert not list_moves(cosine)
    assert not list_moves([round(beta, 3) for beta in line])
    assert not list_moves([0.1 * 0.02 ** (step / n) for step in steps])
    assert not list_moves(line[::-1] + [0.1] * 50)
    assert not list_moves(line[::-1] + cosine)


@pytest.mark.parametrize("factor", [0.0, -1.0, 0.03, 0.2, 10.0])
def test_a_change_is_told_at_its_very_step_whatever_sets_beta(factor: float) -> None:
    rng = np.random.default_rng(1)
    for before in ([0.05] * 100, steer(rng, change=0.005), steer(rng, change=0.02), [0.1 * (1 - step / 400) for step in range(200)]):
        onset = 80
        changed = before[:onset] + [beta * factor for beta in before[onset:]]
        assert list_moves(changed)[0][0] == onset


def test_a_slow_loss_is_told_when_it_is_one() -> None:
    betas = steer(np.random.default_rng(2), change=0.005, n=100)
    lost = betas + [betas[-1] * 0.85**step for step in range(1, 30)]
    assert list_moves(lost) == [(118, "collapse")]


@pytest.mark.parametrize(
    ("values", "moves"),
    [
        ([0.05] * 10 + [0.051] * 10, []),
        ([0.05] * 10 + [0.06] * 10, [(10, "fixed")]),
        ([0.05] * 10 + [0.05 * (1 + 1e-9)] * 10, []),
        ([0.05] * 10 + [0.05004] * 10, []),
        ([0.05, 0.1, 0.1], []),
        ([0.05, 0.001, 0.001], [(1, "moving")]),
        ([0.0] * 10 + [0.05] * 10, [(10, "fixed")]),
        ([0.05] * 10 + [0.1] * 10 + [0.05] * 10, [(10, "fixed"), (20, "fixed")]),
        ([0.1 - 0.01 * step for step in range(13)], [(11, "moving")]),
        ([1e-320, 1e-310, 1e300, 1e-300], [(2, "moving"), (3, "moving")]),
    ],
)
def test_what_a_move_is(values: list[float], moves: list[tuple[int, str]]) -> None:
    assert list_moves(values) == moves


def test_a_resume_may_go_back_to_what_a_moving_one_was_but_a_fixed_one_was_nothing_else() -> None:
    moving, fixed = make_watch(), make_watch()
    for step in range(30):
        moving.observe(0.1 * 0.99**step)
        fixed.observe(0.1)
    for watch in (moving, fixed):
        watch.begin_segment()
    assert moving.observe(0.09) is None
    move = fixed.observe(0.09)
    assert move is not None
    assert (move.kind, move.before, move.now) == ("resumed", 0.1, 0.09)


def test_a_watch_goes_on_from_its_state() -> None:
    values = [*steer(np.random.default_rng(3), change=0.01, n=60), 0.0]
    whole, first, second = make_watch(), make_watch(), make_watch()
    expected = [whole.observe(value) for value in values]
    for value in values[:-1]:
        first.observe(value)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.observe(values[-1]) == expected[-1] is not None


def test_one_that_is_known_to_move_is_never_fixed() -> None:
    watch = make_watch(is_moving=True)
    assert [watch.observe(value) for value in [0.1] * 30 + [0.11]][-1] is None
    assert watch.observe(0.3) is not None
