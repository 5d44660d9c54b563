"""What two policies would have said of runs that are over, and how long before the runs ended, or ended badly."""

import statistics
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from klaudit.audit.audit import Verdict
from klaudit.audit.engine import AuditEngine
from klaudit.audit.policy import Policy
from klaudit.audit.presets import PRESETS
from klaudit.detectors.score import Rate
from klaudit.records import DriftMeasurement, Finding, KLBudget, LimitChange, Run, Segment, Severity, StepRecord
from klaudit.records.moment import format_moment
from klaudit.records.non_finite import encode_float

CollapseKind = Literal["over_budget", "non_finite", "failed", "end"]
Side = Literal["both", "only_policy", "only_against"]

COLLAPSES: Mapping[str, CollapseKind] = {"KLA101": "over_budget", "KLA303": "non_finite"}
"""The rules whose first critical finding is a run's collapse, by their default numbers, whatever the policies that are compared say of them."""

JUDGE = Policy(name="collapse", rules={code: PRESETS["default"].rules[code] for code in COLLAPSES})

WITHIN_STEPS = 20
"""Alarms of two policies so near to each other are about the same thing."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a step stands in its run."""

    segment: int
    step: int
    trained: int
    """Steps of training up to here, those that a resume took back included."""
    at: datetime
    """When it was logged."""


@dataclass(frozen=True, slots=True)
class Collapse:
    """What a run came to, and where."""

    kind: CollapseKind
    """over_budget: a budget was broken and noise cannot explain it; non_finite: NaN or infinity; failed: its trainer died; end: none of these."""
    place: Place


@dataclass(frozen=True, slots=True)
class Firing:
    """A finding that somebody would have been told of."""

    finding: Finding
    """As it was at the run's end."""
    place: Place
    """The step whose record first made it grave enough."""
    steps_before: int
    """Steps of training from there to the collapse; below 0: after it."""
    minutes_before: float
    """The same by the times at which the steps were logged."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What one policy would have said of one run."""

    policy: Policy
    verdict: Verdict
    n_steps: int
    firings: tuple[Firing, ...]
    """In order of time."""

    @property
    def rate(self) -> Rate:
        """Alarms per 1,000 steps."""
        return Rate(len(self.firings), self.n_steps)


@dataclass(frozen=True, slots=True)
class Moment:
    """Alarms of two policies that are near to each other."""

    place: Place
    """Of the first of them."""
    policy: tuple[Firing, ...]
    against: tuple[Firing, ...]

    @property
    def side(self) -> Side:
        """Which of the two told of it."""
        if self.policy and self.against:
            return "both"
        return "only_policy" if self.policy else "only_against"


@dataclass(frozen=True, slots=True)
class RunBacktest:
    """One run under two policies."""

    run: Run
    collapse: Collapse | None
    """None: no steps."""
    policy: Trial
    against: Trial
    moments: tuple[Moment, ...]
    """In order of time."""

    def count(self, side: Side) -> int:
        """Moments of one side."""
        return sum(moment.side == side for moment in self.moments)


@dataclass(frozen=True, slots=True)
class Total:
    """One policy over all runs."""

    policy: Policy
    rate: Rate
    n_collapsed: int
    """Runs that ended badly."""
    n_told_before: int
    """Of these, runs with an alarm before the collapse."""
    median_steps_before: float | None
    """Steps from the first alarm to the collapse, over the latter; None where there is none."""


@dataclass(frozen=True, slots=True)
class Backtest:
    """Two policies over past runs."""

    policy: Policy
    against: Policy
    runs: tuple[RunBacktest, ...]
    at_least: Severity
    within_steps: int

    def total(self, policy: Literal["policy", "against"]) -> Total:
        """One of the two over all runs."""
        trials: list[Trial] = [getattr(one, policy) for one in self.runs]
        collapsed = [trial for one, trial in zip(self.runs, trials, strict=True) if one.collapse is not None and one.collapse.kind != "end"]
        leads = [trial.firings[0].steps_before for trial in collapsed if trial.firings and trial.firings[0].steps_before > 0]
        return Total(
            policy=getattr(self, policy),
            rate=Rate(sum(len(trial.firings) for trial in trials), sum(trial.n_steps for trial in trials)),
            n_collapsed=len(collapsed),
            n_told_before=len(leads),
            median_steps_before=statistics.median(leads) if leads else None,
        )

    def count(self, side: Side) -> int:
        """Moments of one side, over all runs."""
        return sum(one.count(side) for one in self.runs)

    def has_firings_at(self, severity: Severity) -> bool:
        """Whether `policy` would have told of something at or above a severity."""
        return any(firing.finding.severity.rank >= severity.rank for one in self.runs for firing in one.policy.firings)

    def to_dict(self) -> dict[str, Any]:
        """What `backtest --json` prints, but for the version of its schema."""
        return {
            "policy": self.policy.describe(),
            "against": self.against.describe(),
            "at_least": self.at_least.value,
            "within_steps": self.within_steps,
            "runs": [_describe_run(one) for one in self.runs],
            "totals": {
                "policy": _describe_total(self.total("policy")),
                "against": _describe_total(self.total("against")),
                **_count_sides(self),
            },
        }


