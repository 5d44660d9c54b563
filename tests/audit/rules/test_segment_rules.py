"""KLA304, KLA401 and KLA403: what a run's segments tell."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from klaudit.audit import audit_run
from klaudit.records import Finding, Run, Segment, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


def make_segment(index: int, **known: Any) -> Segment:
    return Segment("r1", index, NOW, session=f"s{index}", **known)


def find(code: str, run: Run, segments: Sequence[Segment], steps: Sequence[StepRecord] = ()) -> list[Finding]:
    return [finding for finding in audit_run(run, steps, segments=segments).findings if finding.code == code]


def test_what_was_lost_is_one_finding_a_segment_with_its_exact_count(build_run: BuildRun) -> None:
    lossy = [
        make_segment(0, n_lost=3, lost_first_step=120, lost_last_step=122, lost_reason="no disk"),
        make_segment(1),
        make_segment(2, n_lost=1),
    ]
    first, second = sorted(find("KLA304", build_run(), lossy), key=lambda one: one.segment)
    assert (first.segment, first.first_step, first.detected_step, first.last_step, first.value, first.unit) == (
        0,
        120,
        120,
        122,
        3.0,
        "steps",
    )
    assert first.message == "3 steps of segment 0 were logged and are lost, between step 120 and step 122: no disk."
    assert second.message.startswith("1 step of segment 2 was logged and is lost: ")


def test_a_count_that_grows_revises_the_same_finding(build_run: BuildRun) -> None:
    (before,) = find("KLA304", build_run(), [make_segment(0, n_lost=1, lost_first_step=7, lost_last_step=7)])
    (after,) = find("KLA304", build_run(), [make_segment(0, n_lost=9, lost_first_step=7, lost_last_step=15)])
    assert (before.id, before.value, after.value) == (after.id, 1.0, 9.0)


def test_nothing_lost_is_no_finding(build_run: BuildRun) -> None:
    assert not find("KLA304", build_run(), [make_segment(0), make_segment(1)])


@pytest.mark.parametrize(
    ("digests", "changed"),
    [(["a", "a"], []), (["a", "b"], [1]), (["a", None, "a"], []), ([None, "a", "b"], [2]), (["a", "b", "a"], [1]), ([None, None], [])],
)
def test_another_reference_than_the_first_is_critical(build_run: BuildRun, digests: list[str | None], changed: list[int]) -> None:
    segments = [
        make_segment(index, reference_digest=digest and f"sha256:{digest}", resumed_from_step=10 * index)
        for index, digest in enumerate(digests)
    ]
    found = find("KLA401", build_run(), segments)
    assert [(one.segment, one.first_step, one.severity) for one in found] == [(index, 10 * index, "critical") for index in changed]


@pytest.mark.parametrize(
    ("before", "after", "is_reset"),
    [
        ([0.2, 0.16, 0.12], 0.2, True),
        ([0.2, 0.16, 0.12], 0.119, False),
        ([0.2, 0.2, 0.2], 0.2, False),
        ([0.2, 0.199], 0.2, False),
        ([0.2, 0.16, 0.12], 0.5, False),
        ([0.0, 0.1], 0.0, False),
    ],
)
def test_a_beta_that_starts_again_from_its_first_value_is_critical(
    build_run: BuildRun, build_step: BuildStep, before: list[float], after: float, is_reset: bool
) -> None:
    steps = [build_step(step, 0.1, beta=beta) for step, beta in enumerate(before, start=1)]
    steps.append(build_step(len(steps) + 1, 0.1, beta=after, segment=1))
    found = find("KLA403", build_run(), [], steps)
    assert [(one.segment, one.severity) for one in found] == [(1, "critical")] * is_reset
