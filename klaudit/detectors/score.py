"""How to score detectors on runs whose anomalies are known: recall and delay, false alarms with an interval, right names."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from klaudit.records import Finding, Severity

CHARGE_EVERY = 15
"""Steps after which an alarm that stays on is charged again: an alarm that is always on must not count as one."""

CONFIDENCE = 0.95
PER = 1000
"""Steps that false alarms are counted on."""


@dataclass(frozen=True, slots=True)
class Planted:
    """What was planted in a run, and what counts as having found it."""

    kind: str
    """Such as `spike`."""
    onset: int
    """The first step whose record differs from a healthy run's."""
    codes: frozenset[str] = frozenset()
    """The rules that name it rightly; any rule finds it."""
    horizon: int = 20
    """Steps after the onset within which an alarm finds it."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm, from the step that raised it to the last one on which it stood."""

    detected_step: int
    last_step: int
    code: str = ""


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A run, what was planted in it, and the alarms of one detector."""

    steps: Sequence[int]
    """Its step numbers, ascending."""
    alarms: Sequence[Alarm]
    planted: Planted | None = None
    """None: a healthy run."""


@dataclass(frozen=True, slots=True)
class Rate:
    """False alarms per 1,000 healthy steps, with the exact 95% interval of a Poisson count (Garwood 1936)."""

    n_alarms: int
    n_steps: int

    @property
    def value(self) -> float:
        """Per 1,000 steps; NaN without a healthy step."""
        return PER * self.n_alarms / self.n_steps if self.n_steps else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Per 1,000 steps; from 0 to infinity without a healthy step."""
        if not self.n_steps:
            return 0.0, math.inf
        low, high = find_poisson_interval(self.n_alarms)
        return PER * low / self.n_steps, PER * high / self.n_steps


@dataclass(frozen=True, slots=True)
class Recall:
    """How one kind was found."""

    kind: str
    n_planted: int
    n_found: int
    n_named: int
    """Found by a rule that names it rightly."""
    median_delay: float
    """Steps from the onset to the first alarm, over those found; NaN where none was."""

    @property
    def share(self) -> float:
        """Found of planted."""
        return self.n_found / self.n_planted

    @property
    def named_share(self) -> float:
        """Rightly named of found; NaN where none was found."""
        return self.n_named / self.n_found if self.n_found else math.nan


@dataclass(frozen=True, slots=True)
class Score:
    """One detector over many runs."""

    recalls: tuple[Recall, ...]
    """By kind, in the order in which the kinds came."""
    false_alarms: Rate

    def average_recall(self, kinds: Iterable[str] | None = None) -> float:
        """Mean over kinds of the share found; each kind weighs the same. NaN where none of them was planted.

        Args:
            kinds: which; None: all.
        """
        wanted = None if kinds is None else set(kinds)
        shares = [recall.share for recall in self.recalls if wanted is None or recall.kind in wanted]
        return statistics.fmean(shares) if shares else math.nan


def select_alarms(findings: Iterable[Finding], *, at_least: Severity = Severity.WARNING) -> tuple[Alarm, ...]:
    """The findings that somebody would be told of, as alarms."""
    return tuple(
        Alarm(finding.detected_step, finding.last_step, finding.code) for finding in findings if finding.severity.rank >= at_least.rank
    )


def join_flags(steps: Iterable[int], *, code: str = "", restart_at: int | None = None) -> tuple[Alarm, ...]:
    """The alarms of a detector that only says of each step whether it is odd: flags within 15 steps of an alarm's first belong to it.

    Args:
        steps: flagged ones, ascending.
        restart_at: from here on flags belong to a new alarm, so that a false one shortly before an onset hides nothing.
    """
    alarms: list[Alarm] = []
    for step in steps:
        last = alarms[-1] if alarms else None
        crosses = last is not None and restart_at is not None and last.detected_step < restart_at <= step
        if last is None or crosses or step - last.detected_step >= CHARGE_EVERY:
            alarms.append(Alarm(step, step, code))
        else:
            alarms[-1] = Alarm(last.detected_step, step, code)
    return tuple(alarms)


def find_hits(run: JudgedRun) -> tuple[Alarm, ...]:
    """The alarms first raised from the onset to the end of the horizon, in their order in time; none for a healthy run."""
    planted = run.planted
    if planted is None:
        return ()
    within = (alarm for alarm in run.alarms if planted.onset <= alarm.detected_step <= planted.onset + planted.horizon)
    return tuple(sorted(within, key=lambda alarm: alarm.detected_step))


def list_false_alarms(run: JudgedRun) -> tuple[Alarm, ...]:
    """The alarms raised on healthy steps: those of the whole run, or those before the onset. One that is still on at the onset ends there."""
    if run.planted is None:
        return tuple(run.alarms)
    onset = run.planted.onset
    return tuple(
        Alarm(alarm.detected_step, min(alarm.last_step, onset - 1), alarm.code) for alarm in run.alarms if alarm.detected_step < onset
    )


def count_charges(alarms: Iterable[Alarm]) -> int:
    """What alarms cost: one each, and one more for every 15 steps that it stays on."""
    return sum(1 + (alarm.last_step - alarm.detected_step) // CHARGE_EVERY for alarm in alarms)


def count_healthy_steps(run: JudgedRun) -> int:
    """Steps before the onset, warm-up included; all steps of a healthy run."""
    return len(run.steps) if run.planted is None else sum(step < run.planted.onset for step in run.steps)


def measure_false_alarms(runs: Iterable[JudgedRun]) -> Rate:
    """Charges on healthy steps, over the healthy steps of all runs."""
    listed = list(runs)
    return Rate(sum(count_charges(list_false_alarms(run)) for run in listed), sum(count_healthy_steps(run) for run in listed))


def score_runs(runs: Iterable[JudgedRun]) -> Score:
    """Score one detector over many runs."""
    listed = list(runs)
    by_kind: dict[str, list[JudgedRun]] = {}
    for run in listed:
        if run.planted is not None:
            by_kind.setdefault(run.planted.kind, []).append(run)
    return Score(tuple(measure_recall(kind, of_kind) for kind, of_kind in by_kind.items()), measure_false_alarms(listed))


def measure_recall(kind: str, runs: Sequence[JudgedRun]) -> Recall:
    """How a kind was found in the runs that it was planted in."""
    delays: list[int] = []
    n_named = 0
    for run in runs:
        hits, planted = find_hits(run), run.planted
        if planted is not None and hits:
            delays.append(hits[0].detected_step - planted.onset)
            n_named += any(alarm.code in planted.codes for alarm in hits)
    return Recall(kind, len(runs), len(delays), n_named, statistics.median(delays) if delays else math.nan)


def find_poisson_interval(n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact central interval of a Poisson mean of which `n` events were seen.

    Source: Garwood 1936, Fiducial limits for the Poisson distribution, Biometrika 28. Each end is found by bisection where the
    distribution function leaves half of 1 - confidence.
    """
    tail = (1 - confidence) / 2
    above = n + 10 * math.sqrt(n + 1) + 10
    low = 0.0 if n == 0 else _bisect(lambda mean: 1 - _sum_poisson(n - 1, mean) - tail, 0.0, above)
    high = _bisect(lambda mean: tail - _sum_poisson(n, mean), 0.0, above)
    return low, high


def _sum_poisson(n: int, mean: float) -> float:
    """P(X <= n) for a Poisson X."""
    if mean == 0:
        return 1.0
    return math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(n + 1))


def _bisect(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function is 0."""
    for _ in range(100):
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
