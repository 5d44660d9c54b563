from collections.abc import Callable

from klaudit.audit import audit_run
from klaudit.records import Finding, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]


def find_ratios(run: Run, steps: list[StepRecord]) -> list[Finding]:
    return [finding for finding in audit_run(run, steps).findings if finding.code == "KLA502"]


def test_mean_and_largest_ratio_are_findings_of_their_own(build_run: BuildRun, build_step: BuildStep) -> None:
    metrics = {"ratio": 2.5, "ratio_max": 5e8}
    told = {one.series: (one.value, one.threshold) for one in find_ratios(build_run(), [build_step(1, 0.1, metrics=metrics)])}
    assert told == {"ratio": (2.5, 2.0), "ratio_max": (5e8, 1000.0)}


def test_an_episode_tells_of_its_worst_step_and_ends_three_steps_later(build_run: BuildRun, build_step: BuildStep) -> None:
    ratios = [1.0, 2.1, 7.0, 3.0, 1.0, 1.0, 1.0, 2.2]
    first, second = find_ratios(build_run(), [build_step(step, 0.1, metrics={"ratio": ratio}) for step, ratio in enumerate(ratios)])
    assert (first.detected_step, first.last_step, first.value, first.status) == (1, 3, 7.0, "ended")
    assert (second.detected_step, second.status) == (7, "open")
