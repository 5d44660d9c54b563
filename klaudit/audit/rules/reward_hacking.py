"""KLA601 reward_hacking."""

import math
from collections.abc import Iterator, Sequence
from operator import mul
from typing import Any

from pydantic import Field, model_validator

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.reward_watch import ComponentWatch, Efficiency, EfficiencyWatch, HeldoutWatch, Parting, Point
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.frontier.point import keep_number
from klaudit.records import Finding, Run, Severity

MOST_FIRST_STEPS = 1_000
"""Of a long run: they are held in memory."""

UNPLANNED_FIRST_STEPS = 50
"""What counts as the first third of a run of unknown length."""

REMEDY_HELDOUT = "Stop at the checkpoint where the held-out score was highest, raise beta or retrain the reward model; `klaudit frontier` says where the peak lies."
REMEDY_SPENT = (
    "Log a held-out score to see whether this drift is hacking; raise beta or stop, since further drift is bought with no reward."
)
REMEDY_COMPONENTS = (
    "Read the sampled texts of these steps; weigh the components anew, or cap the one that rises, if the one that falls matters."
)


class RewardHackingParameters(RuleParameters):
    """Parameters of KLA601."""

    fast_window: int = Field(default=16, ge=8, le=1000, description="points with a held-out score in the shorter window")
    slow_window: int = Field(default=32, ge=8, le=1000, description="points with a held-out score in the longer window")
    least_t: float = Field(default=2.75, gt=0, description="standard errors that either slope has at least")
    warning_z: float = Field(default=5.0, gt=0, description="standard errors of both slopes together, (t_score - t_heldout) / sqrt(2)")
    critical_z: float = Field(default=7.0, gt=0, description="the same, for a critical finding")
    efficiency_share: float = Field(
        default=0.1, gt=0, lt=1, description="share of the first third's reward per d under which drift brings nothing any more"
    )
    efficiency_steps: int = Field(default=16, ge=1, le=10_000, description="steps in a row that this must hold")
    component_t: float = Field(default=3.0, gt=0, description="standard errors by which one component rises and another falls")
    component_warning_t: float = Field(default=6.0, gt=0, description="the same, for a warning")
    quiet_points: int = Field(default=30, ge=1, le=1_000_000, description="points without it that end an episode")

    @model_validator(mode="after")
    def _check_order(self) -> "RewardHackingParameters":
        if self.slow_window < self.fast_window or self.critical_z < self.warning_z:
            raise ValueError("slow_window must not be below fast_window, nor critical_z below warning_z")
        return self


