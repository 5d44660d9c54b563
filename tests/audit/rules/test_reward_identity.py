import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from klaudit.audit.observation import Observation
from klaudit.audit.rules.reward_identity import RewardIdentity, RewardIdentityParameters
from klaudit.records import Finding, KLReading, KLSeries, Run, StepRecord

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
K1 = KLSeries(estimator="k1", unit="nats_per_sequence")
FULL = KLSeries(estimator="full", unit="nats_per_sequence")
RUN = Run(id="r1", name="identity", started_at=NOW, series={"kl": FULL, "kl_k1": K1})
N_STEPS = 200
Floats = NDArray[np.float64]


@dataclass
class Training:
    """Columns of a run; the penalty is made of k1, as in klaudit's own trainer, and `kl` is the full one."""

    kl: Floats
    kl_k1: Floats
    beta: Floats
    score: Floats
    penalty: Floats

    def observe(self, *, decimals: int) -> Iterator[Observation]:
        columns = zip(self.kl, self.kl_k1, self.beta, self.score, self.penalty, strict=True)
        for step, (kl, kl_k1, beta, score, penalty) in enumerate(columns):
            metrics = {"kl_penalty": round(float(penalty), decimals), "rlhf_reward": round(float(score - penalty), decimals)}
            record = StepRecord(
                step=step,
                kl=KLReading(FULL, round(float(kl), decimals)),
                readings={"kl_k1": KLReading(K1, round(float(kl_k1), decimals))},
                logged_at=NOW,
                beta=float(beta),
                score=round(float(score), decimals),
                metrics=metrics,
            )
            yield Observation(record, record.kl, {})


def draw_training(rng: Generator) -> Training:
    """A healthy run of 200 steps: saturating KL, beta fixed or steered, batches of 4 to 256 sequences."""
    steps = np.arange(N_STEPS)
    level = math.exp(rng.uniform(math.log(0.5), math.log(10)))
    kl = level * (1 - np.exp(-steps / rng.uniform(20, 100)))
    kl_k1 = kl + rng.normal(0, 1, N_STEPS) * np.sqrt(2 * kl / rng.choice([4, 16, 64, 256]))
    beta = np.full(N_STEPS, math.exp(rng.uniform(math.log(0.01), math.log(0.2))))
    if rng.random() < 0.5:
        for step in range(1, N_STEPS):
            beta[step] = beta[step - 1] * (1 + 0.02 * np.clip(kl_k1[step - 1] / level - 1, -0.2, 0.2))
    return Training(kl, kl_k1, beta, rng.normal(0.5, 0.1, N_STEPS) + steps / N_STEPS, beta * kl_k1)


def find_mismatches(training: Training, *, decimals: int) -> list[Finding]:
    rule = RewardIdentity(RUN, parameters=RewardIdentityParameters())
    findings: dict[str, Finding] = {}
    for observation in training.observe(decimals=decimals):
        findings |= {finding.id: finding for finding in rule.observe(observation)}
    return list(findings.values())


@pytest.mark.parametrize("decimals", [3, 4, 6, 12])
def test_a_healthy_run_has_no_mismatch_however_it_is_rounded(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    found = [finding for _ in range(60) for finding in find_mismatches(draw_training(rng), decimals=decimals)]
    assert not found, [finding.message for finding in found]


@pytest.mark.parametrize(("decimals", "share"), [(3, 0.85), (6, 1.0), (12, 1.0)])
def test_a_mismatch_of_five_to_fifty_percent_is_found_within_three_steps(decimals: int, share: float) -> None:
    rng = np.random.default_rng(20 + decimals)
    n_found = 0
    for _ in range(40):
        training = draw_training(rng)
        onset = int(rng.integers(40, 190))
        training.penalty[onset:] *= rng.choice([0.5, 0.7, 0.95, 1.05, 1.1, 1.3, 1.5])
        n_found += any(onset <= finding.detected_step < onset + 3 for finding in find_mismatches(training, decimals=decimals))
    assert n_found / 40 >= share


def test_the_penalty_is_held_against_the_kl_that_it_is_made_of() -> None:
    training = draw_training(np.random.default_rng(4))
    training.penalty[100:] *= 1.3
    (finding,) = find_mismatches(training, decimals=12)
    assert (finding.first_step, finding.detected_step, finding.severity) == (100, 101, "warning")
    assert "1.3 times beta x kl_k1" in finding.message
    assert finding.evidence["last_step_kept"] == 99


def test_a_penalty_of_a_kl_that_is_not_logged_is_not_judged() -> None:
    rng = np.random.default_rng(6)
    training = draw_training(rng)
    training.penalty *= np.exp(rng.normal(0, 0.3, N_STEPS))
    rule = RewardIdentity(RUN, parameters=RewardIdentityParameters())
    assert not [finding for observation in training.observe(decimals=12) for finding in rule.observe(observation)]
    assert list(rule.explain_silence()) == ["kl_penalty was not found to be a multiple of beta x KL, by any of kl, kl_k1"]
