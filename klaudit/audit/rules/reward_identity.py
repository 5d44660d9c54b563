"""KLA306 reward_identity."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field

from klaudit.audit.episode import Episode, Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.proportion import Proportion
from klaudit.detectors.resolution import count_decimals
from klaudit.records import PRIMARY, Finding, Run, Severity, StepRecord

FLOAT32 = 1e-6
"""Relative rounding of means that trainers take in float32, a few of its steps."""
SIMILAR = (0.4, 2.5)
"""Factors between these are a mismatch; others are another unit: a mean length, or a mean over parts of a batch."""
NEXT_TO_NOTHING = 0.1
"""A penalty below this share of what it ought to be is none."""


class RewardIdentityParameters(RuleParameters):
    """Parameters of KLA306."""

    learn_steps: int = Field(default=8, ge=3, le=1000, description="steps from which it is learned how the numbers belong together")
    tolerance: float = Field(default=0.02, gt=0, lt=1, description="relative difference that is no mismatch")
    least_kl: float = Field(default=1e-4, ge=0, description="absolute KL below which a step says nothing of beta, in the series' unit")
    broken_steps: int = Field(default=2, ge=1, le=3, description="steps with a mismatch, of three in a row, that make a finding")
    quiet_steps: int = Field(default=3, ge=1, le=1_000_000, description="steps without a mismatch that end an episode")


@dataclass(slots=True)
class Identity:
    """One of the two equations, and how it fares."""

    name: str
    left: str
    """What y is, for people."""
    right: str
    """What x is, for people."""
    episode: Episode
    proportion: Proportion
    last_three: tuple[bool, ...] = ()
    """Whether it was broken at the last three steps that could be judged."""
    first_step: int = 0
    last_kept: int | None = None
    """The last step at which it held."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A KL that the penalty may be made of, with the beta of the same step or of the one before."""

    key: str
    lag: int
    proportion: Proportion


