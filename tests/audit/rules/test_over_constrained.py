import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from klaudit.audit import audit_run
from klaudit.records import Finding, KLBudget, KLSeries, Run, StepRecord
from klaudit.records.series import Unit

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
SEQUENCE: Unit = "nats_per_sequence"


def find_pinned(run: Run, steps: Iterable[StepRecord], budgets: Iterable[KLBudget] = ()) -> list[Finding]:
    return [finding for finding in audit_run(run, steps, budgets=list(budgets)).findings if finding.code == "KLA608"]


def pin(
    build_step: BuildStep, *, kl: float = 0.001, beta: float | None = 8.0, n: int = 60, rise: float = 0.0, **fields: Any
) -> list[StepRecord]:
    metrics = fields.pop("metrics", {"score_std": 0.3})
    return [
        build_step(
            at, kl * (1 + 0.1 * math.sin(at)), beta=beta, score=0.2 + 0.02 * math.sin(2.5 * at) + rise * at, metrics=metrics, **fields
        )
        for at in range(1, n + 1)
    ]


def test_a_penalty_that_leaves_no_room_is_named_with_a_beta_that_does(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_pinned(build_run(), pin(build_step))
    assert (finding.severity, finding.first_step, finding.detected_step) == ("warning", 1, 50)
    assert (
        "at beta 8 reward/nat and a score that differs by 0.3 reward even the best policy would reach only 0.0007 nats/sequence"
        in finding.message
    )
    assert finding.evidence["proposed_beta"] == pytest.approx(0.3 / math.sqrt(2))
    assert "a KL of 1 nats/sequence would be reached at 0.21 reward/nat" in finding.remedy


def test_the_best_policy_under_the_proposed_beta_has_the_kl_of_the_budget(build_run: BuildRun, build_step: BuildStep) -> None:
    """The optimum of E[r] - beta KL over tilts of a normal reward, by search."""
    (finding,) = find_pinned(build_run(), pin(build_step), [KLBudget(2.0, SEQUENCE)])
    beta = finding.evidence["proposed_beta"]
    # Tilting by lambda shifts the mean of N(0, s^2) by lambda s^2 and costs lambda^2 s^2 / 2 nats.
    best = max((tilt / 1000 for tilt in range(1, 30_000)), key=lambda tilt: tilt * 0.09 - beta * tilt**2 * 0.09 / 2)
    assert best**2 * 0.09 / 2 == pytest.approx(2.0, rel=1e-2)
    assert "the budget of 2 nats/sequence" in finding.remedy


def test_a_budget_in_tokens_is_taken_by_the_mean_length(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_pinned(build_run(), pin(build_step, mean_length=50.0), [KLBudget(0.1, "nats_per_token")])
    assert finding.evidence["for_kl"] == pytest.approx(5.0)


def test_under_a_wide_budget_more_kl_counts_as_pinned(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = pin(build_step, kl=0.2, beta=0.4)
    assert not find_pinned(build_run(), steps)
    assert len(find_pinned(build_run(), steps, [KLBudget(10.0, SEQUENCE)])) == 1


def test_a_spread_worked_out_from_batch_means_is_info(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_pinned(build_run(batch_size=16), pin(build_step, metrics={}))
    assert finding.severity == "info"
    assert "(worked out from batch means)" in finding.message


@pytest.mark.parametrize(
    "steps",
    [
        {"beta": 0.05},
        {"kl": 0.5},
        {"rise": 0.01},
        {"metrics": {"score_std": 0.0}},
        {"metrics": {"score_std": 0.3, "learning_rate": 0.0}},
        {"beta": 0.0},
        {"n": 49},
    ],
    ids=["beta leaves room", "it drifts", "it learns", "nothing to learn", "learning rate 0", "no penalty", "too short"],
)
def test_a_run_that_is_held_by_something_else_is_left_alone(build_run: BuildRun, build_step: BuildStep, steps: dict[str, Any]) -> None:
    assert not find_pinned(build_run(batch_size=16), pin(build_step, **steps))


def test_a_beta_that_steps_do_not_log_is_the_runs(build_run: BuildRun, build_step: BuildStep) -> None:
    assert len(find_pinned(build_run(beta=8.0), pin(build_step, beta=None))) == 1


def test_a_run_without_what_it_needs_gets_a_reason(build_run: BuildRun, build_step: BuildStep) -> None:
    per_token = KLSeries(estimator="k1", unit="nats_per_token")
    result = audit_run(build_run(series={"kl": per_token}), pin(build_step, series=per_token))
    reasons = [one.why for one in result.coverage.rules_not_run if one.code == "KLA608"]
    assert reasons == ["needs 50 steps of one segment with a KL per sequence, a score and a beta above 0; the most was 0"]


def test_an_episode_ends_once_the_policy_moves(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [*pin(build_step, n=60), *(build_step(at, 2.0, beta=0.01, score=0.3, metrics={"score_std": 0.3}) for at in range(61, 140))]
    (finding,) = find_pinned(build_run(), steps)
    assert (finding.status, finding.last_step) == ("ended", 60)
