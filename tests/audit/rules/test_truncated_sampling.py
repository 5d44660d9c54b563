from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from klaudit.audit import audit_run
from klaudit.audit.rules.truncated_sampling import find_truncations
from klaudit.records import Finding, KLSeries, Run, Severity, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
WEIGHT = "rollout_corr/rollout_is_mean"


def find_cut(run: Run, steps: list[StepRecord]) -> list[Finding]:
    return [finding for finding in audit_run(run, steps).findings if finding.code == "KLA703"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"top_p": 0.9, "top_k": 50, "min_p": 0.05}, {"top_k": 50.0, "top_p": 0.9, "min_p": 0.05}),
        ({"top_p": 1.0, "top_k": 0, "min_p": None}, {}),
        ({"top_k": -1, "top_p": 1}, {}),
        ({"top_k": None, "top_p": "0.9", "min_p": True}, {}),
        ({"generation_kwargs": {"top_k": 40}}, {"top_k": 40.0}),
        ({"rollout_top_p": 0.7, "eval_top_p": 0.5}, {"top_p": 0.7}),
        ({"generator": {"sampling_params": {"top_p": 0.8}, "eval_sampling_params": {"top_k": 5}}}, {"top_p": 0.8}),
        ({"actor_rollout_ref.rollout.val_kwargs.top_k": 5, "actor_rollout_ref.rollout.min_p": 0.1}, {"min_p": 0.1}),
        ({"top_k": float("nan"), "stop_top_k": 4}, {}),
    ],
)
def test_truncations_are_found_by_the_last_name_of_training_settings(config: dict[str, Any], expected: dict[str, float]) -> None:
    assert find_truncations(config) == expected


def test_a_run_that_is_resumed_is_told_once(build_run: BuildRun, build_step: BuildStep) -> None:
    run = build_run(config={"top_k": 20}, series={"kl": KLSeries(estimator="k1", unit="nats_per_sequence")})
    steps = [build_step(step, 0.1, segment=step // 5) for step in range(15)]
    (finding,) = find_cut(run, steps)
    assert (finding.severity, finding.segment, finding.last_step, finding.status) == (Severity.WARNING, 0, 0, "ended")


def test_a_mean_weight_that_scatters_around_one_is_quiet_and_one_around_the_kept_mass_is_not(
    build_run: BuildRun, build_step: BuildStep
) -> None:
    rng = np.random.default_rng(51)
    healthy = [build_step(step, 0.1, metrics={WEIGHT: weight}) for step, weight in enumerate(rng.normal(0.997, 0.02, 2000).tolist())]
    assert find_cut(build_run(), healthy) == []
    cut = [build_step(step, 0.1, metrics={WEIGHT: weight}) for step, weight in enumerate(rng.normal(0.9, 0.02, 60).tolist())]
    (finding,) = find_cut(build_run(), cut)
    assert (finding.first_step, finding.detected_step, finding.severity) == (0, 19, Severity.WARNING)


def test_weights_of_whole_sequences_are_not_judged(build_run: BuildRun, build_step: BuildStep) -> None:
    run = build_run(config={"algorithm": {"rollout_correction": {"rollout_is": "sequence"}}})
    assert find_cut(run, [build_step(step, 0.1, metrics={WEIGHT: 0.6}) for step in range(40)]) == []
