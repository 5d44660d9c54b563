"""KLA602 overoptimization."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.reward_watch import RunningMean
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.frontier import FORMS, Fit, Interval, Moments, find_peak, fit_form, keep_number
from klaudit.records import Finding, Run, Severity

N_KEPT = 64
"""Blocks that are kept as evidence."""

MOST_UNSUMMED = 32
"""Blocks that wait for their sums to be taken at once, which costs hardly more than those of one."""

FIRST_LOOK = 0.8
"""Share of fall_z, in standard errors of independent points, by which the last block lies under the best one before anything is fitted."""


class OveroptimizationParameters(RuleParameters):
    """Parameters of KLA602."""

    block: int = Field(default=10, ge=2, le=1000, description="points with a held-out score between two fits, and in each mean")
    near_peak: float = Field(default=0.8, gt=0, le=1, description="share of d* from which d makes a warning")
    fall_z: float = Field(
        default=4.5, gt=0, description="standard errors by which the last block's held-out score lies under the best block's"
    )
    confidence: float = Field(default=0.95, ge=0.5, le=0.9999, description="of the interval of d*, two-sided")
    quiet_blocks: int = Field(default=2, ge=1, le=1_000_000, description="blocks without it that end an episode")


@dataclass(frozen=True, slots=True)
class Block:
    """Means over a few points."""

    step: int
    """The last one."""
    d: float
    heldout: float


class Overoptimization(Rule[OveroptimizationParameters]):
    """The policy has drifted past the peak of its held-out score.

    What it checks:
        Held-out score against d = sqrt(KL per sequence), d as the mean over the steps since the last held-out score. Every `block` points
        both of Gao's curves are fitted to all points of the segment, of which only sums are kept, and d is compared with the peak of the
        better one. Only a peak that was seen counts: it lies among the points, and at a later block with a larger d the held-out score had fallen from that
        of its best block.

    Formula:
        R = R0 + d (alpha - beta ln d), peak d* = exp(alpha / beta - 1); or R = R0 + d (alpha - beta d), d* = alpha / (2 beta); least squares that
        allows for AR(1) residuals, Fieller's interval for d*. Fall: (best block - last block) >= fall_z x s sqrt(2 (1 + rho) / ((1 - rho) block)),
        s and rho those of the residuals. Warning: d > near_peak x d*. Critical: d > the upper end of the interval of d*. d is that of the last block.

    Why it matters:
        Past d* every nat costs reward that people would give, while the trained score goes on rising. KL* = d*^2 is a KL budget that the data
        propose.

    Parameters and where the defaults come from:
        Rule R17 of the catalogue (Gao, Schulman, Hilton 2022, arXiv 2210.10760), near_peak 0.8 is its; it is critical beyond d* there, here beyond
        what noise leaves of d* (confidence 0.95), as with budgets. block 10 and quiet_blocks 2 are conventions. The demand for a fall is added:
        a curve that can only bend down fits a healthy score that levels off with a peak near the largest d, which 0.8 d* alone would report in
        every such run. fall_z 4.5 is set by simulation: under 0.05 findings per 1,000 steps of healthy runs (tests/audit/rules).

    What to do:
        Go back to the checkpoint nearest d*, raise beta so that runs end there (`klaudit frontier` proposes a beta and a budget), or retrain the
        reward model on what the policy writes now.

    Example finding:
        d = 3.79 sqrt(nats) at step 40 is past the peak of the held-out score at d* = 2.21 [2.02, 2.39] sqrt(nats), KL* = 4.9 nats/sequence: the last 10 held-out scores lie 0.198 reward under the best 10.
    """

    code = "KLA602"
    name = "overoptimization"
    version = 1
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = OveroptimizationParameters

    def __init__(self, run: Run, *, parameters: OveroptimizationParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.episode = self.start_episode(series="heldout_score", quiet_steps=parameters.quiet_blocks)
        self.n_blocks = 0
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self._moments = Moments()
        self._unsummed: list[tuple[tuple[float, ...], tuple[float, ...]]] = []
        self._distance = RunningMean()
        self._points: list[tuple[float, float]] = []
        self._blocks: deque[Block] = deque(maxlen=N_KEPT)
        self._best: Block | None = None
        self._is_seen = False
        self._within = 0.0
        self._n_within = 0

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        heldout = keep_number(observation.record.metrics.get("heldout_score"))
        d = observation.d
        if d is not None:
            self._distance.add(d)
        if heldout is None or not self._distance.n:
            return ()
        self._points.append((self._distance.take(), heldout))
        if len(self._points) < self.parameters.block:
            return ()
        block = self._close_block(observation.step)
        finding = self.episode.observe(observation.record, self._judge(block))
        if self._best is None or block.heldout > self._best.heldout:
            self._best = block
        return () if finding is None else (finding,)

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if self.n_blocks < 2:
            yield f"needs {2 * self.parameters.block} steps or more with a held-out score and a KL in nats per sequence"

    def _close_block(self, step: int) -> Block:
        distances, scores = zip(*self._points, strict=True)
        self._points.clear()
        self._unsummed.append((distances, scores))
        if len(self._unsummed) >= MOST_UNSUMMED:
            self._sum_up()
        n = len(scores)
        block = Block(step, sum(distances) / n, sum(scores) / n)
        self._within += sum((score - block.heldout) ** 2 for score in scores)
        self._n_within += n - 1
        self._blocks.append(block)
        self.n_blocks += 1
        return block

    def _judge(self, block: Block) -> Judgement | None:
        best = self._best
        if best is None or not (self._is_seen or self._may_have_fallen(block, best)):
            return None
        fit = self._fit_better()
        if fit is None:
            return None
        peak = find_peak(fit, confidence=self.parameters.confidence)
        # Without points at hand no peak is called inside; what the blocks say of the fall is asked next.
        if peak.d is None or peak.kind != "plateau":
            return None
        self._is_seen |= best.d < block.d and best.heldout - block.heldout >= self.parameters.fall_z * self._find_error(fit)
        if not self._is_seen or block.d <= self.parameters.near_peak * peak.d.value:
            return None
        return self._describe(block, best, fit=fit, d=peak.d)

    def _may_have_fallen(self, block: Block, best: Block) -> bool:
        """Whether a fit is worth its time."""
        error = math.sqrt(2 * self._within / self._n_within / self.parameters.block)
        return best.d < block.d and best.heldout - block.heldout > FIRST_LOOK * self.parameters.fall_z * error

    def _find_error(self, fit: Fit) -> float:
        """Standard error of the difference of two blocks, in reward."""
        return fit.residual_sd * math.sqrt(2 * (1 + fit.memory) / ((1 - fit.memory) * self.parameters.block))

    def _sum_up(self) -> None:
        if self._unsummed:
            distances, scores = (list(chain.from_iterable(one)) for one in zip(*self._unsummed, strict=True))
            self._unsummed.clear()
            self._moments.add(distances, scores)

    def _fit_better(self) -> Fit | None:
        self._sum_up()
        fits = [fit for form in FORMS if isinstance(fit := fit_form(self._moments, form), Fit)]
        return min(fits, key=lambda one: one.residual_sd**2 * (1 - one.memory**2), default=None)

    def _describe(self, block: Block, best: Block, *, fit: Fit, d: Interval) -> Judgement:
        is_critical = block.d > d.high
        where = "is past the peak" if block.d > d.value else f"has passed {self.parameters.near_peak:.0%} of the way to the peak"
        n = self.parameters.block
        return Judgement(
            severity=Severity.CRITICAL if is_critical else Severity.WARNING,
            badness=block.d / d.value,
            message=f"d = {block.d:.3g} sqrt(nats) at step {block.step} {where} of the held-out score at d* = {d.value:.3g} [{d.low:.3g}, {d.high:.3g}] sqrt(nats), "
            f"KL* = {d.value**2:.3g} nats/sequence: the last {n} held-out scores lie {best.heldout - block.heldout:.3g} reward under the best {n}.",
            remedy=f"Go back to the checkpoint before step {best.step} and raise beta; KL* = {d.value**2:.3g} nats/sequence is the budget that these data propose.",
            value=block.d,
            threshold=d.high if is_critical else self.parameters.near_peak * d.value,
            unit="sqrt(nats)",
            evidence={
                "form": fit.form,
                "offset": fit.offset,
                "alpha": fit.alpha,
                "bend": fit.bend,
                "peak_d": [d.low, d.value, d.high],
                "n_points": fit.n,
                "residual_sd": fit.residual_sd,
                "memory": fit.memory,
                "best_step": best.step,
                "blocks": self._tabulate(),
            },
            first_step=best.step,
        )

    def _tabulate(self) -> dict[str, Any]:
        blocks = list(self._blocks)
        return {"steps": [one.step for one in blocks], "d": [one.d for one in blocks], "heldout_score": [one.heldout for one in blocks]}
