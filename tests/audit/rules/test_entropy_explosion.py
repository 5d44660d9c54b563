"""Planted explosions and healthy wander, simulated."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from klaudit.audit import Policy, audit_run
from klaudit.audit.policy import RuleSettings
from klaudit.audit.rules.entropy_explosion import EntropyExplosionParameters
from klaudit.records import Finding, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
Series = NDArray[np.float64]

ALONE = Policy(rules={"KLA604": RuleSettings(parameters=EntropyExplosionParameters())})


def find_explosions(build_run: BuildRun, build_step: BuildStep, entropy: Series) -> list[Finding]:
    steps = [build_step(step, None, metrics={"entropy": value}) for step, value in enumerate(entropy.tolist())]
    return list(audit_run(build_run(), steps, policy=ALONE).findings)


def make_healthy(n: int, rng: Generator) -> Series:
    """Entropy that falls slowly or wanders by up to a quarter, with 1 to 15% noise."""
    wander = 1 + rng.uniform(0, 0.25) * np.sin(np.arange(n) / rng.uniform(15, 80) + rng.uniform(0, 6))
    noise = np.exp(rng.uniform(0.01, 0.15) * rng.standard_t(5, size=n) / np.sqrt(5 / 3))
    return np.asarray(rng.uniform(0.3, 3.5) * wander * rng.uniform(0.6, 1.0) ** (np.arange(n) / n) * noise)


def test_rises_to_twice_or_more_within_twenty_steps_are_found_within_twenty(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(1)
    delays = []
    for _ in range(80):
        onset, times, n_steps = int(rng.integers(25, 120)), rng.uniform(2, 4), int(rng.integers(10, 21))
        progress = np.clip((np.arange(onset + 30) - onset + 1) / n_steps, 0, 1)
        found = find_explosions(build_run, build_step, make_healthy(onset + 30, rng) * times**progress)
        delays.append(min((one.detected_step - onset for one in found if one.detected_step >= onset), default=99))
    assert np.mean(np.array(delays) <= 20) >= 0.95
    assert np.median(delays) <= 12


def test_healthy_runs_give_nothing_in_ten_thousand_steps(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(2)
    assert [one.message for _ in range(40) for one in find_explosions(build_run, build_step, make_healthy(250, rng))] == []


def test_a_slow_rise_ends_once_it_no_longer_rises(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(3)
    entropy = np.clip(1 + np.arange(300) / 120, None, 2) * np.exp(rng.normal(0, 0.03, size=300))
    (finding,) = find_explosions(build_run, build_step, entropy)
    assert (finding.status, finding.last_step < 190) == ("ended", True)
