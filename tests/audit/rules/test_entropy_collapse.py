"""Planted collapses and healthy declines, simulated: recall, delay and false alarms."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from klaudit.audit import Policy, audit_run
from klaudit.audit.policy import RuleSettings
from klaudit.audit.rules.entropy_collapse import EntropyCollapseParameters
from klaudit.records import Finding, Run, Severity, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
Series = NDArray[np.float64]

ALONE = Policy(rules={"KLA603": RuleSettings(parameters=EntropyCollapseParameters())})


def find_collapses(build_run: BuildRun, build_step: BuildStep, entropy: Series, *, distinct: Series | None = None) -> list[Finding]:
    columns = {"entropy": entropy} if distinct is None else {"entropy": entropy, "distinct_2": distinct}
    steps = [build_step(step, None, metrics={name: float(one[step]) for name, one in columns.items()}) for step in range(len(entropy))]
    return list(audit_run(build_run(), steps, policy=ALONE).findings)


def make_noise(n: int, rng: Generator, *, sd: float, most_alike: float = 0.6) -> Series:
    """Factors of Student-t noise of five degrees of freedom, autocorrelated by up to `most_alike`."""
    phi, noise, last = rng.uniform(0, most_alike), np.empty(n), 0.0
    for step, shock in enumerate(rng.standard_t(5, size=n) / np.sqrt(5 / 3)):
        last = phi * last + np.sqrt(1 - phi**2) * shock
        noise[step] = last
    return np.exp(sd * noise)


def make_healthy(n: int, rng: Generator) -> Series:
    """Entropy that falls slowly to 60 to 90% of its start, with 1 to 10% noise."""
    end, pace = rng.uniform(0.6, 0.9), rng.choice([30, 100, 400])
    level = rng.uniform(0.2, 3.5) * (end + (1 - end) * np.exp(-np.arange(n) / pace))
    return np.asarray(level * make_noise(n, rng, sd=float(np.exp(rng.uniform(np.log(0.01), np.log(0.1))))))


def plant_collapse(entropy: Series, rng: Generator, *, onset: int) -> Series:
    """A fall to 10 to 30% within 10 to 20 steps, in a straight line, by a constant share, or fast at first."""
    left, n_steps, shape = rng.uniform(0.1, 0.3), int(rng.integers(10, 21)), rng.integers(3)
    progress = np.clip((np.arange(len(entropy)) - onset + 1) / n_steps, 0, 1)
    shares = (1 + (left - 1) * progress, left**progress, left + (1 - left) * np.exp(-3 * progress))
    return np.asarray(entropy * shares[shape])


def test_collapses_within_twenty_steps_are_found_within_twenty(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(603)
    delays = []
    for _ in range(100):
        onset = int(rng.integers(25, 120))
        entropy = plant_collapse(make_healthy(onset + 30, rng), rng, onset=onset)
        told = [one for one in find_collapses(build_run, build_step, entropy) if one.severity.rank >= Severity.WARNING.rank]
        delays.append(min((one.detected_step - onset for one in told if one.detected_step >= onset), default=99))
    assert np.mean(np.array(delays) <= 20) >= 0.95
    assert np.median(delays) <= 12


def test_healthy_declines_give_no_warning_in_ten_thousand_steps(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(604)
    found = [one for _ in range(40) for one in find_collapses(build_run, build_step, make_healthy(250, rng))]
    assert [one.message for one in found if one.severity.rank >= Severity.WARNING.rank] == []


def test_runs_that_halve_slowly_are_told_as_info_alone(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(605)
    for _ in range(10):
        entropy = 0.3 * np.exp(-np.arange(400) / 250) * make_noise(400, rng, sd=0.1)
        assert {one.severity for one in find_collapses(build_run, build_step, entropy)} == {Severity.INFO}


def test_a_run_at_five_hundredths_of_a_nat_with_two_groups_a_step_is_quiet(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(606)
    found = [one for _ in range(10) for one in find_collapses(build_run, build_step, 0.05 * make_noise(250, rng, sd=0.5, most_alike=0.3))]
    assert [one.message for one in found if one.severity.rank >= Severity.WARNING.rank] == []


def test_repetition_makes_one_finding_and_not_two(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(607)
    shares = np.clip(1 - 0.03 * np.clip(np.arange(80) - 30, 0, None), 0.1, 1)
    entropy = 3 * shares * make_noise(80, rng, sd=0.03)
    (finding,) = [
        one
        for one in find_collapses(build_run, build_step, entropy, distinct=0.95 * shares**2)
        if one.severity.rank >= Severity.WARNING.rank
    ]
    assert (finding.severity, finding.status) == (Severity.CRITICAL, "open")
    assert finding.evidence["distinct_2"]["level"] < 0.5 * finding.evidence["distinct_2"]["start"]


def test_the_evidence_is_enough_to_judge_again(build_run: BuildRun, build_step: BuildStep) -> None:
    rng = np.random.default_rng(608)
    entropy = plant_collapse(2 * make_noise(80, rng, sd=0.03), rng, onset=50)
    (finding,) = find_collapses(build_run, build_step, entropy)
    window = finding.evidence["window"]
    assert len(window["steps"]) == len(window["values"]) == 40
    assert np.allclose(window["values"], entropy[window["steps"]])
    assert finding.value == np.median(window["values"][-3:])
    assert finding.value < finding.evidence["limits"]["fall"] * finding.evidence["before"]
    assert 50 <= finding.first_step < finding.detected_step
