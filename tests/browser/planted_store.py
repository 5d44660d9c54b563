"""A store with runs made by formula, for tests of the pages: nothing in it was measured."""

import math
import os
import random
import socket
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from klaudit.records import (
    Checkpoint,
    DriftMeasurement,
    Finding,
    KLBudget,
    KLReading,
    KLSeries,
    ReferenceModel,
    Run,
    Segment,
    Severity,
    StepRecord,
    TextSample,
    TokenScore,
    identify_finding,
)
from klaudit.records.run import RunStatus
from klaudit.records.session import Session
from klaudit.store import Store, open_store
from klaudit.store.journal.directories import list_journal_directories
from klaudit.store.journal.writer import Journal
from klaudit.store.process import describe_process_start

REFERENCE = ReferenceModel("SmolLM2-135M-Instruct", "sha256:" + "3f" * 32)
FULL = KLSeries("reference", "full", "nats_per_sequence", "batch_mean", temperature=1.0)
SERIES = {"kl": FULL, "kl_k1": replace(FULL, estimator="k1"), "kl_k3": replace(FULL, estimator="k3")}
SERIES["kl_update"] = KLSeries("update", "k2", "nats_per_token", "batch_mean")
HOSTILE_NAME = "![x](http://203.0.113.9/x.png) <b>bold</b>"
HOSTILE_NAME_SHOWN = HOSTILE_NAME.replace("http", "http\u2060")
"""As a page has it: what shows as nothing keeps the address from becoming a link."""
HOSTILE_TOKEN = '<img src="http://203.0.113.9/y.png" onerror="document.title=1">'
PROBED = {
    "kl": KLSeries("reference", "k3", "nats_per_token", "window_mean", temperature=0.9, source_key="kl"),
    "kl_probe": replace(FULL, temperature=0.9, source_key="klaudit.LiveProbe"),
    "kl_probe_k1": replace(FULL, estimator="k1", temperature=0.9, source_key="klaudit.LiveProbe"),
}
PROBE_EVERY = 10
OTHER_REFERENCE = "sha256:" + "a7" * 32
DEAD_PROCESS = 2**22 + 7
"""More than a process number can be on Linux."""
IDENTITY: Mapping[str, Any] = {
    "policy": {"name": REFERENCE.name, "class": "LlamaForCausalLM", "digest": REFERENCE.digest, "n_bytes": 538_090_408},
    "reference": {"name": REFERENCE.name, "class": "LlamaForCausalLM", "revision": "7e27bd9", "digest": REFERENCE.digest},
    "tokenizer": {"name": REFERENCE.name, "class": "GPT2TokenizerFast", "vocab_size": 49_152, "digest": "sha256:" + "b1" * 32},
    "trainer": {"class": "GRPOTrainer", "module": "trl.trainer.grpo_trainer"},
    "packages": {"klaudit": "0.3.0", "torch": "2.13.0", "transformers": "5.1.0", "trl": "1.16.0"},
    "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "branch": "main", "is_dirty": True, "remote": "git@host:team/rlhf.git"},
    "platform": {"python": "3.11.9", "system": "Linux"},
    "notes": ["chat_template: the tokenizer has none", "logging_steps is 5, so a step is the mean of 5 updates"],
}
WORDS = (
    " I",
    " loved",
    " this",
    " film",
    ",",
    " a",
    " truly",
    " wonderful",
    " and",
    " great",
    " story",
    ".\n",
    HOSTILE_TOKEN,
    " best",
    " best",
    " joy",
)


def write_planted_store(url: str, *, now: datetime) -> None:
    """Runs of every sort.

    One breaks its budget and was measured, one is running in this process, one has NaN, one a hostile name, one no steps; the writer of one was
    killed after a resume, one has a live probe, one was imported from a file with a hostile name.
    """
    with open_store(url, create=True) as store:
        write_imported_run(store, "read-from-a-log", started_at=now - timedelta(days=2))
        write_probed_run(store, "grpo-with-probe", started_at=now - timedelta(hours=5))
        write_killed_run(store, "killed-trainer", started_at=now - timedelta(hours=4))
        write_run(store, "near-beta-zero", started_at=now - timedelta(hours=3), n_steps=60, slope=0.28, budget=8.0)
        write_findings(store, "near-beta-zero")
        write_drift(store, "near-beta-zero")
        write_run(store, "lr-burst-nan", started_at=now - timedelta(hours=2), n_steps=60, slope=0.05, nan_steps=(31, 32, 33), budget=60.0)
        write_run(store, HOSTILE_NAME, started_at=now - timedelta(hours=1), n_steps=12, slope=0.05, status="failed")
        store.runs.add(describe_run("just-started", started_at=now, status="running"))
        write_run(store, "adaptive-beta", started_at=now - timedelta(minutes=6), n_steps=36, slope=0.09, status="running", budget=6.0)


