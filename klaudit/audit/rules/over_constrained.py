"""KLA608 over_constrained."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.slope import SlopeTest
from klaudit.frontier.point import keep_number
from klaudit.records import Finding, KLBudget, Run, Severity

SPREADS = ("score_std", "reward_std")
"""Metrics that hold the standard deviation of the score within a batch, the first that is there."""

UNBUDGETED_KL = 1.0
"""Nats per sequence for which a beta is named where no budget says how far a policy may go."""


class OverConstrainedParameters(RuleParameters):
    """Parameters of KLA608."""

    steps: int = Field(default=50, ge=8, le=100_000, description="steps over which KL and score are averaged")
    least_d: float = Field(default=0.1, gt=0, le=1e6, description="d in sqrt(nats) under which a policy is pinned to its reference")
    budget_share: float = Field(default=0.05, gt=0, lt=1, description="share of a budget under which it is, where that is more")
    rising_t: float = Field(default=3.0, gt=0, description="standard errors from which the score counts as rising")
    quiet_steps: int = Field(default=10, ge=1, le=1_000_000, description="steps without it that end an episode")


@dataclass(frozen=True, slots=True)
class Grip:
    """How tightly beta holds."""

    kl: float
    """Mean, in nats per sequence."""
    beta: float
    spread: float
    """Standard deviation of the score between sequences, in reward."""
    is_measured: bool
    """The spread is that of the trainer, not worked out from batch means."""
    limit: float
    """KL under which the policy is pinned, in nats per sequence."""
    room: float
    """KL for which a beta is proposed, in nats per sequence."""

    @property
    def reachable_kl(self) -> float:
        """KL of the best policy at this beta, in nats per sequence."""
        ratio = self.spread / self.beta
        return ratio * ratio / 2

    @property
    def proposed_beta(self) -> float:
        """The beta at which the best policy has the KL `room`."""
        return self.spread / math.sqrt(2 * self.room)


class OverConstrained(Rule[OverConstrainedParameters]):
    """The penalty is so strong that the policy cannot learn.

    What it checks:
        Over `steps` steps: the KL per sequence stays next to nothing, the score does not rise although it differs between sequences, and beta is so
        large that even the best policy under it would stay where this one is. Steps without KL, score or a beta above 0 are left out, as are
        those at learning rate 0. A policy that stands still for another reason is KLA607 stalled.

    Formula:
        mean KL < limit and s^2 / (2 beta^2) < limit and t of the score's slope < rising_t, with limit = max(least_d^2, budget_share x the least
        budget of the run on the KL of a step) in nats/sequence and s the standard deviation of the score within a batch (`score_std`, else
        `reward_std`, else sqrt(batch size) x that of the batch means). The best policy for reward - beta KL is reference x exp(reward / beta)
        (Korbak, Perez, Buckley 2022, arXiv 2205.11275); where rewards are normal its KL is s^2 / (2 beta^2). So a KL of L takes beta = s / sqrt(2 L).
        Warning; info where s had to be worked out from batch means.

    Why it matters:
        Such a run is paid for and learns nothing, and its small KL passes for safety. The limit of a budget, if there is one, allows more.

    Parameters and where the defaults come from:
        steps 50 is that of rule R28 of the catalogue. least_d 0.1 sqrt(nats), that is 0.01 nats/sequence, is a judgement: TRL's documentation
        takes 0 to 10 nats/sequence as usual. budget_share 0.05: a policy that uses a twentieth of what its owner allows. rising_t 3: a score that rises by less than that may stand
        still. quiet_steps 10 is a convention.

    What to do:
        Lower beta to what the message names, or by a factor of 3 at a time. If the score is meant to be whitened or scaled, beta belongs to the scaled one.

    Example finding:
        KL was 0.0012 nats/sequence on average over steps 1 to 50 and the score did not rise: at beta 8 reward/nat and a score that differs by 0.3 reward even the best policy would reach only 0.0007 nats/sequence.
    """

    code = "KLA608"
    name = "over_constrained"
    version = 1
    severities = (Severity.INFO, Severity.WARNING)
    parameters_model = OverConstrainedParameters

    def __init__(self, run: Run, *, parameters: OverConstrainedParameters, budgets: Sequence[KLBudget] = ()) -> None:
        super().__init__(run, parameters=parameters, budgets=budgets)
        self.levels = [one for one in self.budgets if one.scope in ("per_step", "window")]
        self.episode = self.start_episode(series=run.governing_key, quiet_steps=parameters.quiet_steps)
        self.most_steps = 0
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self._steps: deque[tuple[int, float, float]] = deque(maxlen=self.parameters.steps)
        self._total_kl = self._total_variance = 0.0
        self._n_since = 0
        self._score = SlopeTest(self.parameters.steps)
        self._is_measured = True

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        d, score = observation.d, keep_number(observation.record.score)
        beta = self.run.beta if observation.record.beta is None else observation.number("beta")
        if d is None or score is None or beta is None or beta <= 0 or observation.record.metrics.get("learning_rate") == 0:
            return ()
        self._score.observe(score)
        self._push(observation, d * d)
        if len(self._steps) < self.parameters.steps:
            return ()
        judgement = self._judge(observation, beta=beta)
        if judgement is None and not self.episode.is_open:
            return ()
        finding = self.episode.observe(observation.record, judgement)
        return () if finding is None else (finding,)

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if self.most_steps < self.parameters.steps:
            yield (
                f"needs {self.parameters.steps} steps of one segment with a KL per sequence, a score and a beta above 0; the most was {self.most_steps}"
            )

    def _push(self, observation: Observation, kl: float) -> None:
        spread, metrics = None, observation.record.metrics
        for name in SPREADS:
            if spread is None and name in metrics:
                spread = keep_number(metrics[name])
        self._is_measured = spread is not None
        variance = spread**2 if spread is not None else 0.0
        if len(self._steps) == self.parameters.steps:
            _, old_kl, old_variance = self._steps[0]
            self._total_kl -= old_kl
            self._total_variance -= old_variance
        self._steps.append((observation.step, kl, variance))
        self._total_kl += kl
        self._total_variance += variance
        self._n_since += 1
        if self._n_since >= self.parameters.steps:
            # Taken anew, so that rounding does not add up.
            self._total_kl = sum(one[1] for one in self._steps)
            self._total_variance = sum(one[2] for one in self._steps)
            self._n_since = 0
        self.most_steps = max(self.most_steps, len(self._steps))

    def _judge(self, observation: Observation, *, beta: float) -> Judgement | None:
        n = self.parameters.steps
        kl = max(self._total_kl / n, 0.0)
        room, limit = self._find_room(observation)
        if kl >= limit:
            return None
        slope = self._score.fit()
        if slope is None or slope.t >= self.parameters.rising_t:
            return None
        spread = math.sqrt(max(self._total_variance / n, 0.0)) if self._is_measured else self._guess_spread(observation)
        grip = Grip(kl, beta, spread, self._is_measured, limit, room)
        if spread <= 0 or grip.reachable_kl >= limit:
            return None
        return self._describe(grip, step=observation.step)

    def _find_room(self, observation: Observation) -> tuple[float, float]:
        """KL that the least budget allows, and KL under which the policy is pinned; both in nats per sequence."""
        least = self.parameters.least_d**2
        if not self.levels:
            return UNBUDGETED_KL, least
        length = None if observation.governing is None else observation.governing.mean_length
        factors = {"nats_per_sequence": 1.0, "nats_per_token": length}
        limits = [one.limit * factor for one in self.levels if (factor := factors[one.unit]) is not None]
        return (min(limits), max(least, self.parameters.budget_share * min(limits))) if limits else (UNBUDGETED_KL, least)

    def _guess_spread(self, observation: Observation) -> float:
        reading = observation.governing
        n_sequences = None if reading is None else reading.n_sequences
        return 0.0 if n_sequences is None else math.sqrt(n_sequences) * self._score.find_noise()

    def _describe(self, grip: Grip, *, step: int) -> Judgement:
        first = self._steps[0][0]
        allowed = f"the budget of {grip.room:.3g} nats/sequence" if self.levels else f"a KL of {grip.room:.3g} nats/sequence"
        guessed = "" if grip.is_measured else " (worked out from batch means)"
        return Judgement(
            severity=Severity.WARNING if grip.is_measured else Severity.INFO,
            badness=-grip.reachable_kl,
            message=f"KL was {grip.kl:.2g} nats/sequence on average over steps {first} to {step} and the score did not rise: at beta {grip.beta:.3g} reward/nat and a "
            f"score that differs by {grip.spread:.2g} reward{guessed} even the best policy would reach only {grip.reachable_kl:.2g} nats/sequence.",
            remedy=f"Lower beta: {allowed} would be reached at {grip.proposed_beta:.2g} reward/nat by the best policy, if rewards are normal.",
            value=grip.kl,
            threshold=grip.limit,
            unit="nats_per_sequence",
            evidence={
                "beta": grip.beta,
                "score_spread": grip.spread,
                "is_spread_measured": grip.is_measured,
                "reachable_kl": grip.reachable_kl,
                "proposed_beta": grip.proposed_beta,
                "for_kl": grip.room,
                "window": {"steps": [one[0] for one in self._steps], "kl": [one[1] for one in self._steps]},
            },
            first_step=first,
        )
