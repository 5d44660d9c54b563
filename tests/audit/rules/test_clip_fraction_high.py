from collections.abc import Callable

import numpy as np
import pytest

from klaudit.audit import audit_run
from klaudit.records import Finding, Run, Severity, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]


def find_clipped(run: Run, steps: list[StepRecord]) -> list[Finding]:
    return [finding for finding in audit_run(run, steps).findings if finding.code == "KLA503"]


def test_healthy_fractions_up_to_a_fifth_never_warn(build_run: BuildRun, build_step: BuildStep) -> None:
    fractions = np.random.default_rng(61).beta(2, 12, 3000).tolist()
    assert find_clipped(build_run(), [build_step(step, 0.1, metrics={"clip_fraction": one}) for step, one in enumerate(fractions)]) == []


def test_a_new_segment_counts_from_the_start(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [build_step(step, 0.1, segment=step // 4, metrics={"clip_fraction": 0.4}) for step in range(8)]
    assert find_clipped(build_run(), steps) == []


def test_evidence_holds_the_steps_that_were_judged(build_run: BuildRun, build_step: BuildStep) -> None:
    fractions = [0.1, 0.6, 0.6, 0.7, 0.6, 0.8]
    (finding,) = find_clipped(build_run(), [build_step(step, 0.1, metrics={"clip_fraction": one}) for step, one in enumerate(fractions)])
    assert (finding.severity, finding.first_step, finding.detected_step) == (Severity.CRITICAL, 1, 5)
    assert finding.evidence["window"]["clip_fraction"] == pytest.approx(fractions)
    assert finding.evidence["n_steps"] == 5
