import math
from collections.abc import Callable

import pytest

from klaudit.audit import audit_run
from klaudit.records import Finding, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]


def find_broken(run: Run, steps: list[StepRecord]) -> list[Finding]:
    return [finding for finding in audit_run(run, steps).findings if finding.code == "KLA303"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_any_non_finite_number_of_a_step_is_critical(build_run: BuildRun, build_step: BuildStep, number: float) -> None:
    steps = [
        build_step(1, number),
        build_step(1, 0.1, update=number),
        build_step(1, 0.1, beta=number),
        build_step(1, 0.1, score=number),
        build_step(1, 0.1, metrics={"grad_norm": number}),
    ]
    findings = [find_broken(build_run(), [step]) for step in steps]
    assert [(one.series, one.severity) for (one,) in findings] == [
        (name, "critical") for name in ("kl", "kl_update", "beta", "score", "grad_norm")
    ]


def test_one_stretch_of_steps_is_one_finding_that_lists_the_names(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [
        build_step(1, 0.1),
        build_step(2, 0.1, metrics={"grad_norm": math.inf}),
        build_step(3, math.nan, metrics={"grad_norm": math.nan}),
        *(build_step(step, 0.1) for step in (4, 5, 6)),
        build_step(7, math.nan),
    ]
    first, second = find_broken(build_run(), steps)
    assert (first.series, first.first_step, first.last_step, first.status) == ("grad_norm", 2, 3, "ended")
    assert first.evidence["names"] == {"grad_norm": "Infinity", "kl": "NaN"}
    assert first.message == "Non-finite numbers from step 2 to step 3, in grad_norm (Infinity), kl (NaN)."
    assert (second.first_step, second.status) == (7, "open")


def test_the_governing_series_names_the_finding(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_broken(build_run(), [build_step(1, math.nan, update=math.nan, beta=math.nan)])
    assert finding.series == "kl"


def test_absent_is_not_non_finite(build_run: BuildRun, build_step: BuildStep) -> None:
    result = audit_run(build_run(), [build_step(step, None) for step in range(5)])
    assert (result.coverage.non_finite, result.coverage.kl_measured, result.verdict) == (0, 0, "pass")


def test_no_other_rule_sees_a_non_finite_reading(build_run: BuildRun, build_step: BuildStep) -> None:
    clean = [build_step(step, 0.01 * step, se=0.001) for step in range(1, 40)]
    broken = [
        build_step(step, math.nan if step % 7 == 0 else math.inf, se=0.001) if step % 5 == 0 else clean[step - 1] for step in range(1, 40)
    ]
    assert {finding.code for finding in audit_run(build_run(), broken).findings} == {"KLA303"}
