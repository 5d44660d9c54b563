"""KLA402 beta_changed."""

from collections import deque
from collections.abc import Iterator, Sequence

from pydantic import Field

from klaudit.audit.beta_settings import read_beta_settings
from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.setting import Move, SettingWatch
from klaudit.records import Finding, Run, Severity, StepRecord

UNIT = "reward/nat"
REMEDY = (
    "Find out who or what set beta at this step: a config that was edited, a resume with other arguments, a callback, a controller that "
    "was re-created. Set it back, or begin a new run: before and after are two experiments."
)
KEPT = 20
"""Betas that are kept as evidence."""


class BetaChangedParameters(RuleParameters):
    """Parameters of KLA402."""

    tolerance: float = Field(default=0.001, gt=0, le=1, description="what a fixed beta may change by, as a share of it")
    floor: float = Field(default=0.25, gt=0, le=10, description="what a beta that moves may take in one step in any case, as a share of it")
    factor: float = Field(
        default=5.0, ge=1, le=100, description="how many times its largest earlier step a beta that moves may take in one step"
    )
    collapse: float = Field(default=0.05, gt=0, lt=1, description="share of what it was below which a change of beta is critical")
    quiet_steps: int = Field(default=5, ge=1, le=1_000_000, description="steps without a change too large that end an episode")


class BetaChanged(Rule[BetaChangedParameters]):
    """The KL coefficient moves further than whatever sets it would move it.

    What it checks:
        Beta at each step against the one before it, across segments too: a resume may go back to a beta that a moving one had before. A
        beta that was equal for 3 steps or more is fixed, one that moves smoothly is a controller's or a schedule's. Steps without a finite
        beta are left out.

    Formula:
        Step: s = larger / smaller - 1, so that doubling and halving are both 1. Fixed: s > tolerance, but for one unit of the last decimal
        place, as a slow controller looks in a rounded log. Moving: s > max(floor, factor x largest earlier s), and more than factor times
        the largest earlier step in reward/nat, so that a line down to zero is quiet. Largest: each later step takes 5% off it. Warning; critical
        where beta falls below collapse x what it was, to zero or below, in one step or within 20.

    Why it matters:
        Beta is what holds the policy to the reference. Lost, the policy is free to leave; with its sign flipped, leaving is rewarded; and
        after any change the curve shows two experiments as one.

    Parameters and where the defaults come from:
        floor 0.25: the controller of Ziegler et al. (arXiv 1909.08593) takes at most 20% of beta, 25% on the way back, off in one update, and
        0.5% with 256 sequences and horizon 10,000. factor 5 and tolerance 0.001 are conventions, held by simulation in
        tests/audit/rules/test_beta_changed.py: adaptive controllers on noisy KL, warm-up, linear, cosine and exponential schedules and
        rounded logs give no finding. collapse 0.05: what is left of the penalty is then within its own noise. quiet_steps 5 is a convention.

    What to do:
        Find out who or what set beta at this step, set it back, or begin a new run.

    Example finding:
        Beta fell from 0.05 to 0 reward/nat at step 41, after 40 steps at 0.05: there is no KL penalty any more.
    """

    code = "KLA402"
    name = "beta_changed"
    version = 1
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = BetaChangedParameters

    def __init__(self, run: Run, *, parameters: BetaChangedParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        settings = read_beta_settings(run.config)
        self.listed = settings.listed
        self.n_betas = 0
        self.episode = self.start_episode(series="beta", quiet_steps=parameters.quiet_steps)
        self._recent: deque[tuple[int, float]] = deque(maxlen=KEPT)
        self._watch = SettingWatch(
            tolerance=parameters.tolerance,
            floor=parameters.floor,
            factor=parameters.factor,
            collapse=parameters.collapse,
            is_moving=settings.is_adaptive or settings.is_scheduled,
        )

    def reset(self) -> None:
        """See Rule: the next beta is held against the last one of the segment before."""
        self._watch.begin_segment()

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        beta = observation.number("beta")
        if beta is None:
            return ()
        self.n_betas += 1
        move = self._watch.observe(beta)
        self._recent.append((observation.record.step, beta))
        if move is None and not self.episode.is_open:
            return ()
        judgement = None if move is None or self._is_listed(beta) else self._judge(move, record=observation.record)
        finding = self.episode.observe(observation.record, judgement)
        return () if finding is None else (finding,)

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if self.n_betas < 2:
            yield "fewer than two finite betas are on record"

    def _is_listed(self, beta: float) -> bool:
        return any(abs(beta - one) <= self.parameters.tolerance * abs(one) for one in self.listed)

    def _judge(self, move: Move, *, record: StepRecord) -> Judgement:
        is_lost = move.before > 0 and move.now < self.parameters.collapse * move.before
        return Judgement(
            severity=Severity.CRITICAL if is_lost or move.now < 0 else Severity.WARNING,
            badness=abs(move.now - move.before) / (abs(move.before) or 1.0),
            message=f"{describe_move(move, record=record)}{describe_outcome(move.now)}.",
            remedy=REMEDY,
            value=move.now,
            threshold=move.before / (1 + move.largest) if move.now < move.before else move.before * (1 + move.largest),
            unit=UNIT,
            evidence={
                "kind": move.kind,
                "before": move.before,
                "now": move.now,
                "n_steps_before": move.n_same,
                "largest_step_allowed": move.largest,
                "window": {"steps": [step for step, _ in self._recent], "beta": [beta for _, beta in self._recent]},
                "limits": self.parameters.model_dump(),
            },
        )


def describe_move(move: Move, *, record: StepRecord) -> str:
    """What happened, without the full stop."""
    if move.kind == "resumed":
        return f"Beta was {move.before:.4g} and starts segment {record.segment} at {move.now:.4g} {UNIT}, at step {record.step}"
    verb = "fell" if move.now < move.before else "rose"
    told = f"Beta {verb} from {move.before:.4g} to {move.now:.4g} {UNIT}"
    if move.kind == "collapse":
        return f"{told} within the 20 steps up to step {record.step}"
    if move.kind == "fixed":
        return f"{told} at step {record.step}, after {move.n_same} steps at {move.before:.4g}"
    return f"{told} at step {record.step}, where one step was expected to take it to no more than {1 + move.largest:.3g} times more or less"


def describe_outcome(beta: float) -> str:
    """What a beta means that is not above zero."""
    if beta > 0:
        return ""
    return ": the sign of the penalty is flipped, so leaving the reference is rewarded" if beta < 0 else ": there is no KL penalty any more"
