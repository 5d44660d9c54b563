"""KLA607 stalled."""

import math
from collections.abc import Iterator, Sequence

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.trend import RollingTrend
from klaudit.records import Finding, Run, Severity

ZERO_SPREAD = "frac_reward_zero_std"
"""Share of groups whose texts all got the same reward, as TRL's GRPO and RLOO log it."""


class StalledParameters(RuleParameters):
    """Parameters of KLA607."""

    still_kl: float = Field(default=1e-6, gt=0, description="nats/sequence below which the policy has not moved")
    zero_kl: float = Field(default=1e-12, ge=0, description="nats/sequence below which a KL is zero, which KLA302 judges")
    still_steps: int = Field(default=50, ge=10, le=100_000, description="steps in a row without movement that make a finding")
    slope_t: float = Field(default=3.0, gt=0, description="standard errors that the score's slope must exceed to count as learning")
    zero_spread: float = Field(
        default=0.9, gt=0, le=1, description="share of groups without spread of reward from which a step teaches nothing"
    )
    zero_spread_steps: int = Field(default=20, ge=2, le=100_000, description="steps in a row that teach nothing that make a finding")
    quiet_steps: int = Field(default=3, ge=1, le=1_000_000, description="steps of learning that end an episode")


class Stalled(Rule[StalledParameters]):
    """The run trains and learns nothing.

    What it checks:
        Movement: the governing series, in nats per sequence, with the score. Steps at learning rate 0 and step 0 and 1 do not count. A KL of
        exactly zero is KLA302's and neither counts here nor ends anything. Signal: `frac_reward_zero_std`, the share of groups whose
        texts all got the same reward.

    Formula:
        movement: zero_kl <= |KL| < still_kl for still_steps steps in a row, and the slope of the score over as many steps is within slope_t
        standard errors of 0. signal: frac_reward_zero_std >= zero_spread for zero_spread_steps steps in a row.

    Why it matters:
        Such a run costs as much as one that learns. Updates may vanish in the precision of the weights, or the learning rate may be a
        thousandth of what was meant; groups whose rewards are all equal have advantages of zero.

    Parameters and where the defaults come from:
        still_kl 1e-6 (d = 0.001), still_steps 50, zero_spread 0.9 and zero_spread_steps 20: rule R28 of the catalogue, judged from runs on
        record; TRL's GRPO with two groups a step shows up to 9 such steps in a row by chance. zero_kl 1e-12 is
        KLA302's zero. slope_t 3 is the usual three standard errors. quiet_steps 3 is a convention.

    What to do:
        Movement: look at the learning rate, at gradient clipping, and whether updates survive the rounding of the weights. Signal: give
        tasks of mixed difficulty, more samples a group or a finer reward; where all is solved, stop.

    Example finding:
        In 20 steps up to step 140, 90% or more of the groups had the same reward for every text: advantages are zero and nothing is learnt.
    """

    code = "KLA607"
    name = "stalled"
    version = 1
    severities = (Severity.WARNING,)
    parameters_model = StalledParameters

    def __init__(self, run: Run, *, parameters: StalledParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.still = self.start_episode(series=run.governing_key, subject="movement", quiet_steps=parameters.quiet_steps)
        self.spreadless = self.start_episode(series=ZERO_SPREAD, subject="signal", quiet_steps=parameters.quiet_steps)
        self.n_kl = 0
        self.n_scores = 0
        self.n_spreads = 0
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self.score = RollingTrend(self.parameters.still_steps)
        self._n_still = 0
        self._still_since = 0
        self._n_spreadless = 0
        self._spreadless_since = 0

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        told = self._observe_spread(observation), self._observe_movement(observation)
        return [finding for finding in told if finding is not None] if any(told) else ()

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.n_kl:
            yield "movement: no finite governing KL that can be brought to nats per sequence"
        elif not self.n_scores:
            yield "movement: no finite score is logged"
        if not self.n_spreads:
            yield f"signal: no finite {ZERO_SPREAD!r} is logged"

    def _observe_spread(self, observation: Observation) -> Finding | None:
        share = observation.number(ZERO_SPREAD)
        if share is None:
            return None
        self.n_spreads += 1
        if share < self.parameters.zero_spread:
            self._n_spreadless = 0
        else:
            if not self._n_spreadless:
                self._spreadless_since = observation.step
            self._n_spreadless += 1
        is_stalled = self._n_spreadless >= self.parameters.zero_spread_steps
        return self.spreadless.observe(observation.record, self._judge_spread(observation.step, share=share) if is_stalled else None)

    def _observe_movement(self, observation: Observation) -> Finding | None:
        kl, score = find_kl_per_sequence(observation), observation.number("score")
        if score is not None:
            self.n_scores += 1
            self.score.observe(score, position=observation.step)
        if kl is None:
            return None
        self.n_kl += 1
        if observation.step <= 1 or observation.record.metrics.get("learning_rate") == 0 or abs(kl) < self.parameters.zero_kl:
            return None
        if abs(kl) >= self.parameters.still_kl:
            self._n_still = 0
            if not self.still.is_open:
                return None
        else:
            if not self._n_still:
                self._still_since = observation.step
            self._n_still += 1
        return self.still.observe(observation.record, self._judge_movement(observation.step, kl=kl))

    def _judge_spread(self, step: int, *, share: float) -> Judgement:
        limits = self.parameters
        return Judgement(
            severity=Severity.WARNING,
            badness=self._n_spreadless,
            message=f"In {self._n_spreadless} steps up to step {step}, {limits.zero_spread:.0%} or more of the groups had the same reward for every text: "
            "advantages are zero and nothing is learnt.",
            remedy="Give tasks of mixed difficulty, more samples a group or a finer reward; where every task is solved, stop.",
            value=float(self._n_spreadless),
            threshold=float(limits.zero_spread_steps),
            unit="steps",
            evidence={"kind": "signal", ZERO_SPREAD: share, "n_steps": self._n_spreadless, "limits": limits.model_dump()},
            first_step=self._spreadless_since,
        )

    def _judge_movement(self, step: int, *, kl: float) -> Judgement | None:
        limits = self.parameters
        if self._n_still < limits.still_steps or len(self.score) < limits.still_steps:
            return None
        line = self.score.fit()
        if line is None or not abs(line.t) <= limits.slope_t:
            return None
        return Judgement(
            severity=Severity.WARNING,
            badness=self._n_still,
            message=f"For {self._n_still} steps up to step {step} the KL to the reference has stayed below {limits.still_kl:g} nats/sequence, "
            f"and the score at {line.mean:.3g} has no slope: the policy does not move.",
            remedy="Look at the learning rate, at gradient clipping, and whether updates survive the rounding of the weights (bfloat16 loses those below 0.4% of a weight).",
            value=float(self._n_still),
            threshold=float(limits.still_steps),
            unit="steps",
            evidence={
                "kind": "movement",
                "kl_per_sequence": kl,
                "n_steps": self._n_still,
                "score": {"mean": line.mean, "slope": line.slope, "standard_error": line.standard_error, "n": line.n},
                "limits": limits.model_dump(),
            },
            first_step=self._still_since,
        )


def find_kl_per_sequence(observation: Observation) -> float | None:
    """The governing reading in nats per sequence; None where there is none, or no length to convert it by."""
    kl = None if observation.governing is None else observation.governing.value_in("nats_per_sequence")
    return kl if kl is not None and math.isfinite(kl) else None