def describe_run(name: str, *, started_at: datetime, status: RunStatus) -> Run:
    """A run of the embedded trainer."""
    run = Run(f"run-{abs(hash_name(name)):08x}", name, started_at, algorithm="ppo", framework="klaudit", policy=REFERENCE.name)
    ended = None if status == "running" else started_at + timedelta(minutes=20)
    return replace(
        run,
        status=status,
        finished_at=ended,
        reference=REFERENCE,
        batch_size=16,
        beta=0.05,
        planned_steps=60,
        series=SERIES,
        config={"seed": 0},
    )


def hash_name(name: str) -> int:
    """A number that is the same in every process."""
    return random.Random(name).getrandbits(32)


def write_run(
    store: Store,
    name: str,
    *,
    started_at: datetime,
    n_steps: int,
    slope: float,
    status: RunStatus = "finished",
    nan_steps: tuple[int, ...] = (),
    budget: float | None = None,
) -> None:
    """A run with steps, texts, checkpoints and a budget on each step."""
    run = describe_run(name, started_at=started_at, status=status)
    store.runs.add(run)
    segment = Segment(run.id, 0, started_at, ended_at=run.finished_at)
    store.runs.add_segment(keep_alive(segment) if status == "running" else segment)
    rng = random.Random(name)
    for step in range(1, n_steps + 1):
        record = make_step(step, rng=rng, slope=slope, at=started_at + timedelta(seconds=9 * step), is_nan=step in nan_steps)
        store.steps.add(run.id, record, samples=make_samples(step, rng) if step % 12 == 0 else ())
    for step in range(12, n_steps + 1, 12):
        store.checkpoints.add(Checkpoint(run.id, step, f"checkpoint-{step}", started_at + timedelta(seconds=9 * step)))
    if budget is not None:
        store.budgets.add(KLBudget(budget, "nats_per_sequence", run_id=run.id, owner="safety", reason="release policy", action="stop"))
        store.budgets.add(KLBudget(0.4, "nats_per_token", scope="path", run_id=run.id))
        store.budgets.add(KLBudget(budget, "nats_per_sequence", scope="checkpoint", run_id=run.id))


def make_step(step: int, *, rng: random.Random, slope: float, at: datetime, is_nan: bool) -> StepRecord:
    """A step whose KL rises with the square root of noise around a line."""
    level = max(0.01, slope * step * (0.6 + 0.4 * math.tanh(step / 20)) + rng.gauss(0, 0.05 * math.sqrt(step)))
    kl = math.nan if is_nan else level
    length, score = 24 + 4 * math.sin(step / 9), math.tanh(0.04 * step) + rng.gauss(0, 0.03)
    readings = {
        "kl_k1": KLReading(SERIES["kl_k1"], kl + rng.gauss(0, 0.3), 0.3, 16, length),
        "kl_k3": KLReading(SERIES["kl_k3"], abs(kl + rng.gauss(0, 0.12)), 0.15, 16, length),
        "kl_update": KLReading(SERIES["kl_update"], 0.004 + 0.001 * rng.random(), 0.0004, 16, length),
    }
    metrics = {
        "heldout_score": 0.6 * math.tanh(0.05 * step) - 0.00012 * step**2,
        "kl_penalty": 0.05 * level,
        "rlhf_reward": score - 0.05 * level,
        "entropy": 2.4 - 0.015 * step + rng.gauss(0, 0.05),
        "response_length": length,
        "eos_fraction": min(1.0, 0.5 + 0.006 * step),
        "distinct_2": 0.95 - 0.004 * step,
        "clip_fraction": 0.02 + 0.01 * rng.random(),
        "ratio": 1 + rng.gauss(0, 0.002),
        "grad_norm": 1.2 + rng.gauss(0, 0.2),
        "learning_rate": 1e-5 * (1 - step / 80),
    }
    reading = KLReading(FULL, kl, 0.04 * math.sqrt(step), 16, length)
    return StepRecord(step, reading, at, beta=0.05 * 1.01**step, score=score, readings=readings, metrics=metrics)


