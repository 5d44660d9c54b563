"""What others offer for one series, at the settings that they ship or that their papers give. They see the governing KL and nothing else."""

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
"""The readings that are there, finite or not."""

MODIFIED_Z = 3.5
"""Iglewicz and Hoaglin 1993."""


@dataclass(frozen=True, slots=True)
class KLStream:
    """The governing KL of a run, and what a floor needs to know of it."""

    steps: Sequence[int]
    values: Values
    """In the series' unit."""
    estimator: str
    unit: str
    batch_size: int | None


@dataclass(frozen=True, slots=True)
class Peer:
    """A detector that says of each step whether it is odd."""

    name: str
    find_odd: Callable[[KLStream], Iterator[int]]
    """Positions, ascending."""
    needs: str | None = None
    """A package that klaudit does not need."""

    @property
    def is_here(self) -> bool:
        """Whether its package can be imported."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


def find_by_z(values: Values, *, window: int, threshold: float) -> Iterator[int]:
    """Positions that are over so many standard deviations off the mean of the finite values before them."""
    for at in range(window, len(values)):
        before = values[at - window : at]
        before = before[np.isfinite(before)]
        if len(before) >= window // 2 and math.isfinite(values[at]):
            spread = float(before.std(ddof=1))
            if abs(values[at] - before.mean()) > threshold * spread > 0:
                yield at


def apply_wandb_z(stream: KLStream) -> Iterator[int]:
    """W&B automation, z-score preset: |z| > 3 against the last 30 steps."""
    return find_by_z(stream.values, window=30, threshold=3)


def apply_z_of_log(stream: KLStream) -> Iterator[int]:
    """The same on log KL; what is not positive reads as a tenth of the smallest positive value so far."""
    return find_by_z(take_log(stream.values), window=30, threshold=3)


def take_log(values: Values) -> Values:
    """Log with a causal floor."""
    positive = np.where(np.isfinite(values) & (values > 0), values, np.inf)
    floor = np.minimum.accumulate(positive) / 10
    floor = np.where(np.isfinite(floor), floor, 1.0)
    return np.asarray(np.where(np.isfinite(values), np.log(np.maximum(np.nan_to_num(values, posinf=1, neginf=-1), floor)), np.nan))


def apply_wandb_change(stream: KLStream) -> Iterator[int]:
    """W&B automation, change preset: the mean of the last 10 steps is over 50% off that of the 50 before."""
    values = stream.values
    for at in range(59, len(values)):
        now, before = (part[np.isfinite(part)] for part in (values[at - 9 : at + 1], values[at - 59 : at - 9]))
        if len(now) and len(before) and abs(now.mean() - before.mean()) > 0.5 * abs(before.mean()) > 0:
            yield at


def apply_robust_z(stream: KLStream) -> Iterator[int]:
    """Modified z over 3.5 on d = sqrt(KL) against median and MAD of the last 20 steps; floor 1/sqrt(2B) for k1, else 0.01."""
    distances = np.sqrt(np.maximum(stream.values, 0))
    is_k1 = stream.estimator == "k1" and stream.unit == "nats_per_sequence" and stream.batch_size
    floor = 1 / math.sqrt(2 * stream.batch_size) if is_k1 and stream.batch_size else 0.01
    for at in range(10, len(distances)):
        before = distances[max(at - 20, 0) : at]
        before = before[np.isfinite(before)]
        if len(before) >= 10 and math.isfinite(distances[at]):
            middle = float(np.median(before))
            if abs(distances[at] - middle) > MODIFIED_Z * max(1.4826 * float(np.median(np.abs(before - middle))), floor):
                yield at


def apply_page_hinkley(stream: KLStream) -> Iterator[int]:
    """river.drift.PageHinkley as it comes."""
    return _find_drift(_import("river.drift").PageHinkley(), stream.values)


def apply_adwin(stream: KLStream) -> Iterator[int]:
    """river.drift.ADWIN as it comes."""
    return _find_drift(_import("river.drift").ADWIN(), stream.values)


def _find_drift(detector: Any, values: Values) -> Iterator[int]:
    for at, value in enumerate(values):
        if math.isfinite(value):
            detector.update(float(value))
            if detector.drift_detected:
                yield at


def apply_pelt(stream: KLStream) -> Iterator[int]:
    """PELT with l2 cost, penalty 3 log n, on log KL over the robust sd of its differences. It sees the whole run at once.

    ruptures' KernelCPD with a linear kernel is its Pelt(model="l2", jump=1) written in C.
    """
    logs = take_log(stream.values)
    finite = np.flatnonzero(np.isfinite(logs))
    values = logs[finite]
    differences = np.diff(values)
    spread = 1.4826 * float(np.median(np.abs(differences - np.median(differences)))) / math.sqrt(2)
    fitted = _import("ruptures").KernelCPD(kernel="linear", min_size=2).fit((values / max(spread, 1e-9)).reshape(-1, 1))
    yield from (int(finite[end]) for end in fitted.predict(pen=3 * math.log(len(values)))[:-1])


def _import(name: str) -> Any:
    return importlib.import_module(name)


PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("W&B z(30) > 3", apply_wandb_z),
        Peer("W&B change 10 / 50 > 50%", apply_wandb_change),
        Peer("z(30) > 3 of log KL", apply_z_of_log),
        Peer("robust z(20) > 3.5 of d, floor", apply_robust_z),
        Peer("river PageHinkley", apply_page_hinkley, needs="river"),
        Peer("river ADWIN", apply_adwin, needs="river"),
        Peer("ruptures PELT (offline)", apply_pelt, needs="ruptures"),
    )
}
