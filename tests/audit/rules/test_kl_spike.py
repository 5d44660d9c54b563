"""Spikes that keep coming, told from spikes that do not."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from klaudit.audit import Policy, audit_run
from klaudit.audit.policy import RuleSettings
from klaudit.audit.rules.kl_spike import MOST_NAMED, KLSpikeParameters
from klaudit.records import Finding, KLSeries, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
K3 = KLSeries(estimator="k3", unit="nats_per_token")


def make_steps(build_step: BuildStep, *, n: int, spikes: Iterable[int], every: int = 1, **fields: Any) -> list[StepRecord]:
    """`n` readings around 0.5 that scatter by 5%, with 2.0 at the indices of `spikes`, a reading every `every` steps."""
    kl = 0.5 * np.exp(0.05 * np.random.default_rng(1).standard_normal(n))
    kl[list(spikes)] = 2.0
    return [build_step(every * index, float(one), **fields) for index, one in enumerate(kl)]


def find_spikes(run: Run, steps: Iterable[StepRecord], **parameters: Any) -> list[Finding]:
    alone = Policy(rules={"KLA202": RuleSettings(parameters=KLSpikeParameters(**parameters))})
    return list(audit_run(run, steps, policy=alone).findings)


def test_the_third_spike_is_told_as_soon_as_it_is_back(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = make_steps(build_step, n=80, spikes=(30, 45, 60))
    assert find_spikes(build_run(), steps[:61]) == []
    (finding,) = find_spikes(build_run(), steps)
    assert (finding.severity, finding.first_step, finding.detected_step, finding.series) == ("warning", 30, 61, "kl")
    assert finding.message == "3 spikes of KL to reference (full, nats/sequence) within 100 steps, at steps 30, 45 and 60."
    assert (finding.value, finding.threshold, finding.unit) == (3.0, 3.0, "spikes")
    assert finding.evidence == {"steps": [30, 45, 60], "window_steps": 100}


def test_spikes_that_go_on_are_one_finding_that_counts_them(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = make_steps(build_step, n=200, spikes=range(20, 190, 12))
    (finding,) = find_spikes(build_run(), steps)
    assert (finding.first_step, finding.last_step, finding.value) == (20, 189, 9.0)
    assert finding.message.startswith("9 spikes ")


def test_a_long_list_of_spikes_names_the_latest_ten(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_spikes(build_run(), make_steps(build_step, n=180, spikes=range(20, 170, 12)), window_steps=1000)
    assert MOST_NAMED == 10
    assert finding.message.endswith("within 1000 steps, the latest at steps 56, 68, 80, 92, 104, 116, 128, 140, 152 and 164.")
    assert finding.evidence["steps"] == list(range(20, 170, 12))


def test_the_window_is_one_of_steps_and_not_of_readings(build_run: BuildRun, build_step: BuildStep) -> None:
    assert find_spikes(build_run(), make_steps(build_step, n=80, spikes=(30, 45, 60), every=10)) == []
    assert len(find_spikes(build_run(), make_steps(build_step, n=80, spikes=(30, 45, 60), every=10), window_steps=400)) == 1


def test_the_remedy_names_k3_only_where_k3_is_logged(build_run: BuildRun, build_step: BuildStep) -> None:
    (full,) = find_spikes(build_run(), make_steps(build_step, n=80, spikes=(30, 45, 60)))
    (k3,) = find_spikes(build_run(series={"kl": K3}), make_steps(build_step, n=80, spikes=(30, 45, 60), series=K3))
    assert ("k3" in full.remedy, "k3" in k3.remedy) == (False, True)


def test_spikes_of_two_segments_are_counted_apart(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [replace(one, segment=one.step // 100) for one in make_steps(build_step, n=200, spikes=(50, 70, 120, 140))]
    assert find_spikes(build_run(), steps) == []
    assert len(find_spikes(build_run(), steps, warning_spikes=2)) == 2


@pytest.mark.parametrize("n_high", [4, 10])
def test_jumps_that_stay_are_no_spikes(build_run: BuildRun, build_step: BuildStep, n_high: int) -> None:
    spikes = [start + index for start in (30, 50, 70) for index in range(n_high)]
    assert find_spikes(build_run(), make_steps(build_step, n=90, spikes=spikes)) == []