def make_samples(step: int, rng: random.Random) -> tuple[TextSample, ...]:
    """Two completions; the later the step, the further their tokens are from the reference."""
    samples = []
    for index in range(2):
        words = rng.choices(WORDS, k=22)
        words[3] = HOSTILE_TOKEN
        tokens = tuple(TokenScore(one, -1.0, -1.0 - nats, nats) for one in words if (nats := rng.expovariate(1) * step / 25) >= 0)
        samples.append(TextSample(step, "Review: The film was", "".join(words), tokens, index=index, score=0.4 + 0.01 * step))
    return tuple(samples)


def write_findings(store: Store, name: str) -> None:
    """A budget that broke, a jump, and a note."""
    run = store.runs.get(name)

    def find(code: str, rule: str, severity: Severity, steps: tuple[int, int, int], message: str, remedy: str) -> Finding:
        identity = identify_finding(run_id=run.id, segment=0, code=code, series="kl", detected_step=steps[1])
        return Finding(identity, run.id, code, rule, 1, severity, *steps, message, remedy, series="kl", unit="nats_per_sequence")

    store.findings.upsert(
        run.id,
        [
            find(
                "KLA101",
                "budget_exceeded",
                Severity.CRITICAL,
                (36, 38, 60),
                "KL to reference (full, nats/sequence) is over its budget of 8 nats/sequence: 9.4, one-sided 95% lower bound 8.9.",
                "Stop the run or raise beta; the last checkpoint within budget is checkpoint-24.",
            ),
            find(
                "KLA201",
                "kl_jump",
                Severity.WARNING,
                (47, 47, 47),
                "KL rose by 1.9 nats/sequence within one step, 6.1 times the noise floor.",
                "Look at the learning rate and the batch of step 46.",
            ),
            find(
                "KLA302",
                "kl_flat",
                Severity.INFO,
                (2, 4, 5),
                "KL stood still for four steps.",
                "Nothing, if the learning rate was warming up.",
            ),
        ],
    )


def write_drift(store: Store, name: str) -> None:
    """Every checkpoint measured by three estimators."""
    run = store.runs.get(name)
    records = {one.step: one for one in store.steps.list(run.id)}
    measured = []
    for checkpoint in store.checkpoints.list(run.id):
        level = records[min(checkpoint.step + 1, 60)].kl.value or 0.0
        for key, half in (("kl", 0.5), ("kl_k3", 0.7), ("kl_k1", 1.2)):
            value = 0.95 * level + 0.1
            measured.append(
                DriftMeasurement(
                    checkpoint.path,
                    REFERENCE,
                    SERIES[key],
                    value,
                    value - half,
                    value + half,
                    n_sequences=128,
                    mean_length=23.5,
                    measured_at=datetime(2026, 11, 22, 12, tzinfo=UTC),
                    run_id=run.id,
                    step=checkpoint.step,
                    settings={"prompts": "reviews-64", "seed": 0, "samples": 2, "max_new_tokens": 24, "temperature": 1.0},
                )
            )
    store.drift.add_all(measured)


def keep_alive(segment: Segment) -> Segment:
    """The segment as this process would write it."""
    sign = datetime.now(UTC)
    held = replace(segment, heartbeat_at=sign, lease_until=sign + timedelta(minutes=1))
    return replace(held, host=socket.gethostname(), pid=os.getpid(), process_started=describe_process_start(os.getpid()))


