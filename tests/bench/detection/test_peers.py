from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.bench.detection.peers import KLStream, apply_robust_z, apply_wandb_change, apply_wandb_z, apply_z_of_log, take_log

Find = Callable[[KLStream], Iterator[int]]


def make_stream(*, level: float = 1.0, spike: float | None = None, nan_at: int | None = None) -> KLStream:
    """100 steps about 1, a step to `level` at 70, a spike at 80."""
    values = 1 + 0.05 * np.random.default_rng(1).normal(size=100)
    values[70:] *= level
    if spike is not None:
        values[80] = spike
    if nan_at is not None:
        values[nan_at] = np.nan
    return KLStream(range(100), values, "k3", "nats_per_sequence", 64)


@pytest.mark.parametrize("find", [apply_wandb_z, apply_z_of_log, apply_robust_z])
def test_a_large_spike_is_flagged(find: Find) -> None:
    assert 80 in list(find(make_stream(spike=2.0)))


def test_a_mean_that_doubles_is_a_change_once_half_of_the_window_has_it() -> None:
    assert list(apply_wandb_change(make_stream()))[:1] == []
    assert next(iter(apply_wandb_change(make_stream(level=2.5)))) in range(71, 76)


@pytest.mark.parametrize("find", [apply_wandb_z, apply_wandb_change, apply_z_of_log, apply_robust_z])
def test_nan_neither_is_flagged_nor_blinds_what_comes_after(find: Find) -> None:
    flags = list(find(make_stream(level=3.0, nan_at=60)))
    assert 60 not in flags
    assert min(flag for flag in flags if flag > 60) in range(70, 76)


def test_the_log_of_what_is_not_positive_looks_only_back() -> None:
    logs = take_log(np.array([1.0, -1.0, 0.1, 0.0, np.nan]))
    assert logs[:4] == pytest.approx(np.log([1.0, 0.1, 0.1, 0.01]))
    assert np.isnan(logs[4])