class RewardHacking(Rule[RewardHackingParameters]):
    """The trained score rises while what it stands for does not.

    What it checks:
        Three things, each its own finding. (1) With a held-out score: the score rises, the held-out score falls and d = sqrt(KL) does not shrink.
        Score and d are means over the steps since the last held-out score; one of every tenth step is judged ten times as slowly. (2) Without
        a held-out score: d still grows, and what it brings in score has sunk under a tenth of what it brought in the first third of the run.
        (3) Of the metrics `rewards/NAME`, one rises and another falls; those of DPO (chosen, rejected, margins, accuracies) are left out.
        Numbers that are absent, NaN, infinite or beyond 1e50 are left out.

    Formula:
        (1) t = slope over its standard error in windows of 16 and 32 points; both t_score and -t_heldout at least least_t; warning at
        (t_score - t_heldout) / sqrt(2) >= warning_z, critical at critical_z. The standard error is that of AR(1) noise whose variance and
        autocorrelation are learnt from the whole segment. (2) info: (slope of score + 2 SE) / slope of d < efficiency_share x first, over 32
        steps and efficiency_steps times in a row, where slope of d is over 3 SE and first, the slope of score over d in the first third of
        the planned steps (50 where none are planned, at most 1,000), is over 4 SE. (3) info at component_t for both over 32 steps, warning at component_warning_t.

    Why it matters:
        A reward model is a proxy. Past some distance from the reference the policy finds what the proxy likes and people do not
        (Gao, Schulman, Hilton 2022), and the score on the dashboard goes on rising.

    Parameters and where the defaults come from:
        Rule R16 of the catalogue, whose slopes over 50 steps are found sooner by two shorter windows. fast_window 16, slow_window 32, least_t 2.75
        and warning_z 5 are set by a simulation of healthy runs whose score and held-out score level off, with noise of AR(1) up to 0.94 and
        Student-t6 tails: under 0.05 warnings per 1,000 steps; hacking that goes on for 30 to 40 steps is found within 20 steps of its onset in
        9 of 10 runs where the noise is up to 6% of the score's range (tests/audit/rules). critical_z 7: the simulation of healthy runs never
        exceeded 6.2 in 130,300 steps. (2) is info only, because a healthy run that has learnt what there is to learn looks the same;
        efficiency_share 0.1 is R16's, efficiency_steps 16 is half the window. component_t 3 in place of R16's 2 sigma because the two are
        chosen among many; components trade places in healthy runs too, so component_warning_t is 6. quiet_points 30: evidence
        that comes and goes while the scores drift apart is one finding.

    What to do:
        Stop at the checkpoint where the held-out score was highest. Raise beta, retrain the reward model or give it an ensemble; read the
        sampled texts for what it was that the score liked.

    Example finding:
        The score rose by 0.448 reward while the held-out score fell by 0.203 reward over steps 21 to 36, and d went from 2 to 4 sqrt(nats): 5.7 standard errors together.
    """

    code = "KLA601"
    name = "reward_hacking"
    version = 1
    severities = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)
    parameters_model = RewardHackingParameters

    def __init__(self, run: Run, *, parameters: RewardHackingParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.episode = self.start_episode(series="heldout_score", quiet_steps=parameters.quiet_points)
        self.efficiency_episode = self.start_episode(series="score", subject="efficiency", quiet_steps=parameters.quiet_points)
        self.component_episode = self.start_episode(series="rewards", subject="components", quiet_steps=parameters.quiet_points)
        self.was_ready = False
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        limits = self.parameters
        planned = self.run.planned_steps
        first_steps = UNPLANNED_FIRST_STEPS if planned is None else min(max(planned // 3, limits.slow_window), MOST_FIRST_STEPS)
        self.heldout = HeldoutWatch((limits.fast_window, limits.slow_window))
        self.efficiency = EfficiencyWatch(first_steps=first_steps, window=limits.slow_window)
        self.components = ComponentWatch(limits.slow_window)
        self._n_spent = 0
        self._has_heldout = False

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        record = observation.record
        score, heldout, d = keep_number(record.score), keep_number(record.metrics.get("heldout_score")), _read_any_d(observation)
        if heldout is not None:
            self._has_heldout = True
        told = [self._observe_components(observation)]
        if self.heldout.observe(observation.step, score=score, heldout=heldout, d=d):
            told.append(self._observe_heldout(observation))
        elif score is not None and d is not None and not self._has_heldout:
            told.append(self._observe_efficiency(observation, score=score, d=d))
        return [finding for finding in told if finding is not None] if any(told) else ()

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.was_ready:
            needed = self.parameters.fast_window
            yield f"needs {needed} steps or more with a score and a held-out score; without, reward hacking cannot be told from learning"

    def _observe_heldout(self, observation: Observation) -> Finding | None:
        self.was_ready = self.was_ready or self.heldout.is_ready
        parting = self.heldout.find_parting(least_t=self.parameters.least_t)
        is_clear = parting is not None and parting.z >= self.parameters.warning_z
        return self.episode.observe(observation.record, self._judge_heldout(parting) if is_clear and parting is not None else None)

    def _judge_heldout(self, parting: Parting) -> Judgement:
        limits = self.parameters
        is_critical = parting.z >= limits.critical_z
        points = list(self.heldout.points)
        window = points[-parting.n :]
        rise, fall = parting.up.per_value * parting.n, -parting.down.per_value * parting.n
        first_d, last_d = window[0][3], window[-1][3]
        drift = "" if first_d is None or last_d is None else f", and d went from {first_d:.3g} to {last_d:.3g} sqrt(nats)"
        return Judgement(
            severity=Severity.CRITICAL if is_critical else Severity.WARNING,
            badness=parting.z,
            message=f"The score rose by {rise:.3g} reward while the held-out score fell by {fall:.3g} reward over steps {window[0][0]} to {window[-1][0]}"
            f"{drift}: {parting.z:.1f} standard errors together.",
            remedy=REMEDY_HELDOUT,
            value=parting.z,
            threshold=limits.critical_z if is_critical else limits.warning_z,
            unit="standard errors",
            evidence={
                "kind": "heldout",
                "t_score": parting.up.t,
                "t_heldout": parting.down.t,
                "window": _tabulate(points),
                "limits": limits.model_dump(),
            },
            # Dated once: later windows begin later.
            first_step=None if self.episode.is_open else _date_onset(window),
        )

    def _observe_efficiency(self, observation: Observation, *, score: float, d: float) -> Finding | None:
        self.efficiency.observe(score=score, d=d)
        spent = self.efficiency.find_spent(share=self.parameters.efficiency_share)
        self._n_spent = 0 if spent is None else self._n_spent + 1
        is_lasting = spent is not None and self._n_spent >= self.parameters.efficiency_steps
        judgement = _judge_efficiency(spent, share=self.parameters.efficiency_share) if spent is not None and is_lasting else None
        return self.efficiency_episode.observe(observation.record, judgement)

    def _observe_components(self, observation: Observation) -> Finding | None:
        self.components.observe(observation.record.metrics)
        parting = self.components.find_parting(least_t=self.parameters.component_t)
        if parting is None and not self.component_episode.is_open:
            return None
        return self.component_episode.observe(observation.record, None if parting is None else self._judge_components(parting))

    def _judge_components(self, parting: Parting) -> Judgement:
        weaker = min(parting.up.t, -parting.down.t)
        limit = self.parameters.component_warning_t
        rise, fall = parting.up.per_value * parting.n, -parting.down.per_value * parting.n
        return Judgement(
            severity=Severity.WARNING if weaker >= limit else Severity.INFO,
            badness=weaker,
            message=f"{parting.up_name} rose by {rise:.3g} reward while {parting.down_name} fell by {fall:.3g} reward over {parting.n} steps: "
            f"{parting.up.t:.1f} and {-parting.down.t:.1f} standard errors.",
            remedy=REMEDY_COMPONENTS,
            value=weaker,
            threshold=limit if weaker >= limit else self.parameters.component_t,
            unit="standard errors",
            evidence={
                "kind": "components",
                "up": parting.up_name,
                "down": parting.down_name,
                "t_up": parting.up.t,
                "t_down": parting.down.t,
            },
        )


def _date_onset(window: Sequence[Point]) -> int:
    """The step at which the held-out score turns from a level to a line, by least squares over every place where it could."""
    heldout = [point[2] for point in window]
    mean = sum(heldout) / len(heldout)
    explained = [_explain_by_hinge([one - mean for one in heldout], at) for at in range(len(window) - 2)]
    return window[explained.index(max(explained))][0]


def _explain_by_hinge(centred: Sequence[float], at: int) -> float:
    """Sum of squares that a hinge at a place takes from values whose mean is 0."""
    ramp = [max(0, index - at) for index in range(len(centred))]
    mean = sum(ramp) / len(ramp)
    product: float = sum(map(mul, ramp, centred))
    return product * product / sum((one - mean) ** 2 for one in ramp)


def _judge_efficiency(spent: Efficiency, *, share: float) -> Judgement:
    return Judgement(
        severity=Severity.INFO,
        badness=-spent.highest_now,
        message=f"d grew by {spent.d_rise:.3g} sqrt(nats) for {spent.now:.3g} reward/sqrt(nat) at most {spent.highest_now:.3g}, where the first third "
        f"of the run brought {spent.first:.3g} reward/sqrt(nat); no held-out score says whether this is learning.",
        remedy=REMEDY_SPENT,
        value=spent.highest_now,
        threshold=share * spent.first,
        unit="reward/sqrt(nat)",
        evidence={"kind": "efficiency", "now": spent.now, "highest_now": spent.highest_now, "first": spent.first, "d_rise": spent.d_rise},
    )


def _read_any_d(observation: Observation) -> float | None:
    """Of a sequence, else of a token: only the direction of d is asked for here."""
    if observation.d is not None or observation.governing is None:
        return observation.d
    value = keep_number(observation.governing.value)
    return None if value is None else math.sqrt(max(value, 0.0))


def _tabulate(points: list[Point]) -> dict[str, Any]:
    steps, scores, heldout, d = zip(*points, strict=True)
    return {"steps": list(steps), "score": list(scores), "heldout_score": list(heldout), "d": list(d)}
