"""A run under every detector."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from klaudit.audit import Policy, audit_run, find_policy
from klaudit.detectors.score import Alarm, JudgedRun, join_flags, select_alarms
from klaudit.records import PRIMARY, Run, StepRecord
from tests.bench.detection.labelled_run import LabelledRun, generate_run
from tests.bench.detection.peers import PEERS, KLStream
from tests.bench.detection.profile import choose_kind

KLAUDIT = "klaudit"
"""Under the default policy; `klaudit POLICY`: under a preset or a file."""

Alarms = Mapping[str, Sequence[Alarm]]
"""By detector; of a peer one alarm for each flagged step."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the detectors said of one run."""

    run: LabelledRun
    by_detector: Mapping[str, JudgedRun]


def judge_run(labelled: LabelledRun, detectors: Sequence[str]) -> Judgement:
    """Let detectors judge a run.

    Args:
        detectors: names of PEERS, `klaudit`, or `klaudit` and a policy.
    """
    alarms = raise_alarms(labelled, detectors)
    numbers = [int(step["step"]) for step in labelled.steps]
    judged = {name: JudgedRun(numbers, _join(name, alarms[name], labelled), labelled.planted) for name in detectors}
    return Judgement(labelled, judged)


def judge_seed(
    seed: int, *, kinds: Sequence[str], shapes: Sequence[str] | None, estimators: Sequence[str] | None, detectors: Sequence[str]
) -> Judgement | None:
    """The judgement of a seed's generated run; None for a shape or an estimator that nobody asked for."""
    run = generate_run(seed, choose_kind(seed, kinds))
    is_asked_for = (not shapes or run.about["shape"] in shapes) and (not estimators or run.about["estimator"].split("+")[0] in estimators)
    return judge_run(run, detectors) if is_asked_for else None


def judge_against(labelled: LabelledRun, *, clean: Mapping[str, Alarms]) -> Judgement:
    """Judge a planted run by the alarms from the onset on that its clean twin does not raise; the twin answers for the steps before.

    Args:
        clean: what the detectors said of the clean curves, by name.
    """
    onset = labelled.planted.onset if labelled.planted else 0
    twin = clean[labelled.about["curve"]]
    judged = {}
    for name, alarms in raise_alarms(labelled, list(twin)).items():
        known = {(alarm.code, alarm.detected_step) for alarm in twin[name]}
        new = [alarm for alarm in alarms if alarm.detected_step >= onset and (alarm.code, alarm.detected_step) not in known]
        numbers = [int(step["step"]) for step in labelled.steps if step["step"] >= onset]
        judged[name] = JudgedRun(numbers, _join(name, new, labelled), labelled.planted)
    return Judgement(labelled, judged)


def raise_alarms(labelled: LabelledRun, detectors: Sequence[str]) -> dict[str, tuple[Alarm, ...]]:
    """What each detector says of a run."""
    run, steps = labelled.read()
    stream = take_governing(run, steps)
    return {name: ask_peer(name, stream) if name in PEERS else audit(name, labelled, run, steps) for name in detectors}


def audit(name: str, labelled: LabelledRun, run: Run, steps: Sequence[StepRecord]) -> tuple[Alarm, ...]:
    """Findings at warning or above."""
    policy = load_policy(name.removeprefix(KLAUDIT).strip() or "default")
    return select_alarms(audit_run(run, steps, policy=policy, budgets=labelled.budgets).findings)


@functools.cache
def load_policy(name_or_path: str) -> Policy:
    """A preset or a policy file, read once."""
    return find_policy(name_or_path)


def ask_peer(name: str, stream: KLStream) -> tuple[Alarm, ...]:
    """A peer's flags."""
    with np.errstate(all="ignore"):
        return tuple(Alarm(step, step) for step in (stream.steps[at] for at in PEERS[name].find_odd(stream)))


def take_governing(run: Run, steps: Sequence[StepRecord]) -> KLStream:
    """The governing readings that are there; what is not finite is NaN."""
    key = run.governing_key or PRIMARY
    readings = [(step.step, reading.value) for step in steps if (reading := step.reading(key)) is not None and reading.value is not None]
    series = run.series[key]
    values = np.array([value if math.isfinite(value) else math.nan for _, value in readings])
    return KLStream([step for step, _ in readings], values, series.estimator, series.unit, run.batch_size)


def _join(name: str, alarms: Sequence[Alarm], labelled: LabelledRun) -> Sequence[Alarm]:
    if name not in PEERS:
        return alarms
    return join_flags((alarm.detected_step for alarm in alarms), restart_at=labelled.planted.onset if labelled.planted else None)