def backtest_run(
    run: Run,
    steps: Iterable[StepRecord],
    *,
    policy: Policy,
    against: Policy,
    budgets: Sequence[KLBudget] = (),
    segments: Iterable[Segment] = (),
    drift_measurements: Iterable[DriftMeasurement] = (),
    limit_changes: Sequence[LimitChange] = (),
    at_least: Severity = Severity.WARNING,
    within_steps: int = WITHIN_STEPS,
) -> RunBacktest:
    """Run two policies over the steps of a run, as they would have run live.

    Args:
        run: whose steps they are.
        steps: ordered by (segment, step), each once.
        policy: that is tried.
        against: that it is compared with.
        budgets: of the run.
        segments: of the run, in order.
        drift_measurements: of the run's checkpoints.
        limit_changes: of the budgets that cover or covered the run.
        at_least: findings below it tell nobody.
        within_steps: alarms of the two policies so near to each other are one moment.
    """
    watches = [_Watch(run, one, budgets, at_least=at_least) for one in (policy, against)]
    judge = _Watch(run, JUDGE, budgets, at_least=Severity.CRITICAL)
    timeline = Timeline()
    listed, measured = list(segments), list(drift_measurements)
    for watch in (*watches, judge):
        watch.note(watch.engine.observe_limit_changes(limit_changes), None)
        for segment in listed:
            watch.note(watch.engine.observe_segment(segment), None)
    for record in steps:
        if not timeline.add(record):
            continue
        for watch in (*watches, judge):
            watch.note(watch.engine.observe(record), record)
    for watch in watches:
        watch.note(watch.engine.observe_drift(measured), None)
        watch.note(watch.engine.observe_limit_changes(limit_changes), None)
    if not len(timeline):
        tried, other = (watch.conclude(timeline, None) for watch in watches)
        return RunBacktest(run, None, tried, other, ())
    collapse = _find_collapse(run, judge, timeline)
    tried, other = (watch.conclude(timeline, collapse) for watch in watches)
    return RunBacktest(run, collapse, tried, other, match_firings(tried.firings, other.firings, within_steps=within_steps))


def match_firings(policy: Iterable[Firing], against: Iterable[Firing], *, within_steps: int) -> tuple[Moment, ...]:
    """Put alarms of two policies together: a moment takes in all that come within `within_steps` steps of training after its first."""
    sided = sorted([(one, True) for one in policy] + [(one, False) for one in against], key=lambda pair: pair[0].place.trained)
    groups: list[list[tuple[Firing, bool]]] = []
    for firing, is_tried in sided:
        if not groups or firing.place.trained - groups[-1][0][0].place.trained > within_steps:
            groups.append([])
        groups[-1].append((firing, is_tried))
    return tuple(
        Moment(
            place=group[0][0].place,
            policy=tuple(firing for firing, is_tried in group if is_tried),
            against=tuple(firing for firing, is_tried in group if not is_tried),
        )
        for group in groups
    )


class Timeline:
    """The places of a run's steps, in 32 bytes each."""

    def __init__(self) -> None:
        self._starts: list[tuple[int, int]] = []
        """Segments and their first index, ascending."""
        self._steps = array("q")
        self._trained = array("d")
        self._times = array("d")

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, record: StepRecord) -> bool:
        """Take in the next step; False for one that does not come after the last one, which no engine looks at."""
        if self._starts and (record.segment, record.step) <= (self._starts[-1][0], self._steps[-1]):
            return False
        trained = self._trained[-1] if self._steps else 0.0
        if self._starts and self._starts[-1][0] == record.segment:
            trained += record.step - self._steps[-1]
        else:
            self._starts.append((record.segment, len(self._steps)))
            trained += 1
        self._steps.append(record.step)
        self._trained.append(trained)
        self._times.append(record.logged_at.timestamp())
        return True

    def find(self, segment: int, step: int) -> Place:
        """The last step at or before a step; the first of all, where there is none before it."""
        number = bisect_right(self._starts, segment, key=lambda start: start[0]) - 1
        if number < 0:
            return self[0]
        own, first = self._starts[number]
        end = self._starts[number + 1][1] if number + 1 < len(self._starts) else len(self._steps)
        index = end if own < segment else bisect_right(self._steps, step, first, end)
        return self[max(index - 1, 0)]

    def __getitem__(self, index: int) -> Place:
        position = index % len(self._steps)
        segment = self._starts[bisect_right(self._starts, position, key=lambda start: start[1]) - 1][0]
        return Place(segment, self._steps[position], int(self._trained[position]), datetime.fromtimestamp(self._times[position], UTC))


