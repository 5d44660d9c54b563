"""Healthy KL series as logs print them, for the rules whose false alarms come of rounding."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.random import Generator

from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule
from klaudit.records import Finding, KLReading, KLSeries, Run, Severity, StepRecord

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
PER_TOKEN = KLSeries(estimator="k1", unit="nats_per_token")
RUN = Run(id="r1", name="rounded", started_at=NOW, series={"kl": PER_TOKEN})
N_STEPS = 400


def draw_series(rng: Generator, *, decimals: int) -> list[float]:
    """400 values in nats per token, of a growing or a level run, with autocorrelated Student-t noise, as a log of so many decimals prints them."""
    steps = np.arange(N_STEPS)
    growths = (
        1 - np.exp(-steps / rng.uniform(20, 120)),
        steps / N_STEPS,
        1 / (1 + np.exp(-(steps - rng.uniform(0.15, 0.6) * N_STEPS) / rng.uniform(15, 50))),
        np.ones(N_STEPS),
        (steps / N_STEPS) ** rng.uniform(1.2, 2),
    )
    growth = growths[rng.integers(len(growths))]
    share = rng.choice([0.0, 0.4, 0.8, 0.94])
    shocks = rng.standard_t(6, N_STEPS) * math.sqrt(4 / 6 * (1 - share**2))
    noise = np.zeros(N_STEPS)
    for step in range(1, N_STEPS):
        noise[step] = share * noise[step - 1] + shocks[step]
    sd = math.exp(rng.uniform(math.log(0.03), math.log(0.3)))
    values = rng.uniform(0.05, 0.35) * growth * np.exp(sd * noise) + rng.normal(0, 3e-4, N_STEPS)
    return [float(value) for value in np.round(values, decimals)]


def judge(rule: Rule[Any], values: Sequence[float]) -> list[Finding]:
    """The findings of one rule at warning or above, in the order in which they were detected."""
    findings: dict[str, Finding] = {}
    for observation in observe(values):
        findings |= {finding.id: finding for finding in rule.observe(observation)}
    return [finding for finding in findings.values() if finding.severity != Severity.INFO]


def observe(values: Sequence[float]) -> Iterator[Observation]:
    """Values as steps from 0 on."""
    for step, value in enumerate(values):
        record = StepRecord(step=step, kl=KLReading(PER_TOKEN, value), logged_at=NOW)
        yield Observation(record, record.kl, {})
