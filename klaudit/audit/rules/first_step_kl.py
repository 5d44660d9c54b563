"""KLA307 first_step_kl."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from klaudit.audit.budget_watch import list_latest_drift, name_measured
from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import NOTHING, Rule, RuleParameters
from klaudit.records import UNIT_LABELS, DriftMeasurement, Finding, KLReading, Run, Segment, Severity

NORMAL_95 = 1.96
"""Standard errors from a mean to an end of its 95% interval."""
LAST_FIRST_STEP = 1
"""Trainers count from 0 or from 1; what a record begins with later is not the first step."""


class FirstStepKLParameters(RuleParameters):
    """Parameters of KLA307."""

    warning_nats: float = Field(default=1e-3, gt=0, description="KL before the first update that is a warning, in nats/token")
    critical_nats: float = Field(default=1e-2, gt=0, description="KL before the first update that is critical, in nats/token")
    critical_sequence_nats: float = Field(default=1.0, gt=0, description="KL before the first update that is critical, in nats/sequence")
    standard_errors: float = Field(default=3.0, ge=0, description="standard errors that the KL has to be above a limit")


class FirstStepKL(Rule[FirstStepKLParameters]):
    """The policy is away from the reference before its first update.

    What it checks:
        The governing reading of step 0 or 1 of the run's first segment. KL at step t belongs to the policy before update t, so there it
        is that of the policy as training began. A record that begins at a later step, or whose first segment is a resume, is not judged. Also
        the measured drift of a checkpoint that was saved at step 0 of such a segment.

    Formula:
        KL - standard_errors x SE > critical_nats per token or critical_sequence_nats per sequence: critical; > warning_nats per token:
        warning. SE is the measured standard error, else sqrt(2 KL / B) of k1 in nats per sequence. So where the record proves that the
        policy began as the reference, by equal digests of their weights; without that proof what would be critical is info.

    Why it matters:
        Where both are the same weights, whatever is measured at the start is no drift: dropout is on, the precision, the temperature, the
        template or the adapter differs. It stays in every later KL and in the penalty.

    Parameters and where the defaults come from:
        warning_nats 1e-3: the mismatch that NeMo-RL's guide accepts. critical_nats, critical_sequence_nats: rule R04 of the catalogue, a
        judgement. standard_errors 3. Info without proof: a policy may begin at a fine-tuned checkpoint whose reference is another
        model, and trainers that log after an update begin above 0; recorded TRL PPO runs begin at 10 nats per sequence.

    What to do:
        Score one batch with policy and reference before training: switch dropout off in both, and compare dtype, temperature, chat
        template and adapter. If the policy is meant to begin elsewhere, nothing is wrong: read later KLs as distances from the reference.

    Example finding:
        KL to reference (full, nats/token) was 0.021 nats/token at step 1, before any update, although policy and reference are the same weights.
    """

    code = "KLA307"
    name = "first_step_kl"
    version = 1
    severities = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)
    parameters_model = FirstStepKLParameters

    def __init__(self, run: Run, *, parameters: FirstStepKLParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.episode = self.start_episode(series=run.governing_key, quiet_steps=1)
        self.is_same = begins_as_reference(run)
        self.is_judged = False
        self._is_over = self._is_resumed = False

    def reset(self) -> None:
        """See Rule: only the first segment begins at the beginning."""
        self._is_over = True

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        if self._is_over:
            self.needs = NOTHING
            return ()
        record, reading = observation.record, observation.governing
        if record.segment > 0 or record.step > LAST_FIRST_STEP or self.episode.is_open:
            self._is_over = True
            finding = self.episode.end()
        elif reading is None or not reading.is_finite:
            return ()
        else:
            judgement = self._judge(reading, step=record.step)
            finding = self.episode.observe(record, judgement)
            self.is_judged = True
            self._is_over = judgement is None
        return () if finding is None else (finding,)

    def observe_segment(self, segment: Segment) -> Iterator[Finding]:
        """See Rule."""
        if segment.index == 0 and segment.resumed_from_step:
            self._is_over = self._is_resumed = True
        yield from ()

    def observe_drift(self, measurements: Iterable[DriftMeasurement]) -> Iterator[Finding]:
        """See Rule."""
        measured = [one for one in list_latest_drift(measurements, run_id=self.run.id) if one.step == 0]
        if not measured or self._is_resumed:
            return
        self.is_judged = True
        episode = self.start_episode(series="drift", quiet_steps=1)
        for one in measured:
            error = (one.value - one.low) / NORMAL_95 if math.isfinite(one.low) else None
            reading = KLReading(one.series, one.value, standard_error=error, n_sequences=one.n_sequences, mean_length=one.mean_length)
            if not reading.is_finite:
                continue
            subject = name_measured(one)
            finding = episode.observe_at(0, self._judge(reading, step=0, subject=subject), segment=0)
            if finding is not None:
                yield finding

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if self.run.governing_key is None:
            yield "no reference KL of known estimator and unit is declared"
        elif not self.is_judged:
            yield "the record has no KL of step 0 or 1"

    def _judge(self, reading: KLReading, *, step: int, subject: str = "") -> Judgement | None:
        assert reading.value is not None
        parameters = self.parameters
        low = reading.value - parameters.standard_errors * (reading.effective_standard_error or 0.0)
        per_token = replace(reading, value=low).to_unit("nats_per_token").value
        per_token = per_token if per_token is not None and math.isfinite(per_token) else None
        is_critical = per_token is not None and per_token > parameters.critical_nats
        is_critical = is_critical or (reading.series.unit == "nats_per_sequence" and low > parameters.critical_sequence_nats)
        is_warning = self.is_same and per_token is not None and per_token > parameters.warning_nats
        if not is_critical and not is_warning:
            return None
        severity = Severity.CRITICAL if is_critical else Severity.WARNING
        unit = UNIT_LABELS[reading.series.unit]
        why = "although policy and reference are the same weights" if self.is_same else "if the trainer logs before it updates"
        return Judgement(
            severity=severity if self.is_same else Severity.INFO,
            badness=low,
            message=f"{subject or reading.series.label} was {reading.value:.3g} {unit} at step {step}, before any update, {why}.",
            remedy="Score one batch with both before training: switch dropout off, compare dtype, temperature, chat template and adapter.",
            value=reading.value,
            threshold=self._find_threshold(reading),
            unit=reading.series.unit,
            evidence={
                "kl": reading.value,
                "standard_error": reading.effective_standard_error,
                "unit": reading.series.unit,
                "nats_per_token": per_token,
                "is_same_weights": self.is_same,
            },
        )

    def _find_threshold(self, reading: KLReading) -> float:
        """The lowest limit that holds for a reading, in its unit."""
        if reading.series.unit == "nats_per_token":
            return self.parameters.warning_nats
        if reading.mean_length:
            return min(self.parameters.warning_nats * reading.mean_length, self.parameters.critical_sequence_nats)
        return self.parameters.critical_sequence_nats


def begins_as_reference(run: Run) -> bool:
    """Whether the record proves that the policy began with the reference's weights."""
    identity = run.identity or {}
    reference = run.reference.digest if run.reference is not None else None
    return _find_digest(identity, "policy") is not None and _find_digest(identity, "policy") in (
        reference,
        _find_digest(identity, "reference"),
    )


def _find_digest(identity: Mapping[str, Any], part: str) -> str | None:
    known = identity.get(part)
    digest = known.get("digest") if isinstance(known, Mapping) else None
    return digest if isinstance(digest, str) else None