def write_killed_run(store: Store, name: str, *, started_at: datetime) -> None:
    """A run that resumed from step 24 with another reference, lost steps, and whose writer is gone."""
    run = replace(describe_run(name, started_at=started_at, status="running"), identity=IDENTITY)
    store.runs.add(run)
    resumed_at = started_at + timedelta(minutes=30)
    host, last_sign = socket.gethostname(), resumed_at + timedelta(minutes=4)
    store.runs.add_segment(
        Segment(run.id, 0, started_at, ended_at=started_at + timedelta(minutes=6), host=host, pid=4100, reference_digest=REFERENCE.digest)
    )
    writer = Segment(run.id, 1, resumed_at, host=host, pid=DEAD_PROCESS, resumed_from_step=24, reference_digest=OTHER_REFERENCE)
    store.runs.add_segment(replace(writer, heartbeat_at=last_sign, lease_until=last_sign + timedelta(minutes=1)))
    rng = random.Random(name)
    for step in range(1, 31):
        store.steps.add(run.id, make_step(step, rng=rng, slope=0.1, at=started_at + timedelta(seconds=9 * step), is_nan=False))
    for step in range(25, 46):
        record = make_step(step, rng=rng, slope=0.11, at=resumed_at + timedelta(seconds=9 * (step - 24)), is_nan=False)
        store.steps.add(run.id, replace(record, segment=1))
    store.runs.set_loss(run.id, 1, n_lost=3, first_step=46, last_step=48, reason="neither the store nor a journal took them")


def write_probed_run(store: Store, name: str, *, started_at: datetime) -> None:
    """A GRPO run whose KL is measured by the live probe at every tenth step, and whose penalty says a beta of its own."""
    run = replace(describe_run(name, started_at=started_at, status="finished"), framework="trl", algorithm="grpo", series=PROBED)
    store.runs.add(replace(run, identity={**IDENTITY, "git": {**IDENTITY["git"], "is_dirty": False}}))
    store.runs.add_segment(
        Segment(run.id, 0, started_at, ended_at=run.finished_at, host="trainer-3", pid=812, reference_digest=REFERENCE.digest)
    )
    rng = random.Random(name)
    for step in range(1, 61):
        level = 0.02 * step
        readings = {}
        for key, error in (("kl_probe", 0.05 + 0.03 * level), ("kl_probe_k1", 0.3)):
            is_due = step == 1 or step % PROBE_EVERY == 0
            measured = KLReading(PROBED[key], level + rng.gauss(0, error / 2), error, 16, 60.0)
            readings[key] = measured if is_due else KLReading.absent(PROBED[key], f"the probe runs every {PROBE_EVERY} steps")
        kl = KLReading(PROBED["kl"], level / 60 + abs(rng.gauss(0, 0.002)), n_sequences=16, mean_length=60.0)
        metrics = {"implied_beta": 0.04 + rng.gauss(0, 0.001), "entropy": 2.2 - 0.01 * step}
        at = started_at + timedelta(seconds=9 * step)
        store.steps.add(run.id, StepRecord(step, kl, at, beta=0.04, score=math.tanh(0.03 * step), readings=readings, metrics=metrics))


def write_imported_run(store: Store, name: str, *, started_at: datetime) -> None:
    """A run from a file of another tool, of whose KL nothing is known."""
    origin = {"digest": "sha256:" + "c4" * 32, "format": "trainer_state", "file": f"{HOSTILE_NAME}.json", "part": None}
    run = replace(
        describe_run(name, started_at=started_at, status="finished"),
        framework=None,
        algorithm=None,
        series={"kl": KLSeries(kind="unknown", direction="unknown", source_key="kl/mean")},
        identity={"imported": origin, "notes": [HOSTILE_NAME], "packages": {HOSTILE_NAME: "1"}},
    )
    store.runs.add(run)
    store.runs.add_segment(Segment(run.id, 0, started_at, ended_at=run.finished_at))
    rng = random.Random(name)
    for step in range(1, 21):
        reading = KLReading(run.series["kl"], 0.02 * step + rng.gauss(0, 0.01))
        store.steps.add(run.id, StepRecord(step, reading, started_at + timedelta(seconds=9 * step)))
    store.ledger.note("run_imported", origin, run_id=run.id)


def leave_steps_waiting(url: str, *, run: Run, n_steps: int, now: datetime) -> Journal:
    """The journal of a trainer that did not reach the store; whoever holds it lives, and `leave` is its death."""
    started = describe_process_start(os.getpid())
    session = Session("waiting", run, now, host=socket.gethostname(), pid=os.getpid(), process_started=started)
    journal = Journal(list_journal_directories(url), session)
    rng = random.Random(run.name)
    with journal.lock:
        for step in range(1, n_steps + 1):
            journal.append_step(make_step(step, rng=rng, slope=0.1, at=now, is_nan=False), ())
    return journal