class RewardIdentity(Rule[RewardIdentityParameters]):
    """The reward that is trained on is not score - beta x KL any more.

    What it checks:
        Two equations between numbers of one step. taken: what the reward lost, score - rlhf_reward, against `kl_penalty`. priced:
        `kl_penalty` against beta x KL, where the KL is whichever reference series of the run the penalty is made of, and beta that of the
        step, or of the step before where the trainer logs it after its update; without a recorded beta it is the implied beta that has
        to stay. Trainers log these numbers with other signs, units and aggregations, so each run is first asked how they belong together.

    Formula:
        y = c x, c the median of y / x over learn_steps steps, all but one within 3%: else the next learn_steps are tried, and the rule is
        silent after five times. Then: |y - c x| > max(tolerance, 5 x the learned spread) |c x| + rounding, at broken_steps of three
        steps in a row, is a mismatch. So is a c between 0.4 and 2.5 that is not 1, from the start. A c of -1 or beyond these is a convention or a
        unit, except that a penalty of -beta x KL which the reward still takes off is a mismatch. Rounding is half a unit of the last
        decimal that the log writes; steps on which it exceeds a tenth of the number are left out. critical: the penalty has the
        opposite sign, or less than a tenth of its size. warning: all others.

    Why it matters:
        The mission's objective is R - beta KL. If what is subtracted is not what is recorded, every curve of KL, penalty and reward tells
        of another training than the one that runs: a hidden change of beta, a penalty of another batch, a flipped sign.

    Parameters and where the defaults come from:
        tolerance 2% and least_kl: rule R27 of the catalogue has 1% and 1e-3 nats; 2% leaves room for means of means, and the smaller KL
        for series in nats per token. learn_steps 8 so that a change after ten steps is found. broken_steps 2, because a beta
        that is logged one step late makes a mismatch of one step. quiet_steps 3 is a convention.

    What to do:
        Find where the trainer computes the penalty: compare its beta, its KL estimator and its mask with those that are logged, and log
        the implied beta, kl_penalty / KL, as a series of its own.

    Example finding:
        kl_penalty was 1.3 times beta x kl at step 57 (0.026 against 0.02), and had been 1 times up to step 55.
    """

    code = "KLA306"
    name = "reward_identity"
    version = 1
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = RewardIdentityParameters
    needs = frozenset({"kl_penalty"})

    def __init__(self, run: Run, *, parameters: RewardIdentityParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        others = sorted(key for key, series in run.series.items() if series.kind == "reference" and key != PRIMARY)
        is_primary_possible = PRIMARY not in run.series or run.series[PRIMARY].kind in ("reference", "unknown")
        self.keys = [PRIMARY, *others] if is_primary_possible else others
        self.n_penalties = 0
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self.episodes.clear()
        self._decimals: dict[str, int] = {}
        self._last_beta: float | None = None
        self._had_beta = False
        self._taken = self._start_identity("taken", left="score - rlhf_reward", right="kl_penalty")
        self._priced: Identity | None = None
        self._chosen: Candidate | None = None
        self._candidates = [Candidate(key, lag, self._start_proportion()) for key in self.keys for lag in (0, 1)]

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        penalty = observation.record.metrics.get("kl_penalty")
        if penalty is None or not math.isfinite(penalty):
            return ()
        self.n_penalties += 1
        told = self._observe_taken(observation, penalty), self._observe_priced(observation, penalty)
        if observation.record.beta is not None:
            self._last_beta, self._had_beta = observation.record.beta, True
        return [finding for finding in told if finding is not None] if any(told) else ()

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.n_penalties:
            yield "no kl_penalty is logged"
        elif self._chosen is None:
            yield f"kl_penalty was not found to be a multiple of beta x KL, by any of {', '.join(self.keys)}"
        if self.n_penalties and self._taken.proportion.factor is None:
            yield "score - rlhf_reward was not found to be a multiple of kl_penalty"

    def _start_proportion(self) -> Proportion:
        return Proportion(learn=self.parameters.learn_steps, tolerance=self.parameters.tolerance)

    def _start_identity(self, name: str, *, left: str, right: str, proportion: Proportion | None = None) -> Identity:
        episode = self.start_episode(series=None, subject=name, quiet_steps=self.parameters.quiet_steps)
        return Identity(name, left, right, episode, proportion or self._start_proportion())

    def _observe_taken(self, observation: Observation, penalty: float) -> Finding | None:
        proportion = self._taken.proportion
        if proportion.is_hopeless:
            return None
        score, reward = observation.record.score, observation.record.metrics.get("rlhf_reward")
        if score is None or reward is None or not (math.isfinite(score) and math.isfinite(reward)):
            return None
        taken = score - reward
        holds = proportion.holds(penalty, taken)
        if not holds:
            # A score may be 0.5 exactly; what both were rounded to shows in the reward.
            rounding = 2 * self._round("rlhf_reward", reward) + self._round("kl_penalty", penalty)
            rounding += FLOAT32 * max(abs(score), abs(reward))
            proportion.observe(penalty, taken, rounding=rounding)
            holds = proportion.holds(penalty, taken, rounding=rounding)
        return None if holds is None else self._judge(self._taken, observation.record, penalty, taken, holds=holds)

    def _observe_priced(self, observation: Observation, penalty: float) -> Finding | None:
        if self._chosen is None:
            self._choose(observation, penalty)
        chosen = self._chosen
        if chosen is None:
            return None
        identity = self._priced or self._begin_priced(chosen)
        priced = self._price(observation.record, chosen)
        if priced is None:
            return None
        beta, kl = priced
        holds = identity.proportion.holds(beta * kl, penalty)
        if not holds:
            rounding = self._round("kl_penalty", penalty) + abs(beta) * self._round(chosen.key, kl)
            holds = identity.proportion.holds(beta * kl, penalty, rounding=rounding)
        return None if holds is None else self._judge(identity, observation.record, beta * kl, penalty, holds=holds)

    def _begin_priced(self, chosen: Candidate) -> Identity:
        beta = "beta x" if self._had_beta or self.run.beta is not None else "the usual beta x"
        late = ", beta of the step before" if chosen.lag else ""
        self._priced = self._start_identity("priced", left="kl_penalty", right=f"{beta} {chosen.key}{late}", proportion=chosen.proportion)
        return self._priced

    def _choose(self, observation: Observation, penalty: float) -> None:
        """Learn of each KL whether the penalty is made of it; of several, that whose factor is nearest to 1."""
        for candidate in self._candidates:
            priced = None if candidate.proportion.is_hopeless else self._price(observation.record, candidate)
            if priced is not None:
                beta, kl = priced
                rounding = self._round("kl_penalty", penalty) + abs(beta) * self._round(candidate.key, kl)
                candidate.proportion.observe(beta * kl, penalty, rounding=rounding)
        known = [(abs(one.proportion.factor - 1), one.lag, one) for one in self._candidates if one.proportion.factor is not None]
        if known:
            self._chosen = min(known, key=lambda entry: entry[:2])[2]

    def _price(self, record: StepRecord, candidate: Candidate) -> tuple[float, float] | None:
        """Beta and KL of a step; beta is 1 in a run that records none, None where the step cannot be judged."""
        reading = record.kl if candidate.key == PRIMARY else record.readings.get(candidate.key)
        if reading is None or reading.value is None or not self.parameters.least_kl <= abs(reading.value) < math.inf:
            return None
        beta = self._last_beta if candidate.lag else record.beta
        if beta is None and not self._had_beta and not candidate.lag:
            beta = 1.0 if self.run.beta is None else self.run.beta
        return (beta, reading.value) if beta and math.isfinite(beta) else None

    def _round(self, name: str, value: float) -> float:
        """Half a unit of the last decimal that the log writes of a number."""
        self._decimals[name] = max(self._decimals.get(name, 0), count_decimals(value))
        return 0.5 * 10.0 ** -self._decimals[name]

    def _judge(self, identity: Identity, record: StepRecord, x: float, y: float, *, holds: bool) -> Finding | None:
        if holds and not self._is_wrong_from_the_start(identity):
            identity.last_three, identity.last_kept = (*identity.last_three[-2:], False), record.step
            return identity.episode.observe(record, None) if identity.episode.is_open else None
        identity.first_step = identity.first_step if any(identity.last_three[-2:]) else record.step
        identity.last_three = (*identity.last_three[-2:], True)
        if sum(identity.last_three) < self.parameters.broken_steps:
            return None
        return identity.episode.observe(record, self._describe(identity, record, x, y))

    def _is_wrong_from_the_start(self, identity: Identity) -> bool:
        factor = identity.proportion.factor
        assert factor is not None
        if factor == 1:
            return False
        if identity is self._priced and not self._had_beta and self.run.beta is None:
            return False
        if factor < 0:
            # -1: trainers log the penalty as what is added to the reward. It is one only if the reward takes it off.
            return identity is self._priced and SIMILAR[0] < -factor < SIMILAR[1] and (self._taken.proportion.factor or 0) > 0
        return SIMILAR[0] < factor < SIMILAR[1] and abs(factor - 1) > self.parameters.tolerance

    def _describe(self, identity: Identity, record: StepRecord, x: float, y: float) -> Judgement:
        factor = identity.proportion.factor
        assert factor is not None
        is_learned_wrong = identity.last_kept is None
        expected = x if is_learned_wrong else factor * x
        share = y / expected if expected else math.inf
        before = "" if is_learned_wrong else f", and had been {factor:.3g} times up to step {identity.last_kept}"
        return Judgement(
            severity=Severity.CRITICAL if share < NEXT_TO_NOTHING else Severity.WARNING,
            badness=round(abs(share - 1), 2),
            message=f"{identity.left} was {y / x:.3g} times {identity.right} at step {record.step} ({y:.3g} against {x:.3g}){before}.",
            remedy="Find where the trainer computes the penalty: compare its beta, its KL estimator and its mask with those that are logged.",
            value=y / x if x else None,
            threshold=1.0 if is_learned_wrong else factor,
            unit="ratio",
            evidence={
                "identity": identity.name,
                "left": y,
                "right": x,
                "ratio": y / x if x else None,
                "learned_factor": factor,
                "tolerance": identity.proportion.tolerance,
                "last_step_kept": identity.last_kept,
            },
            first_step=identity.first_step,
        )
