"""Planted length explosions and healthy wander, simulated: recall, delay and false alarms."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from klaudit.audit import Policy, audit_run
from klaudit.audit.policy import RuleSettings
from klaudit.audit.rules.length_drift import LengthDriftParameters, correlate
from klaudit.records import Finding, Run, Severity, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
Series = NDArray[np.float64]

ALONE = Policy(rules={"KLA605": RuleSettings(parameters=LengthDriftParameters())})


def find_drifts(build_run: BuildRun, build_step: BuildStep, lengths: Series, *, least: Severity = Severity.WARNING) -> list[Finding]:
    steps = [build_step(step, None, metrics={"response_length": value}) for step, value in enumerate(lengths.tolist())]
    return [one for one in audit_run(build_run(), steps, policy=ALONE).findings if one.severity.rank >= least.rank]


def make_healthy(n: int, rng: Generator) -> Series:
    """Lengths that wander by up to a quarter, with 2 to 30% noise of heavy tails."""
    wander = 1 + rng.uniform(0, 0.25) * np.sin(np.arange(n) / rng.uniform(15, 80) + rng.uniform(0, 6))
    sd = np.exp(rng.uniform(np.log(0.02), np.log(0.3)))
    return np.asarray(rng.choice([20, 50, 200, 600]) * wander * np.exp(sd * rng.standard_t(5, size=n) / np.sqrt(5 / 3)))


@pytest.mark.parametrize("times", [(2.0, 4.0), (0.1, 0.3)], ids=["longer", "shorter"])
def test_changes_within_twenty_steps_are_found_within_twenty(
    build_run: BuildRun, build_step: BuildStep, times: tuple[float, float]
) -> None:
    rng = np.random.default_rng(1)
    delays = []
    for _ in range(80):
        onset, factor, n_steps = int(rng.integers(25, 120)), rng.uniform(*times), int(rng.integers(10, 21))
        progress = np.clip((np.arange(onset + 30) - onset + 1) / n_steps, 0, 1)
        found = find_drifts(build_run, build_step, make_healthy(onset + 30, rng) * factor**progress)
        delays.append(min((one.detected_step - onset for one in found if one.detected_step >= onset), default=99))
    assert np.mean(np.array(delays) <= 20) >= 0.95
    assert np.median(delays) <= 12


def test_healthy_wander_gives_at_most_one_warning_in_ten_thousand_steps(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(2)
    assert sum(len(find_drifts(build_run, build_step, make_healthy(250, rng))) for _ in range(40)) <= 1


def test_the_mean_of_four_texts_is_quiet(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(3)
    lengths = rng.gamma(1.5, 100, size=(5000, 4)).mean(axis=1).reshape(20, 250)
    assert [one.message for run in lengths for one in find_drifts(build_run, build_step, run)] == []


def test_slow_growth_to_five_times_the_length_is_info(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(4)
    lengths = 400 * 5 ** (np.arange(500) / 500) * np.exp(rng.normal(0, 0.05, size=500))
    (finding,) = find_drifts(build_run, build_step, lengths, least=Severity.INFO)
    assert (finding.severity, finding.status) == (Severity.INFO, "open")
    assert finding.value == pytest.approx(1800, rel=0.1)


def test_the_correlation_is_that_of_numpy() -> None:
    rng = np.random.default_rng(5)
    scores, lengths = rng.normal(size=40), rng.normal(size=40)
    pairs = list(zip(scores.tolist(), lengths.tolist(), strict=True))
    assert correlate(pairs) == pytest.approx(np.corrcoef(scores, lengths)[0, 1])


def test_there_is_no_correlation_with_what_does_not_vary_or_is_beyond_floats() -> None:
    assert correlate([(1.0, float(step)) for step in range(20)]) is None
    assert correlate([(1e308 * (-1) ** step, float(step)) for step in range(20)]) is None
    assert correlate([(float(step), float(step)) for step in range(9)]) is None
