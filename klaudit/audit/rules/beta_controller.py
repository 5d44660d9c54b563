"""KLA403 beta_controller."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from klaudit.audit.beta_settings import read_beta_settings
from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.saturation import Saturation, SaturationWatch
from klaudit.records import UNIT_LABELS, Finding, KLReading, Run, Severity, StepRecord

UNIT = "reward/nat"
REMEDY_RESET = "Save the controller's state with the checkpoint, and restore it."
REMEDY_NEGATIVE = "Make the KL coefficient positive: the reward is score minus beta times KL."
REMEDY_NUMBERS = "Give the controller a set-point and a horizon above 0, or a fixed beta."
REMEDY_UNIT = (
    "Give the set-point in the unit of the KL that the controller is fed: nats per sequence are nats per token times the response length."
)
REMEDY_SATURATED = "Check that the set-point has the unit of the KL that the controller is fed and can be reached at all; shorten the horizon, or set beta by hand."
REMEDY_RANGE = "Decide whether the penalty at this strength is still meant; if it is not, set another set-point or a fixed beta."
FED_PER_TOKEN = frozenset({"verl", "openrlhf", "skyrl"})
FED_PER_SEQUENCE = frozenset({"trl", "trlx"})
"""What trainers feed their controllers (research catalogue, section 2.4: verl core_algos.py lines 153-176; TRL 0.11.4 ppo_trainer.py)."""
FAR_ABOVE = 1.2
"""Times the set-point: KL per sequence above which no controller that is fed it lowers beta."""
LEAST_CONTRARY = 10
"""Updates in a row against the KL per sequence that show that a controller is fed another."""
LEAST_TURNS = 3
"""Times that beta turns round which show that a controller moves it and no schedule."""
RETURNED = 0.5
"""Share of the range, on either side, that beta must come back into before leaving it is told again."""


class BetaControllerParameters(RuleParameters):
    """Parameters of KLA403."""

    moved: float = Field(
        default=0.05, gt=0, description="how far beta had moved from its first value for a reset to be told, as a share of it"
    )
    same: float = Field(default=0.01, gt=0, description="how near to its first value beta is after a reset, as a share of it")
    band: float = Field(
        default=0.2, gt=0, lt=1, description="how far from the set-point the KL is while the controller is saturated, as a share"
    )
    saturated_steps: int = Field(default=50, ge=50, le=1_000_000, description="updates in a row that make a controller a saturated one")
    range_factor: float = Field(default=10.0, gt=1, description="how many times its first value, or what part of it, beta may become")


class BetaController(Rule[BetaControllerParameters]):
    """The controller of beta does not do what it is there for.

    What it checks:
        Reset: beta at the first step of a segment, against the first and the last beta of the segment before it. Sign: the first beta of
        the run. Numbers: the set-point and horizon among the trainer's arguments. Unit: a set-point of 1 or more against a KL in nats per
        token, or below 1 against one in nats per sequence, where the trainer is known to feed its controller that, or where beta falls
        although the KL per sequence is above the set-point. Saturation: a KL that stays away from the set-point although beta has gone one
        way all the time. Range: a beta that a controller took far from its first value. Changes of beta from one step to the next are
        those of KLA402, a beta that is NaN or infinite of KLA303.

    Formula:
        Reset: |last - first| > moved x |first| before, and |beta - first| <= same x |first| now, unless the resume went back to where it
        was that. Saturation: |KL / set-point - 1| >= band on one side for saturated_steps while beta never went the other way, and
        log(KL / set-point), first 25 against last 25 of them, came nearer by less than half of what log(beta) moved, beyond two standard
        errors. Range: beta > range_factor x first or < first / range_factor, with a controller among the arguments or 3 turns of beta.

    Why it matters:
        A controller that starts again undoes what it had learnt. One that is saturated, in the wrong unit or without a positive set-point
        holds nothing: the KL goes where the rewards take it, while the configuration says that it is controlled. With a negative beta the
        penalty is a bonus: leaving the reference is rewarded.

    Parameters and where the defaults come from:
        moved 0.05 and same 0.01: one update of the Ziegler controller moves beta by at most 0.5% with 256 sequences and horizon 10,000
        (arXiv 1909.08593), so that a reset is told from a controller that has hardly moved. band 0.2 is where that controller clips its
        error; saturated_steps 50 and range_factor 10: rule R24 of the catalogue. That the KL did not follow is asked besides, because every
        healthy run starts far below its set-point: below 0.05 false alarms per 1,000 steps (tests/detectors/test_saturation.py). Reset:
        verl issue 2653; numbers: OpenRLHF pull request 1289.

    What to do:
        Save and restore the controller's state; give the set-point in the unit of the KL that the controller is fed; shorten the horizon,
        or set beta by hand.

    Example finding:
        Beta was 0.121 at the end of segment 0 and starts segment 1 at 0.2, its first value: the controller's state was not restored.
    """

    code = "KLA403"
    name = "beta_controller"
    version = 2
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = BetaControllerParameters

    def __init__(self, run: Run, *, parameters: BetaControllerParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.settings = read_beta_settings(run.config)
        self.target = self.settings.target if self.settings.target and self.settings.target > 0 else None
        self.n_betas = 0
        self.n_compared = 0
        self._has_begun = False
        self._segment: int | None = None
        self._initial: float | None = None
        self._first: float | None = None
        self._last: float | None = None
        self._left_at: int | None = None
        self._direction = 0
        self._n_turns = 0
        self._n_contrary = 0
        self._least, self._most = 0.0, math.inf
        self._is_out = False
        self._is_saturated = False
        self._is_unit_told = False
        self._saturation = SaturationWatch(band=parameters.band, least=parameters.saturated_steps)

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        record = observation.record
        findings: list[Finding] = []
        if not self._has_begun:
            self._has_begun = True
            findings += self._check_numbers(record)
        beta = observation.number("beta")
        if beta is None:
            return findings
        self.n_betas += 1
        if record.segment != self._segment:
            findings += self._begin_segment(record, beta)
        elif self._last is not None and beta != self._last:
            self._follow(record, beta)
        if self.target is not None and observation.governing is not None:
            findings += self._compare(record, beta, reading=observation.governing, target=self.target)
        is_within = self._least <= beta <= self._most and not self._is_out
        if not is_within and beta > 0 and (self.settings.is_adaptive or self._n_turns >= LEAST_TURNS):
            findings += self._check_range(record, beta)
        self._last = beta
        return findings

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.n_betas:
            yield "no finite beta is on record"
        elif self.target is not None and not self.n_compared:
            yield f"the set-point {self.target:g} was compared with nothing: no finite governing KL beside a beta above 0"

    def _begin_segment(self, record: StepRecord, beta: float) -> Iterator[Finding]:
        if self._last is None and beta < 0:
            yield from self._tell_negative(record, beta)
        if self._is_reset(beta, step=record.step):
            yield from self._tell_reset(record, beta)
        if self._initial is None and beta > 0:
            self._begin_range(beta)
        self._segment, self._first, self._left_at = record.segment, beta, None
        self._direction = self._n_contrary = 0
        self._saturation.clear()

    def _begin_range(self, beta: float) -> None:
        factor = self.parameters.range_factor
        self._initial, self._least, self._most = beta, beta / factor, beta * factor

    def _follow(self, record: StepRecord, beta: float) -> None:
        """Take note of a beta that moved."""
        assert self._last is not None
        direction = 1 if beta > self._last else -1
        if direction == -self._direction:
            self._n_turns += 1
        self._direction = direction
        if self._initial is None and beta > 0:
            self._begin_range(beta)
        if self._left_at is None and self._first is not None and abs(beta - self._first) > self.parameters.same * abs(self._first):
            self._left_at = record.step

    def _is_reset(self, beta: float, *, step: int) -> bool:
        if self._first is None or self._last is None or self._first == 0:
            return False
        moved = abs(self._last - self._first) > self.parameters.moved * abs(self._first)
        # A resume from before beta left its first value finds it there.
        goes_back = self._left_at is not None and step <= self._left_at
        return moved and not goes_back and abs(beta - self._first) <= self.parameters.same * abs(self._first)

    def _check_numbers(self, record: StepRecord) -> Iterator[Finding]:
        settings = self.settings
        for name, number, what in (
            (settings.target_name, settings.target, "set-point"),
            (settings.horizon_name, settings.horizon, "horizon"),
        ):
            if number is not None and not 0 < number < math.inf:
                yield from self._tell(
                    record,
                    Severity.CRITICAL,
                    f"The {what} of the controller of beta, {name}, is {number:g}: with it no update of beta makes sense.",
                    remedy=REMEDY_NUMBERS,
                    subject=f"numbers/{name}",
                    evidence={"name": name, "number": number},
                )
        if self.target is None or not settings.is_adaptive:
            return
        if self.run.framework in FED_PER_TOKEN and self.target >= 1:
            yield from self._tell_unit(record, f"{self.run.framework} feeds its controller a KL in nats/token")
        elif self.run.framework in FED_PER_SEQUENCE and self.target < 1:
            yield from self._tell_unit(record, f"{self.run.framework} feeds its controller a KL in nats/sequence")

    def _compare(self, record: StepRecord, beta: float, *, reading: KLReading, target: float) -> Iterator[Finding]:
        if beta <= 0 or reading.value is None or not reading.is_finite:
            return
        self.n_compared += 1
        saturation = self._saturation.observe(reading.value / target, control=beta, position=record.step)
        if saturation is None:
            self._is_saturated = False
        elif not self._is_saturated:
            self._is_saturated = True
            yield from self._tell_saturated(record, saturation, reading=reading, target=target)
        if target >= 1 and reading.series.unit == "nats_per_token" and reading.mean_length and self._last is not None:
            is_contrary = beta < self._last and reading.value * reading.mean_length > FAR_ABOVE * target
            self._n_contrary = self._n_contrary + 1 if is_contrary else 0
            if self._n_contrary == LEAST_CONTRARY:
                per_sequence = reading.value * reading.mean_length
                why = f"beta has fallen at {LEAST_CONTRARY} steps in a row while the KL was about {per_sequence:.3g} nats/sequence"
                yield from self._tell_unit(record, f"{why}, so the controller must be fed nats/token")

    def _check_range(self, record: StepRecord, beta: float) -> Iterator[Finding]:
        if self._initial is None:
            return
        ratio = max(beta / self._initial, self._initial / beta)
        if self._is_out:
            self._is_out = ratio > self.parameters.range_factor * RETURNED
            return
        self._is_out = True
        way, outcome, limit = ("rose", "stronger", self._most) if beta > self._initial else ("fell", "weaker", self._least)
        yield from self._tell(
            record,
            Severity.WARNING,
            f"Beta {way} to {beta:.4g} {UNIT} at step {record.step}, where it began at {self._initial:.4g}: the controller has made the "
            f"penalty {ratio:.3g} times {outcome}.",
            remedy=REMEDY_RANGE,
            subject="range",
            value=beta,
            threshold=limit,
            evidence={"first": self._initial, "now": beta, "limits": self.parameters.model_dump()},
        )

    def _tell_negative(self, record: StepRecord, beta: float) -> Iterator[Finding]:
        yield from self._tell(
            record,
            Severity.CRITICAL,
            f"Beta is {beta:.4g} {UNIT} from the first step on: the sign of the penalty is flipped, so leaving the reference is rewarded.",
            remedy=REMEDY_NEGATIVE,
            subject="sign",
            value=beta,
            threshold=0.0,
            evidence={"now": beta},
        )

    def _tell_reset(self, record: StepRecord, beta: float) -> Iterator[Finding]:
        yield from self._tell(
            record,
            Severity.CRITICAL,
            f"Beta was {self._last:.4g} at the end of segment {self._segment} and starts segment {record.segment} at "
            f"{beta:.4g}, its first value: the controller's state was not restored.",
            remedy=REMEDY_RESET,
            value=beta,
            threshold=self._last,
            evidence={"first": self._first, "last": self._last, "now": beta},
        )

    def _tell_unit(self, record: StepRecord, why: str) -> Iterator[Finding]:
        if self._is_unit_told:
            return
        self._is_unit_told = True
        name, target = self.settings.target_name, self.target
        size = "is a large one for a token" if target is not None and target >= 1 else "is a small one for a sequence"
        yield from self._tell(
            record,
            Severity.WARNING,
            f"The set-point of the controller of beta, {name} = {target:g}, seems to be in another unit than its KL: {why}, and {target:g} {size}.",
            remedy=REMEDY_UNIT,
            subject="unit",
            evidence={"name": name, "target": target, "framework": self.run.framework, "why": why},
        )

    def _tell_saturated(self, record: StepRecord, saturation: Saturation, *, reading: KLReading, target: float) -> Iterator[Finding]:
        unit = UNIT_LABELS[reading.series.unit]
        side = "above" if saturation.side > 0 else "below"
        is_other_unit = target >= 1 if reading.series.unit == "nats_per_token" else target < 1
        hint = f" The set-point may be in another unit than {unit}." if is_other_unit else ""
        yield from self._tell(
            record,
            Severity.WARNING,
            f"The KL has been {side} the controller's set-point of {target:g} by {self.parameters.band:.0%} or more for {saturation.n} "
            f"updates in a row: beta went from {saturation.first_control:.4g} to {saturation.control:.4g} {UNIT}, and the KL from "
            f"{saturation.ratio_before * target:.3g} to {saturation.ratio * target:.3g} {unit} does not follow it.{hint}",
            remedy=REMEDY_SATURATED,
            subject="saturated",
            first_step=int(saturation.first_position),
            value=saturation.ratio * target,
            threshold=target,
            unit=reading.series.unit,
            evidence={
                "target": target,
                "series": {"key": self.run.governing_key, "unit": reading.series.unit},
                "n_updates": saturation.n,
                "first_beta": saturation.first_control,
                "beta": saturation.control,
                "kl_before": saturation.ratio_before * target,
                "kl": saturation.ratio * target,
                "limits": self.parameters.model_dump(),
            },
        )

    def _tell(
        self,
        record: StepRecord,
        severity: Severity,
        message: str,
        *,
        remedy: str,
        evidence: dict[str, Any],
        subject: str = "",
        value: float | None = None,
        threshold: float | None = None,
        unit: str | None = UNIT,
        first_step: int | None = None,
    ) -> Iterator[Finding]:
        episode = self.start_episode(series="beta", subject=subject, quiet_steps=1)
        judgement = Judgement(
            severity=severity,
            badness=1.0,
            message=message,
            remedy=remedy,
            value=value,
            threshold=threshold,
            unit=None if value is None else unit,
            evidence=evidence,
            first_step=first_step,
        )
        finding = episode.observe(record, judgement)
        self.episodes.remove(episode)
        if finding is not None:
            yield finding