class _Watch:
    """One policy over one run, and where its findings became grave enough."""

    def __init__(self, run: Run, policy: Policy, budgets: Sequence[KLBudget], *, at_least: Severity) -> None:
        self.engine = AuditEngine(run, policy, budgets)
        self._at_least = at_least
        self._places: dict[str, tuple[int, int]] = {}

    def note(self, findings: Iterable[Finding], record: StepRecord | None) -> None:
        """Take in what the engine said of a record; of what is no step, the finding itself says where."""
        for finding in findings:
            if finding.severity.rank >= self._at_least.rank:
                place = (finding.segment, finding.detected_step) if record is None else (record.segment, record.step)
                self._places.setdefault(finding.id, place)

    def list_told(self, timeline: Timeline) -> Iterator[tuple[Finding, Place]]:
        """The findings that were told of, and where."""
        for finding in self.engine.findings:
            if finding.id in self._places:
                yield finding, timeline.find(*self._places[finding.id])

    def conclude(self, timeline: Timeline, collapse: Collapse | None) -> Trial:
        """What came of it; nothing was told of a run without steps."""
        told = [] if collapse is None else [_time_firing(finding, place, collapse.place) for finding, place in self.list_told(timeline)]
        told.sort(key=lambda firing: (firing.place.trained, firing.finding.code, firing.finding.id))
        audit = self.engine.conclude()
        return Trial(audit.policy, audit.verdict, len(timeline), tuple(told))


def _time_firing(finding: Finding, place: Place, collapse: Place) -> Firing:
    minutes = (collapse.at - place.at).total_seconds() / 60
    return Firing(finding, place, steps_before=collapse.trained - place.trained, minutes_before=minutes)


def _find_collapse(run: Run, judge: _Watch, timeline: Timeline) -> Collapse:
    found = min(judge.list_told(timeline), key=lambda told: told[1].trained, default=None)
    if found is not None:
        return Collapse(COLLAPSES[found[0].code], found[1])
    return Collapse("failed" if run.status == "failed" else "end", timeline[-1])


def _describe_run(one: RunBacktest) -> dict[str, Any]:
    collapse = one.collapse
    return {
        "run": {"id": one.run.id, "name": one.run.name, "status": one.run.status},
        "steps": one.policy.n_steps,
        "collapse": None if collapse is None else {"kind": collapse.kind, **_describe_place(collapse.place)},
        "policy": _describe_trial(one.policy),
        "against": _describe_trial(one.against),
        **_count_sides(one),
        "moments": [_describe_moment(moment) for moment in one.moments],
    }


def _describe_trial(trial: Trial) -> dict[str, Any]:
    return {"verdict": trial.verdict, **_describe_rate(trial.rate), "findings": [_describe_firing(one) for one in trial.firings]}


def _describe_firing(firing: Firing) -> dict[str, Any]:
    finding = firing.finding
    return {
        "id": finding.id,
        "code": finding.code,
        "rule": finding.rule,
        "severity": finding.severity.value,
        **_describe_place(firing.place),
        "first_step": finding.first_step,
        "detected_step": finding.detected_step,
        "last_step": finding.last_step,
        "steps_before_collapse": firing.steps_before,
        "minutes_before_collapse": firing.minutes_before,
        "message": finding.message,
    }


def _describe_moment(moment: Moment) -> dict[str, Any]:
    sides = {"policy": moment.policy, "against": moment.against}
    told = {
        name: [{"id": one.finding.id, "code": one.finding.code, "step": one.place.step} for one in side] for name, side in sides.items()
    }
    return {**_describe_place(moment.place), "side": moment.side, **told}


def _describe_place(place: Place) -> dict[str, Any]:
    return {"segment": place.segment, "step": place.step, "at": format_moment(place.at)}


def _describe_total(total: Total) -> dict[str, Any]:
    return {
        **_describe_rate(total.rate),
        "collapsed_runs": total.n_collapsed,
        "told_before_collapse": total.n_told_before,
        "median_steps_before_collapse": total.median_steps_before,
    }


def _describe_rate(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {"alarms": rate.n_alarms, "per_1000": {"value": encode_float(rate.value), "low": encode_float(low), "high": encode_float(high)}}


def _count_sides(counted: RunBacktest | Backtest) -> dict[str, int]:
    sides: tuple[Side, ...] = ("both", "only_policy", "only_against")
    return {side: counted.count(side) for side in sides}
