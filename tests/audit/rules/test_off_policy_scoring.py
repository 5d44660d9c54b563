import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from klaudit.audit import AuditEngine, audit_run
from klaudit.audit.rules.off_policy_scoring import OffPolicyScoring
from klaudit.records import Finding, KLSeries, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
Judge = Callable[..., list[Finding]]
Numbers = NDArray[np.float64]
PER_TOKEN = KLSeries(estimator="full", unit="nats_per_token")


def find_wrong(
    judge_alone: Judge, build_run: BuildRun, build_step: BuildStep, logged: Iterable[Mapping[str, float]], *, kl: float
) -> list[Finding]:
    steps = [build_step(step, kl, series=PER_TOKEN, metrics=metrics) for step, metrics in enumerate(logged)]
    return judge_alone(OffPolicyScoring, build_run(series={"kl": PER_TOKEN}), steps)


@pytest.mark.parametrize("n_sequences", [12, 64])
def test_honest_sampling_warns_on_fewer_than_one_step_in_ten_thousand(
    build_run: BuildRun, build_step: BuildStep, judge_alone: Judge, n_sequences: int
) -> None:
    rng, n = np.random.default_rng(41), 6000
    logged = []
    for _ in range(n):
        # Log-normal of mean 1 and log variance 2 KL per sequence of 12 tokens: skewed, as ratios are; surprisals are right-skewed too.
        ratios = 1 + (rng.lognormal(-0.05, math.sqrt(0.1), n_sequences) - 1) / math.sqrt(12)
        gaps = rng.gamma(4.0, 0.5, n_sequences) - 2
        logged.append(summarise("reference_ratio", ratios) | summarise("surprisal_gap", gaps))
    findings = find_wrong(judge_alone, build_run, build_step, logged, kl=0.05)
    assert 1000 * len(findings) / n < 0.1


def summarise(name: str, values: Numbers) -> dict[str, float]:
    """Mean and standard error, as a trainer logs them."""
    return {name: float(values.mean()), f"{name}_se": float(values.std(ddof=1) / math.sqrt(len(values)))}


@pytest.mark.parametrize(("top_k", "temperature", "within"), [(20, 1.0, 4), (0, 1.2, 12), (0, 0.8, 12)])
def test_sampling_that_is_not_what_scores_is_found_without_any_drift(
    build_run: BuildRun, build_step: BuildStep, judge_alone: Judge, top_k: int, temperature: float, within: int
) -> None:
    rng = np.random.default_rng(42)
    logged = [simulate_step(rng, top_k=top_k if step >= 10 else 0, temperature=temperature if step >= 10 else 1.0) for step in range(24)]
    (finding,) = find_wrong(judge_alone, build_run, build_step, logged, kl=0.0)
    assert finding.series == "surprisal_gap"
    assert 10 <= finding.detected_step < 10 + within
    assert math.copysign(1, finding.evidence["window"]["excess"][-1]) == (1 if temperature > 1 else -1)


def simulate_step(rng: np.random.Generator, *, top_k: int, temperature: float) -> dict[str, float]:
    """12 texts of 12 tokens from a random language model of 300 tokens, sampled one way and scored with the whole vocabulary at temperature 1."""
    logits = rng.normal(0, 2.5, (12 * 12, 300))
    scored = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    sampled = np.exp(scored / temperature)
    if top_k:
        sampled[scored < np.sort(scored, axis=1)[:, [-top_k]]] = 0
    sampled /= sampled.sum(axis=1, keepdims=True)
    tokens = (sampled.cumsum(axis=1) > rng.random((len(sampled), 1))).argmax(axis=1)
    surprisal = -scored[np.arange(len(tokens)), tokens]
    entropy = -(np.exp(scored) * scored).sum(axis=1)
    return summarise("surprisal_gap", (surprisal - entropy).reshape(12, 12).mean(axis=1))


def test_the_probe_and_the_trainer_are_told_apart(build_run: BuildRun, build_step: BuildStep, judge_alone: Judge) -> None:
    honest = {"reference_ratio": 1.0, "reference_ratio_se": 0.01}
    logged = [honest | {"probe_mean_ratio": 0.9, "probe_mean_ratio_se": 0.01}] * 6
    (finding,) = find_wrong(judge_alone, build_run, build_step, logged, kl=0.02)
    assert (finding.series, "of the probe was 0.9" in finding.message) == ("probe_mean_ratio", True)


def test_an_episode_ends_where_sampling_is_honest_again(build_run: BuildRun, build_step: BuildStep, judge_alone: Judge) -> None:
    wrong, right = {"surprisal_gap": -0.8, "surprisal_gap_se": 0.1}, {"surprisal_gap": 0.01, "surprisal_gap_se": 0.1}
    (finding,) = find_wrong(judge_alone, build_run, build_step, [wrong] * 8 + [right] * 20, kl=0.02)
    assert (finding.status, finding.detected_step) == ("ended", 2)
    assert finding.last_step <= 15


def test_what_a_live_engine_finds_is_what_the_audit_of_its_steps_finds(
    build_run: BuildRun, build_step: BuildStep, judge_alone: Judge
) -> None:
    rng, run = np.random.default_rng(43), build_run(series={"kl": PER_TOKEN})
    steps = []
    for step in range(40):
        metrics = simulate_step(rng, top_k=20 if 12 <= step < 25 else 0, temperature=1.0)
        steps.append(build_step(step, 0.01, series=PER_TOKEN, metrics=metrics))
    engine = AuditEngine(run)
    for n, record in enumerate(steps, start=1):
        engine.observe(record)
        assert engine.findings == audit_run(run, steps[:n]).findings
    assert [one.code for one in engine.findings if one.code == "KLA704"] == ["KLA704"]
