"""A session and its steps, as a journal has them."""

import math
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from klaudit.records import KLBudget, KLReading, KLSeries, Run, StepRecord, TextSample, TokenScore
from klaudit.records.session import Session
from klaudit.store.journal.content import read_journal
from klaudit.store.journal.writer import Journal

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


K1 = KLSeries(estimator="k1", unit="nats_per_sequence", temperature=0.7, source_key="objective/kl")


UPDATE = KLSeries(kind="update", estimator="k2", unit="nats_per_token")


def make_session(**known: object) -> Session:
    run = Run(id="r1", name="demo", started_at=NOW, series={"kl": K1}, beta=math.inf, config={"lr": 1e-5, "nested": {"a": [1, "x"]}})
    session = Session("s1", run, NOW, host="here", pid=os.getpid(), budgets=(KLBudget(1.0, "nats_per_sequence", owner="me"),))
    return replace(session, **known)  # type: ignore[arg-type]


def make_step(step: int, kl: float = 0.1) -> StepRecord:
    readings = {"kl_update": KLReading(UPDATE, 0.01, None, 16, 24.0)}
    return StepRecord(step, KLReading(K1, kl, 0.01, 16), NOW, beta=0.05, score=-math.inf, readings=readings, metrics={"entropy": 2.0})


SAMPLE = TextSample(3, "The film was", " good\n\x00\ud800", (TokenScore(" good", -0.1, -2.0, 0.5),), 0, 1, 0.4)


def write_steps(journal: Journal, *steps: int) -> list[bool]:
    with journal.lock:
        return [journal.append_step(make_step(step), ()) for step in steps]


def read_steps(path: Path) -> list[int]:
    return [entry[1] for entry in read_journal(path).entries if entry[0] == "step"]
